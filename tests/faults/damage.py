"""Files of a finished campaign cut, changed, emptied, deleted or exchanged: found, named, and made again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from atomsets_core.campaigns.verification import repair, verify
from atomsets_core.storage.store import Store
from tests.faults.mini import campaign, differences, write_inputs
from tests.faults.rig import Rig

FILES = {
    "shard": "features/*/*.parquet",
    "manifest entry": "features/*/*.json",
    "model.json": "models/*/model.json",
    "model.safetensors": "models/*/model.safetensors",
    "out-of-fold predictions": "models/*/out_of_fold.parquet",
    "simulated discovery": "discovery/*.json",
    "predictions": "predictions/*/*.parquet",
    "candidates": "structures/candidates.parquet",
    "training structures": "structures/training.parquet",
    "labels": "structures/labelled.parquet",
    "provenance": "structures/candidates.json",
    "ranking.parquet": "ranking.parquet",
    "ranking.csv": "ranking.csv",
    "failures.parquet": "failures.parquet",
    "summary.json": "summary.json",
    "report.html": "report.html",
    "campaign.json": "campaign.json",
    "checksum": "checksums/predictions/*/*.sha256",
}
"""What it is called here -> where it lies in the folder of a campaign."""


def truncate(path: Path, _other: Path, rng: random.Random) -> None:
    """Cut the end off, one byte at least; of a manifest entry its last line."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(1, len(content))])


def cut_last_line(path: Path, _other: Path, _rng: random.Random) -> None:
    """Cut the last line off, as of a file that was being appended to; of one without lines the last byte."""
    content = path.read_bytes()
    path.write_bytes(content[: content.rstrip(b"\n").rfind(b"\n") + 1] or content[:-1])


def flip(path: Path, _other: Path, rng: random.Random) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def empty(path: Path, _other: Path, _rng: random.Random) -> None:
    """Leave no byte."""
    path.write_bytes(b"")


def delete(path: Path, _other: Path, _rng: random.Random) -> None:
    """Take it away."""
    path.unlink()


def exchange(path: Path, other: Path, _rng: random.Random) -> None:
    """Put another campaign's in its place."""
    shutil.copyfile(other, path)


KINDS: dict[str, Callable[[Path, Path, random.Random], None]] = {
    "truncated": truncate,
    "last line cut": cut_last_line,
    "bit flipped": flip,
    "emptied": empty,
    "deleted": delete,
    "another campaign's": exchange,
}


@dataclass
class Damage:
    """A way to damage files, what `verify` says to each, and what a plain run makes of it.

    Attributes:
        kind: one of `KINDS`.
        files: of `FILES` that were damaged.
        wrong: what was not as it should be; nothing where all was well.
    """

    kind: str
    files: tuple[str, ...]
    wrong: list[str] = field(default_factory=list)


class Damages:
    """Copies of a finished campaign to be damaged.

    Args:
        rig: its processes.
        place: folder of the copies.
        whole: a finished run of the mini campaign; made here where none is given.
    """

    def __init__(self, rig: Rig, place: Path, whole: Path | None = None) -> None:
        self.rig, self.place = rig, place
        write_inputs(place / "inputs")
        self.campaign = campaign((whole.parent if whole else place) / "inputs")
        self.whole = whole or place / "whole"
        if whole is None:
            rig.finish(self.campaign, self.whole)
        self.other = place / "other"
        write_inputs(place / "others", skip=1)
        other = campaign(place / "others", model={"seed": 1}, objective={"shortlist": 4})
        rig.finish(other, self.other)

    def named(self, kind: str, file: str, seed: int) -> list[str]:
        """Whether `verify` names a file that is damaged so; what is wrong, nothing where it does."""
        out = self.place / "named"
        self._copy(out)
        path = self._damage(out, kind, file, seed)
        found = {finding.file for finding in verify(Store(out)).findings}
        name = path.relative_to(out).as_posix()
        if file == "checksum":
            name = name.removeprefix("checksums/").removesuffix(".sha256")
        if file == "manifest entry":  # that it is damaged shows at the entry or at its shard
            name = name.removesuffix(".json")
        shutil.rmtree(out)
        return [] if any(name in text for text in found) else [f"{file} {kind}: verify does not name {name}"]

    def run(self, kind: str, files: tuple[str, ...], seed: int) -> Damage:
        """Damage files and run the campaign again."""
        out, done = self.place / f"{kind.replace(' ', '-')}-{seed}", Damage(kind, files)
        self._copy(out)
        for file in files:
            self._damage(out, kind, file, seed)
        if len(files) == 1:  # of a run that has nothing else to do: shards are looked at when they are used
            repair(Store(out), verify(Store(out)))
        try:
            self.rig.finish(self.campaign, out)
            done.wrong += differences(out, self.whole)
        except Exception as error:
            done.wrong.append(str(error))
        if not done.wrong:
            shutil.rmtree(out)
        return done

    def _copy(self, out: Path) -> None:
        if out.exists():
            shutil.rmtree(out)
        shutil.copytree(self.whole, out)

    def _damage(self, out: Path, kind: str, file: str, seed: int) -> Path:
        rng = random.Random(f"{kind} {file} {seed}")  # noqa: S311
        path = rng.choice(sorted(out.glob(FILES[file])))
        other = rng.choice(sorted(self.other.glob(FILES[file])))
        KINDS[kind](path, other, rng)
        return path
