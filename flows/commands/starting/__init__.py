"""The command that begins a campaign of one's own."""
