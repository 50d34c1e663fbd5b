"""Thin Prefect tasks around `atomsets_core.jobs`: names, retries and Dask; the work itself runs on workers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
