"""Science and storage of AtomSets screening: no orchestration here, usable on its own.

Rooms, each resting on those before it: `storage`, `structures`, `sources` and `parents`, `features`, `models`,
`discovery`, `campaigns`, `jobs` and `report`. What a room offers stands in its `__init__.pyi` and is imported from it:
`from atomsets_core.models import AtomSetsRegressor`.
"""
