"""The proof engine: bounds, dynamic programming and exchanges that prove a solution quickly."""
