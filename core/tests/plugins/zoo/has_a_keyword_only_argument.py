from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import DenseDescriptor


class Descriptor(DenseDescriptor):
    decoder_layer = "torch.nn.Identity"

    @hookimpl
    def layer_block_name(self, *, index):
        return f"layers.{index}"
