"""The Materials Project through its own client: page by page, resumable, and later only what is new."""
