"""Tasks of a run, and where they are computed: what is done, what is kept, what is tried again."""
