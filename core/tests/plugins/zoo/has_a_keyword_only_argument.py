from anyblock.descriptors import DenseDescriptor
from anyblock.hookspecs import hookimpl


class Descriptor(DenseDescriptor):
    decoder_layer = "torch.nn.Identity"

    @hookimpl
    def layer_block_name(self, *, index):
        return f"layers.{index}"
