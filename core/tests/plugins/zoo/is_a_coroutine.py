from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import DenseDescriptor


class Descriptor(DenseDescriptor):
    decoder_layer = "torch.nn.Identity"

    @hookimpl
    async def final_norm_name(self):
        return "transformer.ln_f"
