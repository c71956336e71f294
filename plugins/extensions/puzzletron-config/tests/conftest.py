"""The fixtures of tests of configurations."""

from anyblock_tests.configs import notes, registry, write

__all__ = ["notes", "registry", "write"]
