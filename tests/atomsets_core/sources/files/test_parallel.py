"""Files parsed on other processes give what they give here, and a file that takes its process with it costs itself."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.files import parallel
from atomsets_core.sources.files.parallel import Chunk, Parsed, Processes, WorkerLostError, parse_chunk
from atomsets_core.sources.files.reading import read_path
from atomsets_core.sources.pull import pull


@pytest.fixture(scope="module")
def folder(tmp_path_factory, elastic) -> Path:
    """40 CIFs, a broken one, a JSON file and labels."""
    place = tmp_path_factory.mktemp("cifs")
    batch = elastic.structures.take(np.arange(40))
    for structure, name in zip(batch.to_pymatgen(), batch.material_id, strict=True):
        structure.to(place / f"{name}.cif")
    (place / "broken.cif").write_text("data_x\n_cell_length_a 3\n")
    lines = [f"{name},{i}" for i, name in enumerate(batch.material_id)]
    (place / "values.csv").write_text("id,y\n" + "\n".join(lines))
    return place


def parse_with_accidents(chunk: Chunk) -> Parsed:
    """A parser that kills its process or never ends, by the name of a file."""
    for file in chunk.files:
        if file.name == "mp-10003.cif":
            os._exit(3)
        if file.name == "mp-101.cif":
            time.sleep(600)
    return parse_chunk(chunk)


def add_thread_name(number: int) -> tuple[int, int]:
    if number == 7:
        raise ValueError("seven")
    return number + 1, os.getpid()


def same(first, second) -> bool:
    return (
        list(first.structures.material_id) == list(second.structures.material_id)
        and list(first.structures.hashes) == list(second.structures.hashes)
        and first.columns.equals(second.columns)
        and first.refused == second.refused
        and first.provenance == second.provenance
    )


def test_workers_give_the_same_as_this_process(folder, monkeypatch):
    monkeypatch.setattr(parallel, "FILES_PER_CHUNK", 7)
    here, there = read_path(folder), pull(str(folder), workers=2)
    assert len(here.structures) == 40
    lines = (folder / "values.csv").read_text().splitlines()[1:]
    stated = {line.split(",")[0]: int(line.split(",")[1]) for line in lines}
    assert dict(zip(here.structures.material_id, here.columns["y"], strict=True)) == stated
    assert [refusal.material_id for refusal in here.refused] == ["broken.cif"]
    assert same(here, there)


def test_a_file_that_kills_or_blocks_its_process_costs_only_itself(folder, monkeypatch):
    names = sorted(path.stem for path in folder.glob("mp-*.cif"))
    monkeypatch.setattr(parallel, "FILES_PER_CHUNK", 12)
    monkeypatch.setattr(parallel, "PATIENCE", 5.0)
    monkeypatch.setattr(parallel, "parse_chunk", parse_with_accidents)
    pulled = pull(str(folder), workers=2)
    said = {refusal.material_id: refusal.reason for refusal in pulled.refused}
    assert set(pulled.structures.material_id) == set(names) - {"mp-10003", "mp-101"}
    assert set(said) == {"broken.cif", "mp-10003.cif", "mp-101.cif"}
    assert "died (exit code 3)" in said["mp-10003.cif"]
    assert "took more than 5 s" in said["mp-101.cif"]


def test_an_exception_of_the_function_is_raised_here_and_the_process_goes_on():
    with Processes(1) as processes:
        with pytest.raises(ValueError, match="seven"):
            list(processes(add_thread_name, [7], [30]))
        first, second = (next(processes(add_thread_name, [1], [30]))[1] for _ in range(2))
    assert first == second
    assert first[0] == 2
    assert first[1] != os.getpid()
    assert threading.active_count() < 20
    with pytest.raises(SourceError, match="at least 1"), Processes(0):
        pass


def test_files_that_a_worker_does_not_see_are_parsed_here(folder):
    elsewhere = []

    def blind(function, items, limits):
        for position, chunk in enumerate(items):
            elsewhere.append(len(chunk.files))
            yield position, Parsed(parallel._only([]), unseen=chunk.files)

    assert same(read_path(folder, fan_out=blind), read_path(folder))
    assert sum(elsewhere) == 41


def test_results_keep_the_order_of_the_files_whatever_order_they_come_in(folder, monkeypatch):
    monkeypatch.setattr(parallel, "FILES_PER_CHUNK", 5)

    def backwards(function, items, limits):
        for position in reversed(range(len(items))):
            yield position, function(items[position])

    assert same(read_path(folder, fan_out=backwards), read_path(folder))


def test_a_lost_worker_that_was_not_the_files_fault_loses_nothing(folder):
    lost = []

    def once(function, items, limits):
        for position, chunk in enumerate(items):
            if len(chunk.files) > 1:
                lost.append(position)
                yield position, WorkerLostError("died")
            else:
                yield position, function(chunk)

    assert same(read_path(folder, fan_out=once), read_path(folder))
    assert lost
