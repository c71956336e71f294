"""How much every candidate hurts: exact replace-one scores with prefix reuse."""
