"""`new-family`: a plugin distribution written from what introspection found out."""

from anyblock.new_family.verify import Verified, verified
from anyblock.new_family.write import require_free, write_distribution

__all__ = ["Verified", "require_free", "verified", "write_distribution"]
