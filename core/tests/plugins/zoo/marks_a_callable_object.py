from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import DenseDescriptor


class Name:
    def __call__(self):
        return "transformer.ln_f"


class Descriptor(DenseDescriptor):
    decoder_layer = "torch.nn.Identity"
    final_norm_name = hookimpl(Name())
