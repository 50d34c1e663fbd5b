"""Files parsed in chunks, here or on other processes, so that one bad file costs itself and nothing else.

`parse_chunk` is a pure function of file names that any scheduler can carry. Whatever a parser raises becomes the
refusal of its file. A parser that kills its process (out of memory, a crash of compiled code) or never ends takes its
chunk with it; the files of that chunk are then tried one by one, and the one that does it again is refused.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pandas as pd

from atomsets_core.sources.base import Entry, Pulled, SourceError, StructureFile, pulled_from_entries, reason_of
from atomsets_core.sources.columns import with_notes
from atomsets_core.sources.files.formats import read_file
from atomsets_core.storage import sha256_of
from atomsets_core.structures import Refusal, Structures

FILE = "\0file"
"""Column with the name of each structure's file, which so stays in step when rows go."""

FILES_PER_CHUNK = 128
BYTES_PER_CHUNK = 4_000_000
PATIENCE = 60.0
"""Seconds a chunk may always take."""
SLOWEST = 20_000
"""Bytes a second that even a slow parser reads."""

_START = 120.0

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerLostError(Exception):
    """The process that worked on a chunk died or had to be stopped; the message says which."""


class FanOut(Protocol):
    """Calls a function on many items somewhere else."""

    def __call__(
        self, function: Callable[[Item], Result], items: Sequence[Item], limits: Sequence[float]
    ) -> Iterator[tuple[int, Result | WorkerLostError]]:
        """Position and result of each item, as they come; `limits` are seconds for each."""
        ...


@dataclass(frozen=True)
class Parsed:
    """What a chunk of files gave.

    Attributes:
        pulled: its structures, with a column `FILE`.
        digests: path of each file on the disk (a zip for its members) and sha256.
        unseen: files that don't exist where the chunk was parsed.
    """

    pulled: Pulled
    digests: dict[Path, str] = field(default_factory=dict)
    unseen: tuple[StructureFile, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """Files parsed together.

    Attributes:
        files: of one source, in order.
        id_column: see `read_path`.
    """

    files: tuple[StructureFile, ...]
    id_column: str

    @property
    def seconds(self) -> float:
        """How long it may take."""
        return PATIENCE + sum(file.size for file in self.files) / SLOWEST


def parse_chunk(chunk: Chunk) -> Parsed:
    """All structures of some files; a file that can't be read becomes a refusal with its name."""
    parts: list[Pulled] = []
    waiting: list[Entry | Refusal] = []
    unseen = []
    digests: dict[Path, str] = {}
    for file in chunk.files:
        if not file.path.exists():
            unseen.append(file)
            continue
        try:
            if not file.member:
                digests[file.path] = sha256_of(file.path)
            found = read_file(file, chunk.id_column)
            if isinstance(found, Pulled):
                parts.append(pulled_from_entries(waiting, convert=False))  # those of the files before it
                waiting = []
                parts.append(replace(found, columns=found.columns.assign(**{FILE: file.name})))
                continue
            for item in found:
                if isinstance(item, Entry):
                    item = replace(item, columns={**item.columns, FILE: file.name})
                waiting.append(item)
        except Exception as error:  # a parser's; what came before it is kept
            waiting.append(Refusal(file.name, "parse", reason_of(error)))
    parts.append(pulled_from_entries(waiting, convert=False))
    return Parsed(_joined(parts), digests, tuple(unseen))


def _joined(parts: Sequence[Pulled]) -> Pulled:
    held = [part for part in parts if len(part.structures)]
    frame = pd.concat([part.columns for part in held], ignore_index=True) if held else pd.DataFrame({FILE: []})
    structures = Structures.concat([part.structures for part in held])
    told: dict[str, Any] = {}
    for part in parts:
        told = with_notes(told, part.provenance.get("notes", []), part.provenance.get("units"))
    return Pulled(structures, frame, [refusal for part in parts for refusal in part.refused], told)


def parse_all(files: Sequence[StructureFile], id_column: str, fan_out: FanOut | None = None) -> Parsed:
    """All structures of all files, in their order.

    Args:
        files: to read.
        id_column: see `read_path`.
        fan_out: where chunks are parsed; in this process without one, where a parser that crashes or hangs takes the
            process with it.
    """
    chunks = [Chunk(part, id_column) for part in _split(files)]
    if fan_out is None:
        return _all([_complete(parse_chunk(chunk), id_column) for chunk in chunks])
    parsed: dict[int, Parsed] = {}
    lost = []
    for position, result in fan_out(parse_chunk, chunks, [chunk.seconds for chunk in chunks]):
        if isinstance(result, WorkerLostError):
            lost.append(position)
        else:
            parsed[position] = _complete(result, id_column)
    for position in sorted(lost):
        parsed[position] = _one_by_one(chunks[position], fan_out)
    return _all([parsed[position] for position in range(len(chunks))])


def _all(parts: Sequence[Parsed]) -> Parsed:
    digests = {path: digest for part in parts for path, digest in part.digests.items()}
    return Parsed(_joined([part.pulled for part in parts]), digests)


def _only(refused: list[Refusal]) -> Pulled:
    return Pulled(Structures.concat([]), pd.DataFrame(), refused)


def _split(files: Sequence[StructureFile]) -> Iterator[tuple[StructureFile, ...]]:
    chunk: list[StructureFile] = []
    size = 0
    for file in files:
        if chunk and (len(chunk) == FILES_PER_CHUNK or size + file.size > BYTES_PER_CHUNK):
            yield tuple(chunk)
            chunk, size = [], 0
        chunk.append(file)
        size += file.size
    if chunk:
        yield tuple(chunk)


def _complete(parsed: Parsed, id_column: str) -> Parsed:
    """Files that a worker on another machine doesn't see are parsed here; those gone here too are refused."""
    if not parsed.unseen:
        return parsed
    here = parse_chunk(Chunk(parsed.unseen, id_column))
    gone = [Refusal(file.name, "parse", "the file is no longer there") for file in here.unseen]
    return _all([parsed, here, Parsed(_only(gone))])


def _one_by_one(chunk: Chunk, fan_out: FanOut) -> Parsed:
    """Each file of a chunk whose worker was lost, by itself."""
    parts = []
    for file in chunk.files:
        alone = Chunk((file,), chunk.id_column)
        for _, result in fan_out(parse_chunk, [alone], [alone.seconds]):
            if isinstance(result, WorkerLostError):
                parts.append(Parsed(_only([Refusal(file.name, "parse", f"the process that read it {result}")])))
            else:
                parts.append(_complete(result, chunk.id_column))
    return _all(parts)


@dataclass
class Processes:
    """Worker processes of this machine as a fan-out; a context manager.

    They are started afresh (spawn), so a script that uses them needs `if __name__ == "__main__":`.

    Attributes:
        workers: how many.
    """

    workers: int
    _free: queue.SimpleQueue[_Process] = field(default_factory=queue.SimpleQueue)
    _all: list[_Process] = field(default_factory=list)

    def __enter__(self) -> Processes:
        if self.workers < 1:
            raise SourceError(f"workers = {self.workers}: at least 1 is needed")
        for _ in range(self.workers):
            self._all.append(_Process())
            self._free.put(self._all[-1])
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._all:
            process.stop()

    def __call__(
        self, function: Callable[[Item], Result], items: Sequence[Item], limits: Sequence[float]
    ) -> Iterator[tuple[int, Result | WorkerLostError]]:
        """Position and result of each item as it comes, or the error of a worker that was lost; see `FanOut`."""

        def call(position: int) -> tuple[int, Result | WorkerLostError]:
            process = self._free.get()
            try:
                return position, process.call(function, items[position], limits[position])
            except WorkerLostError as error:
                return position, error
            finally:
                self._free.put(process)

        with ThreadPoolExecutor(self.workers) as threads:
            for future in as_completed([threads.submit(call, position) for position in range(len(items))]):
                yield future.result()


class _Process:
    """A process that calls what it is sent, started when it is needed and again after it was lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Any = None
        self._pipe: Any = None

    def call(self, function: Callable[[Item], Result], item: Item, limit: float) -> Result:
        with self._lock:
            try:
                if self._process is None:
                    self._start()
                self._pipe.send((function, item))
                if not self._pipe.poll(limit):
                    raise WorkerLostError(f"took more than {limit:.0f} s")
                failed, result = self._pipe.recv()
            except (EOFError, OSError) as error:
                self._process.join()
                code = self._process.exitcode
                self.stop()
                raise WorkerLostError(f"died (exit code {code})") from error
            except WorkerLostError:
                self.stop()
                raise
        if failed:
            raise result
        answer: Result = result
        return answer

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()  # so that the pipe ends when the process does
        if not self._pipe.poll(_START):  # imports don't count as work
            raise WorkerLostError(f"didn't start within {_START:.0f} s")
        self._pipe.recv()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _serve(pipe: Connection) -> None:
    warnings.simplefilter("ignore")  # as `read_path` does for this process: what matters comes back as a refusal
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        pipe.send("ready")
        while True:
            function, item = pipe.recv()
            try:
                answer = (False, function(item))
            except Exception as error:
                answer = (True, error)
            pipe.send(answer)
