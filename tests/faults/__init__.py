"""What breaks a campaign: kills, damage, full disks, two runs at once. `python -m tests.faults` tries it at length."""
