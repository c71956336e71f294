from anyblock.descriptors import DenseDescriptor


class LayerNorms:
    def final_norm_name(self):
        return "transformer.ln_f"


class Descriptor(LayerNorms, DenseDescriptor):
    decoder_layer = "torch.nn.Identity"
