"""Tests; a package, so that the servers they talk to can be run by themselves: python -m tests.NAME."""
