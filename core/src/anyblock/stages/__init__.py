"""The stages of a run, one module each, in the order in which data passes through them."""
