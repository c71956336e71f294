"""Text and tokens that importance is measured on, candidates are scored on, and children are evaluated on."""
