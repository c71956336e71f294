"""Reports: as a table, as JSON, as a page, as a badge, and the difference between two."""
