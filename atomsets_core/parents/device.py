"""The torch device that work is done on."""

from __future__ import annotations

import torch


def resolve_device(device: str) -> torch.device:
    """A torch device; "auto" is the GPU where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
