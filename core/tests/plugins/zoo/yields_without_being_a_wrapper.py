from anyblock.descriptors import DenseDescriptor
from anyblock.hookspecs import hookimpl


class Descriptor(DenseDescriptor):
    decoder_layer = "torch.nn.Identity"

    @hookimpl
    def final_norm_name(self):
        result = yield
        return result
