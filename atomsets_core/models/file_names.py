"""The files of a saved model, by name; a file of its own, so that to know them takes no PyTorch."""

from __future__ import annotations

ARRAYS = "model.safetensors"
"""Every array of it."""

CONFIG = "model.json"
"""Everything else; written last, so that a folder with it is complete."""
