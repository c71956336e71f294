from anyblock.descriptors import DenseDescriptor
from anyblock.hookspecs import hookimpl


class Descriptor(DenseDescriptor):
    decoder_layer = "torch.nn.Identity"

    @hookimpl(specname="final_norm_nam")
    def norm(self):
        return "norm"
