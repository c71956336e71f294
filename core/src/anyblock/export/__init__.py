"""Writing a child in forms that other tools read."""
