"""What tests of several folders share; pytest finds this package through `pythonpath` in pyproject.toml."""
