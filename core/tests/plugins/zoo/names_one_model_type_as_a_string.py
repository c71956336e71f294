from anyblock.contract.hookspecs import hookimpl


class Descriptor:
    model_types = "llama"

    @hookimpl
    def importance_hooks(self):
        return {}
