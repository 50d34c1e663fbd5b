"""Where structures and labels come from. `pull` reads any of them by its address."""

from atomsets_core.sources.base import Pulled, SourceError

__all__ = ["Pulled", "SourceError"]
