"""A campaign's folder over time: its files, checks, champions and changes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
