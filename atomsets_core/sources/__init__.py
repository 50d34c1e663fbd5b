"""Where structures and labels come from."""
