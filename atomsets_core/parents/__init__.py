"""Frozen pretrained networks that features come from, one file each, and the tables of element vectors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
