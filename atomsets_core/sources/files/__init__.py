"""Files of structures and tables: which there are, what is in them, and how each format is read."""
