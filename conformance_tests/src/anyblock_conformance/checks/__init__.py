"""The checks themselves, one module a topic."""
