"""What a run did, as tables for a terminal and as a Markdown page."""
