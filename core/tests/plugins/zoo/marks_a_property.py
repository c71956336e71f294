from anyblock.descriptors import DenseDescriptor
from anyblock.hookspecs import hookimpl


class Descriptor(DenseDescriptor):
    decoder_layer = "torch.nn.Identity"

    @property
    @hookimpl
    def final_norm_name(self):
        return "transformer.ln_f"
