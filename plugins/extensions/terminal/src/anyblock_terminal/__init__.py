"""AnyBlock in a terminal: `init`, `schema`, `watch`, and the live display of long work."""
