"""Values of one's own for entries of the Materials Project: a table of identifiers and values, joined to a pull.

The table says which entries are pulled, so that its rows cost one request for every 200 of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from atomsets_core.sources.base import Pulled, PulledFile, SourceError, Watcher, pulled_from_arrow
from atomsets_core.sources.files.label_tables import join_labels
from atomsets_core.sources.files.reading import read_labels
from atomsets_core.sources.files.text_tables import TableOptions
from atomsets_core.sources.identifiers import DEFAULT, id_columns, project_id
from atomsets_core.sources.materials_project.pull import pull_materials_project
from atomsets_core.sources.materials_project.query import MaterialsQuery
from atomsets_core.storage import Store
from atomsets_core.structures import Refusal

_OF_LABELS = ("labels", "labels_sha256", "notes")


def labelled_query(query: MaterialsQuery, labels: str, id_column: str, options: TableOptions) -> MaterialsQuery:
    """The query with the identifiers of a table, unless it names identifiers itself.

    Raises:
        SourceError: the table can't be read, or no column of it holds identifiers of the Materials Project.
    """
    if query.material_ids:
        return query
    table, _, _ = read_labels(labels, options)
    names = [str(name) for name in table.frame.columns]
    asked = id_columns(names, id_column)
    tried = asked if len(asked) == 1 and id_column != DEFAULT else tuple(dict.fromkeys([*asked, *names]))
    found: list[str] = []
    for name in tried:
        ids = [known for cell in table.frame[name] if isinstance(cell, str) and (known := project_id(cell))]
        if len(ids) > len(found):
            found = ids
    if not found:
        raise SourceError(
            f"{labels}: no column holds identifiers of the Materials Project (mp-22862, mp-aaaabhvi); found "
            f"{', '.join(names)}"
        )
    return query.model_copy(update={"material_ids": list(dict.fromkeys(found))})


def pull_labelled(
    query: MaterialsQuery,
    store: Store,
    target: str,
    labels: str,
    id_column: str = DEFAULT,
    options: TableOptions | None = None,
    watch: Watcher | None = None,
    pages: str = "pages",
) -> PulledFile:
    """Bring a file up to what the Materials Project holds of the entries in a table, with its columns beside them.

    Args:
        query: which of these entries, and which of their numbers.
        store: where the file and the pages lie.
        target: the file, Parquet; its provenance goes beside it as JSON.
        labels: the table.
        id_column: of its identifiers, in either spelling.
        options: how the table is read, where that isn't to be found out.
        watch: is told how far it is.
        pages: folder of the pages.

    Raises:
        SourceError: as `pull_materials_project`; the table can't be read, or names no entry.
        StorageError: the store can't be written.
    """
    options = options or TableOptions()
    query = labelled_query(query, labels, id_column, options)
    file = pull_materials_project(query, store, target, watch, pages)
    table, name, digest = read_labels(labels, options)
    columns = query.columns()
    # a pull that changed nothing leaves the file with the labels of the last time
    provenance = {key: value for key, value in file.provenance.items() if key not in _OF_LABELS}
    provenance["units"] = {column.name: column.unit for column in columns if not column.is_flag}
    pulled = pulled_from_arrow(store.read_table(target), provenance)
    own = [column.name for column in columns]
    pulled = Pulled(pulled.structures, pulled.columns[own], file.refused, provenance)
    joined = join_labels(pulled, list(pulled.structures.material_id), table, name, id_column)
    joined = replace(joined, refused=_in_words(joined, len(file.refused), name))
    store.write_table(target, joined.to_arrow(), row_group_size=4096)
    written: dict[str, Any] = {
        **joined.provenance,
        "labels": name,
        "labels_sha256": digest,
        "sha256": hashlib.sha256(store.read(target)).hexdigest(),
    }
    store.write_json(target.removesuffix(".parquet") + ".json", written)
    return PulledFile(target, file.structures, joined.refused, written, file.counts)


def _in_words(joined: Pulled, before: int, name: str) -> list[Refusal]:
    """The refusals, of rows without a structure in the words of the database; not twice what it refused itself."""
    known = {project_id(refusal.material_id) for refusal in joined.refused[:before]}
    kept = list(joined.refused[:before])
    for refusal in joined.refused[before:]:
        if not refusal.reason.endswith("there's no structure file for it"):
            kept.append(refusal)
        elif (meant := project_id(refusal.material_id)) is None:
            reason = f"{name} has a label for it, but it is no identifier of the Materials Project"
            kept.append(replace(refusal, reason=reason))
        elif meant not in known:
            kept.append(replace(refusal, reason=f"{name} has a label for it, but the query leaves {meant} out"))
    return kept
