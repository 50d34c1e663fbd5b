"""Files that are not what they should be, made by generators; `python -m tests.fuzz` tries many and counts."""
