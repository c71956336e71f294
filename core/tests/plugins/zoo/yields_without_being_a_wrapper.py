from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import DenseDescriptor


class Descriptor(DenseDescriptor):
    decoder_layer = "torch.nn.Identity"

    @hookimpl
    def final_norm_name(self):
        result = yield
        return result
