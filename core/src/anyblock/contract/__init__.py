"""All that a third party reads or implements: the surface that semantic versioning covers."""
