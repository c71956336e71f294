from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import DenseDescriptor


class Descriptor(DenseDescriptor):
    decoder_layer = "torch.nn.Identity"

    @hookimpl(specname="final_norm_nam")
    def norm(self):
        return "norm"
