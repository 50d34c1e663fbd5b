"""Parquet from elsewhere is read once in a process of its own before this one touches it.

A damaged file can make Arrow's reader end its whole process ("terminate called after throwing an instance of
parquet::ParquetException"), which no `except` catches. What ends the other process is refused here like any other
damage. The process starts with the first file, takes one after the other, and ends when it has had none for a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.storage.memory import check_parquet

PATIENCE = 20.0
"""Seconds without a file after which the process ends."""

SLOWEST = 600.0
"""Seconds that one file may take."""

_KEPT = 256
"""Files remembered as harmless."""

DIED = "damaged: reading it ends the process that reads it"


class _Probe:
    """The other process, seen from here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._harmless: dict[tuple[str, int, int, int], None] = {}

    def file(self, path: Path) -> None:
        about = path.stat()
        known = (str(path.resolve()), about.st_size, about.st_mtime_ns, about.st_ino)
        with self._lock:
            if known not in self._harmless:
                self._ask({"path": known[0]}, b"")
                self._harmless[known] = None
                if len(self._harmless) > _KEPT:
                    del self._harmless[next(iter(self._harmless))]

    def content(self, content: bytes) -> None:
        with self._lock:
            self._ask({"size": len(content)}, content)

    def _ask(self, request: dict[str, Any], content: bytes) -> None:
        message = json.dumps(request).encode() + b"\n"
        for _ in range(2):  # one that ended for want of work is started again
            process = self._process
            if process is None or process.poll() is not None:
                process = self._process = subprocess.Popen(  # noqa: S603 - this module, by the same interpreter
                    [sys.executable, "-P", "-m", __name__],  # -P: nothing is imported from the folder we are in
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("no pipes to the reading process")
            with contextlib.suppress(OSError):
                process.stdin.write(message)
                process.stdin.write(content)
                process.stdin.flush()
                if not select.select([process.stdout], [], [], SLOWEST)[0]:
                    self._stop()
                    raise ValueError(f"damaged: reading it takes more than {SLOWEST:.0f} s")
                if process.stdout.readline() == b"read\n":
                    return
            code = process.wait()
            self._stop()
            if code < 0:
                raise ValueError(DIED)
            if code:
                raise RuntimeError(
                    f"Parquet can't be read: `{sys.executable} -m atomsets_core.storage.parquet_probe` ends with {code}"
                )
        raise ValueError(DIED)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_PROBE = _Probe()


def probe_file(path: Path) -> None:
    """See whether a Parquet file can be read without harm; one that only is no Parquet file passes.

    A file that passed isn't read again in this process as long as its size and times stay the same.

    Raises:
        ValueError: it ends the process that reads it, or takes endless time.
        OSError: there is no such file.
    """
    _PROBE.file(path)


def probe_content(content: bytes) -> None:
    """See whether the bytes of a Parquet file can be read without harm, as `probe_file` does for one on the disk.

    Raises:
        ValueError: they end the process that reads them, or take endless time.
    """
    _PROBE.content(content)


def _read_all(source: Any, size: int) -> None:
    with (
        contextlib.suppress(ValueError, OSError, MemoryError, pa.ArrowException),
        pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20) as file,
    ):
        rows = check_parquet(file, size, largest=1 << 60)
        for _ in file.iter_batches(rows, use_threads=False):
            pass


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Read the files that are named or sent, and say "read" after each."""
    while select.select([requests], [], [], PATIENCE)[0]:
        line = requests.readline()
        if not line:
            return
        request = json.loads(line)
        if "path" in request:
            _read_all(request["path"], Path(request["path"]).stat().st_size)
        else:
            content = requests.read(request["size"])
            _read_all(pa.BufferReader(content), len(content))
            del content
        pa.default_memory_pool().release_unused()
        answers.write(b"read\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
