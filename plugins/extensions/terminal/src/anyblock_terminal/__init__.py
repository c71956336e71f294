"""AnyBlock in a terminal: `init`, `schema`, `watch`, `generate`, and the live display of long work."""
