"""Writing the child that a search solution describes."""
