"""Prefect flows and the command line: `campaign` (the file) and `server`, then `runs`, then `commands`, then `cli`."""
