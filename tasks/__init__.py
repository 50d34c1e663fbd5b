"""Thin Prefect tasks around `atomsets_core`; the work itself runs on Dask workers."""
