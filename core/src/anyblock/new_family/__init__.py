"""`new-family`: a plugin distribution written from what introspection found out."""

from anyblock.new_family.write import write_distribution

__all__ = ["write_distribution"]
