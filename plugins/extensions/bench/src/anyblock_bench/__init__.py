"""How fast models generate, next to one another on one device."""
