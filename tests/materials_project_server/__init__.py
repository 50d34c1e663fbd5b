"""A Materials Project on this machine, for tests and demonstrations: the protocol of the real one, real structures.

    python -m tests.materials_project_server --data atomsets_core/data/flla_2015.parquet --port 8123

See `__main__` for its options and `faults` for how it misbehaves on demand.
"""
