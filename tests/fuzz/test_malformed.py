"""The corpus of malformed files: each gives a row or a reason, beside a good file that is read all the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.files.reading import read_path
from tests.fuzz.malformed import GOOD, files
from tests.fuzz.more_formats import MORE

CORPUS = list(files())


@pytest.mark.parametrize("name", MORE)
def test_good_files_of_further_formats_are_read_and_cut_ones_give_a_row_or_a_reason(name: str, tmp_path: Path):
    file, good = MORE[name]
    for text in good[:1]:
        (tmp_path / file).write_text(text)
        pulled = read_path(tmp_path / file)
        assert len(pulled.structures) >= 1, pulled.refused
        for part in range(1, 12):
            (tmp_path / file).write_text(text[: len(text) * part // 12])
            try:
                pulled = read_path(tmp_path / file)
            except SourceError:
                continue
            assert np.isfinite(pulled.structures.frac).all()
            assert all(refusal.reason and "\n" not in refusal.reason for refusal in pulled.refused)


def test_the_corpus_is_large_and_of_every_format():
    counts = Counter(format_ for format_, _, _ in CORPUS)
    assert len({content for _, _, content in CORPUS}) >= 200
    assert set(counts) == {"cif", "vasp", "xyz", "json", "parquet"}
    assert min(counts.values()) >= 40


@pytest.mark.parametrize("format_", ["cif", "vasp", "xyz", "json", "parquet"])
def test_every_malformed_file_gives_a_row_or_a_reason(format_: str, tmp_path: Path):
    (tmp_path / "good.cif").write_text(GOOD["cif"])
    names = {}
    for number, (_, name, content) in enumerate(item for item in CORPUS if item[0] == format_):
        (tmp_path / f"f{number:03}.{format_}").write_bytes(content)
        names[f"f{number:03}"] = name
    pulled = read_path(tmp_path)
    ids = [*pulled.structures.material_id, *(refusal.material_id for refusal in pulled.refused)]
    assert "good" in set(pulled.structures.material_id)
    silent = [name for stem, name in names.items() if not any(stem in text for text in ids)]
    # Files without rows, or whose rows have names of their own.
    assert set(silent) <= {"no rows", "blocks without name"} | OWN_NAMES, silent
    assert np.isfinite(pulled.structures.lattice).all()
    assert np.isfinite(pulled.structures.frac).all()
    assert ((pulled.structures.numbers > 0) & (pulled.structures.numbers < 119)).all()
    for refusal in pulled.refused:
        assert refusal.reason
        assert len(refusal.reason) <= 200
        assert "\n" not in refusal.reason


OWN_NAMES = {name for format_, name, _ in CORPUS if format_ == "parquet"}
"""Tables name their rows themselves: a and b."""
