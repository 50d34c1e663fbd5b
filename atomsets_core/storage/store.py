"""Files of a campaign on a disk or in an object store: whole or not at all, with checksums, and columns with units.

A local file is written to a temporary name in its folder, flushed to the disk and renamed; an object store puts an
object in one step. Nobody ever sees half a file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import posixpath
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.storage.memory import read_parquet
from atomsets_core.storage.object_store import SCHEME as S3
from atomsets_core.storage.object_store import ObjectStoreError, open_s3, told_by_server

if TYPE_CHECKING:  # the command line starts without pandas
    import pandas as pd

LARGEST_JSON = 1 << 29
"""Bytes of a JSON file beyond which it is none of ours."""

SCHEMES = ("file", "local", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hdfs", "webhdfs", "oss")
"""Where a store may be. fsspec knows more: archives, web servers, addresses in addresses; none of them is a folder."""


_PACKAGES = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "adl": "adlfs",
    "oss": "ossfs",
}
"""What fsspec needs for a scheme that it doesn't come with."""


class StorageError(Exception):
    """A file could not be written or read; the message names it, says why and what to do."""


class BusyError(StorageError):
    """Another run holds the folder."""


class Store:
    """A folder, local or behind an fsspec URL such as s3://bucket/campaign.

    Args:
        root: path or URL. A local folder is made on the first write, a bucket never.

    Raises:
        StorageError: a URL that can't be one of a folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        scheme, separator, _ = self.root.partition("://")
        if "::" in self.root or (separator and scheme.lower() not in SCHEMES):
            raise StorageError(
                f"{self.root}: no folder or object store; write a path, or a URL like s3://bucket/folder"
            )
        self._fs: Any
        self._path: str
        try:
            self._fs, self._path = open_s3(self.root) if self.root.startswith(S3) else fsspec.core.url_to_fs(self.root)
        except ImportError as error:  # fsspec names the package that speaks to this kind of store
            package = _PACKAGES.get(scheme.lower(), "")
            needed = f"pip install {package}" if package else str(error)
            raise StorageError(f"{self.root}: a package is missing for {scheme}:// addresses: {needed}") from error
        except ObjectStoreError as error:
            raise StorageError(str(error)) from error
        except OSError as error:
            raise StorageError(f"{self.root} can't be reached: {_why(error)}") from error
        self.is_local = "file" in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,))

    def __repr__(self) -> str:
        return f"Store({self.root!r})"

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        """Another process gets the path or URL alone, and opens it with the keys and connections that it has itself."""
        return type(self), (self.root,)

    def url(self, name: str) -> str:
        """Path or URL of a file in the store, for messages and for other processes."""
        return f"{self.root.rstrip('/')}/{posixpath.normpath(name)}"

    def local(self, name: str) -> Path:
        """Path of a file in a local store.

        Raises:
            StorageError: the store is not on this machine's disk.
        """
        if not self.is_local:
            raise StorageError(f"{self.root} is not a local folder")
        return Path(self._full(name))

    def _full(self, name: str) -> str:
        """Path of a file within the file system of the store; never outside its root."""
        inside = posixpath.normpath(name)
        if inside.startswith(("/", "..")):
            raise ValueError(f"{name!r} is not a name within {self.root}")
        return f"{self._path.rstrip('/')}/{inside}"

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name.

        Raises:
            StorageError: the store doesn't answer.
        """
        with self._reached(name):
            return bool(self._fs.exists(self._full(name)))

    @contextlib.contextmanager
    def _reached(self, name: str) -> Iterator[None]:
        """What a store says that can't be reached, as an error of ours; what isn't there is for the caller."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"{self.url(name)} can't be read: {_why(error)}") from error

    def names(self, folder: str, suffix: str = "") -> list[str]:
        """Names (relative to the store) of the files directly in a folder, sorted; none if there is no folder."""
        try:
            with self._reached(folder):
                found = self._fs.ls(self._full(folder), detail=True)
        except FileNotFoundError:
            return []
        names = [str(item["name"]).rsplit("/", 1)[-1] for item in found if item["type"] != "directory"]
        return sorted(f"{folder}/{name}" for name in names if name.endswith(suffix) and not name.startswith("."))

    def all_names(self, folder: str, hidden: bool = False) -> list[str]:
        """Names (relative to the store) of all files below a folder, "." for the whole store, sorted.

        Args:
            folder: where to look; none where it doesn't exist.
            hidden: list those whose name begins with a dot as well.
        """
        root = self._full(folder).removesuffix("/.").rstrip("/")
        try:
            with self._reached(folder):
                found = self._fs.find(root)
        except FileNotFoundError:
            return []
        start = len(self._path.rstrip("/")) + 1
        names = [str(path)[start:] for path in found]
        return sorted(name for name in names if hidden or not name.rsplit("/", 1)[-1].startswith("."))

    def sizes(self, folder: str, suffix: str = "") -> dict[str, int]:
        """Name (relative to the store) -> bytes of the files directly in a folder, from one listing."""
        try:
            with self._reached(folder):
                found = self._fs.ls(self._full(folder), detail=True)
        except FileNotFoundError:
            return {}
        names = [(str(item["name"]).rsplit("/", 1)[-1], item) for item in found if item["type"] != "directory"]
        return {
            f"{folder}/{name}": int(item["size"])
            for name, item in sorted(names, key=lambda pair: pair[0])
            if name.endswith(suffix)
        }

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            StorageError: there is none.
        """
        try:
            with self._reached(name):
                return int(self._fs.size(self._full(name)))
        except FileNotFoundError as error:
            raise StorageError(f"{self.url(name)} does not exist") from error

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            StorageError: there is none, or it can't be read.
        """
        try:
            data: bytes = self._fs.cat_file(self._full(name))
        except FileNotFoundError as error:
            raise StorageError(f"{self.url(name)} does not exist") from error
        except OSError as error:
            raise StorageError(f"{self.url(name)} can't be read: {_why(error)}") from error
        return data

    def open(self, name: str) -> BinaryIO:
        """A file opened for reading, for formats of which only a part is needed."""
        file: BinaryIO = self._fs.open(self._full(name), "rb")
        return file

    def write(self, name: str, data: bytes) -> None:
        """Put a whole file in place, replacing what was there.

        Raises:
            StorageError: no permission, no space left, or the like; nothing is left behind.
        """
        try:
            if self.is_local:
                _write_local(Path(self._full(name)), data)
            else:
                self._fs.pipe_file(self._full(name), data)
        except OSError as error:
            raise StorageError(f"{self.url(name)} can't be written: {_why(error)}") from error

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[BinaryIO]:
        """A file to be written bit by bit, that takes the place of what was there when the block ends without error.

        Raises:
            StorageError: no permission, no space left, or the like; nothing is left behind.
        """
        try:
            if self.is_local:
                with _replacing_local(Path(self._full(name))) as file:
                    yield file
            else:
                with tempfile.TemporaryFile() as file:
                    yield file
                    file.seek(0)
                    with self._fs.open(self._full(name), "wb") as remote:
                        shutil.copyfileobj(file, remote, 1 << 22)
        except OSError as error:
            raise StorageError(f"{self.url(name)} can't be written: {_why(error)}") from error

    def remove(self, name: str) -> None:
        """Delete a file if it is there.

        Raises:
            StorageError: no permission, or the like.
        """
        try:
            self._fs.rm_file(self._full(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"{self.url(name)} can't be removed: {_why(error)}") from error

    def read_json(self, name: str) -> Any:
        """A JSON file.

        Raises:
            StorageError: it doesn't exist, isn't JSON or is larger than any of ours.
        """
        if self.size(name) > LARGEST_JSON:
            raise StorageError(f"{self.url(name)} is larger than any JSON file of a campaign: it is none of ours")
        try:
            return json.loads(self.read(name), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise StorageError(f"{self.url(name)} is damaged: not JSON ({error}). Delete it and run again") from error

    def write_json(self, name: str, value: Any) -> None:
        """A JSON file, indented, keys in their order."""
        self.write(name, json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file.

        Raises:
            StorageError: it doesn't exist or isn't Parquet.
        """
        # a file here is read column by column, one elsewhere in a single request
        if self.is_local and self.exists(name):
            source, size = self._full(name), self.size(name)
        else:
            data = self.read(name)
            source, size = pa.BufferReader(data), len(data)
        try:
            return read_parquet(source, size, columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno:
                raise StorageError(f"{self.url(name)} can't be read: {error.strerror or error}") from error
            raise StorageError(f"{self.url(name)} is damaged: {error}. Delete it and run again") from error

    def write_table(self, name: str, table: pa.Table, **options: Any) -> bytes:
        """A Parquet file, zstd unless told otherwise; returns the bytes written."""
        sink = io.BytesIO()
        pq.write_table(table, sink, **{"compression": "zstd", **options})
        self.write(name, sink.getvalue())
        return sink.getvalue()

    @contextlib.contextmanager
    def lock(self, name: str = ".lock") -> Iterator[None]:
        """Hold the store for one run; the lock goes with the process, however it ends. Local stores only.

        Raises:
            BusyError: another run holds it.
        """
        if not self.is_local:
            yield
            return
        import fcntl

        path = Path(self._full(name))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except OSError as error:
            raise StorageError(f"{self.root} can't be written: {_why(error)}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BusyError(
                    f"another run is at work in {self.root}: wait for it, or choose another --out"
                ) from error
            yield

    @contextlib.contextmanager
    def guarded(self, alone: bool = False) -> Iterator[None]:
        """Wait until files that belong together can be written, or with `alone` removed, without somebody in between.

        Several may write at a time, while nobody removes. Local stores only: an object store has no locks.

        Raises:
            StorageError: the folder can't be written; with `alone` also where it is not there (any more).
        """
        if not self.is_local:
            yield
            return
        import fcntl

        path = self.local(".guard")
        try:
            if not alone:
                path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
        except FileNotFoundError as error:
            raise StorageError(f"{self.root} is gone: it was moved or removed meanwhile") from error
        except OSError as error:
            raise StorageError(f"{self.root} can't be written: {_why(error)}") from error
        with file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield

    def holds(self, name: str) -> bool:
        """Whether a file of this name lies in the folder itself, and not behind a link that leads out of it."""
        return not self.is_local or self.local(name).parent.resolve().is_relative_to(self.local(".").resolve())


def _write_local(path: Path, data: bytes) -> None:
    with _replacing_local(path) as file:
        file.write(data)


@contextlib.contextmanager
def _replacing_local(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _why(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "no space left on the device. Free some and run again: what is finished is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.strerror}. Choose a folder you may write to with --out"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{error.strerror}: a file stands where a folder is needed"
    if "AWS" in str(error) and (told := told_by_server(str(error))):
        return told
    return error.strerror or str(error)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


STRUCTURE = {"lattice": "Angstrom", "frac": "lattice vectors", "occupancy": "1", "n_atoms": "1", "Z": "1"}
"""Units of the columns of a structure; "1" is a pure number."""

NONE = "1"


def prediction_units(unit: str, *, scale: str) -> dict[str, str]:
    """Column -> unit for labels, predictions and rankings.

    Args:
        unit: of the target.
        scale: unit of the scale that the model works on, e.g. "log10(GPa)" (see `transforms.Transform.applied_to`).
    """
    return {
        **dict.fromkeys(("value", "predicted", "std", "lower", "upper", "beyond"), unit),
        **dict.fromkeys(("mean", "std_scale", "score"), scale),
        "distance": "standard deviations of the training features",
        "e_above_hull": "eV/atom",
        "n_atoms": NONE,
    }


def with_units(table: pa.Table, units: Mapping[str, str]) -> pa.Table:
    """The table with the units of those of its columns that have one."""
    metadata = {f"unit:{name}": units[name] for name in table.column_names if name in units}
    kept = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    return table.replace_schema_metadata({**kept, **metadata})


def units_of(table: pa.Table | pa.Schema) -> dict[str, str]:
    """Column -> unit, as far as the table says."""
    schema = table.schema if isinstance(table, pa.Table) else table
    found = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    return {key.removeprefix("unit:"): value for key, value in found.items() if key.startswith("unit:")}


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(frame: pd.DataFrame, header: bool = True) -> str:
    """A table as CSV, numbers with six digits, in which no text is a formula to the spreadsheet that opens it.

    Names come from anybody. One that begins like a formula gets an apostrophe, which makes it text; numbers stay.
    """
    texts = frame.select_dtypes(exclude=["number", "bool"])
    safe = frame.assign(**{name: texts[name].map(_as_text) for name in texts})
    return safe.rename(columns=_as_text).to_csv(index=False, float_format="%.6g", header=header)


def _as_text(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    return value if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value) else f"'{value}"


FOLDER, ENDING = "checksums", ".sha256"

_LINE = re.compile(rb"([0-9a-f]{64})  (.+)\n")

_PIECE = 1 << 20

_LONGEST = 4096
"""Bytes of a checksum file beyond which it is none."""


def seal(store: Store, *names: str) -> None:
    """Write the checksums of files that are there.

    Raises:
        StorageError: one of them is not, or the checksum can't be written.
    """
    for name in names:
        store.write(_place(name), f"{digest_of(store, name)}  {name}\n".encode())


def unseal(store: Store, *names: str) -> None:
    """Take the checksums away: the files will be written anew."""
    for name in names:
        store.remove(_place(name))


def fault(store: Store, name: str) -> str:
    """What is wrong with a result; "" where it is what was written."""
    if not store.exists(name):
        return "is gone" if store.exists(_place(name)) else "is not there"
    try:
        expected = _expected(store, name)
    except StorageError:
        return "has no checksum: the run that wrote it was stopped, or it was put there by somebody else"
    if expected is None:
        return f"can't be checked: {_place(name)} is damaged"
    try:
        found = digest_of(store, name)
    except StorageError as error:
        return str(error)
    return "" if found == expected else "is damaged or was changed: its sha256 is not the one it was written with"


def sound(store: Store, name: str) -> bool:
    """Whether a result is there and what was written."""
    return not fault(store, name)


def sha256_of(path: Path) -> str:
    """Digest of a file on the disk, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(store: Store, name: str) -> str:
    """sha256 of a file, read in pieces.

    Raises:
        StorageError: it can't be read.
    """
    digest = hashlib.sha256()
    try:
        with store.open(name) as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise StorageError(f"{store.url(name)} can't be read: {error.strerror or error}") from error
    return digest.hexdigest()


def sealed(store: Store) -> list[str]:
    """Names of all results that have a checksum, sorted."""
    prefix = len(FOLDER) + 1
    return [name[prefix : -len(ENDING)] for name in store.all_names(FOLDER) if name.endswith(ENDING)]


def _place(name: str) -> str:
    return f"{FOLDER}/{name}{ENDING}"


def _expected(store: Store, name: str) -> str | None:
    """The digest that stands in the checksum file; None where that is damaged."""
    if store.size(_place(name)) > _LONGEST:
        return None
    match = _LINE.fullmatch(store.read(_place(name)))
    return match[1].decode() if match and match[2] == name.encode() else None
