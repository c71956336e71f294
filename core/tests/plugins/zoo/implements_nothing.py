class Descriptor:
    """A descriptor in name only."""
