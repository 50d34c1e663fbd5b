"""Commands for what a finished campaign holds: its report, its candidates."""
