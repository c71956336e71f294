"""One run: its folder, its models, the memory it may take, and what its tasks compute with."""
