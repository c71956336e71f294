from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import DenseDescriptor


class Descriptor(DenseDescriptor):
    decoder_layer = "torch.nn.Identity"

    @hookimpl
    def create_block_configs(self, confg):
        return []
