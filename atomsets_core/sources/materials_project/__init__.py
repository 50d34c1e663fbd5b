"""The Materials Project through its own client: page by page, resumable, and later only what is new."""

from atomsets_core.sources.materials_project.fields import Column, column, known_fields
from atomsets_core.sources.materials_project.pull import pull_materials_project
from atomsets_core.sources.materials_project.query import Bounds, MaterialsQuery

__all__ = ["Bounds", "Column", "MaterialsQuery", "column", "known_fields", "pull_materials_project"]
