"""What is wrong around a campaign: a full disk, a read-only folder, a second run, a jumping clock, no memory."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from atomsets_core.campaigns.verification import verify
from atomsets_core.storage.store import Store
from tests.faults.mini import campaign, differences, write_inputs
from tests.faults.rig import PATIENCE, ROOT, Rig, until


class CannotMountError(Exception):
    """No file system can be mounted here: that needs root."""


@contextlib.contextmanager
def mounted(place: Path, size: str) -> Iterator[Path]:
    """A file system in memory, of a size like "300k".

    Raises:
        CannotMountError: this user may not.
    """
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        raise CannotMountError("a small file system can't be mounted here: it needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607


def remount(place: Path, option: str) -> None:
    """Change it: its size, or whether it can be written."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], check=True)  # noqa: S607


class Surroundings:
    """Runs of the mini campaign under bad conditions, each followed by a plain one.

    Args:
        rig: its processes.
        place: folder of the runs.
        whole: a finished run of the mini campaign, beside its inputs.
    """

    def __init__(self, rig: Rig, place: Path, whole: Path) -> None:
        self.rig, self.place, self.whole = rig, place, whole
        self.campaign = campaign(whole.parent / "inputs")
        self.bytes = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())

    def full_disk(self, seed: int) -> list[str]:
        """The disk is full at a random moment; space is made, and the run repeated."""
        # On a logarithmic scale: nearly all bytes are the report's, which comes last.
        share = 0.01 ** random.Random(f"disk {seed}").uniform(0.01, 1.0)  # noqa: S311
        with mounted(self.place / f"disk-{seed}", f"{int(share * self.bytes / 1024)}k") as disk:
            out = disk / "campaign"
            wrong = self._fails_saying(out, "no space left on the device")
            remount(disk, "size=100M")
            return wrong + self._plain(out)

    def read_only(self, seed: int) -> list[str]:
        """The folder of a campaign, empty or finished, can't be written; it can be verified all the same."""
        with mounted(self.place / f"read-only-{seed}", "100M") as disk:
            out = disk / "campaign"
            out.mkdir()
            if seed % 2:
                shutil.copytree(self.whole, out, dirs_exist_ok=True)
            remount(disk, "ro")
            wrong = self._fails_saying(out, "Read-only file system")
            if seed % 2:
                wrong += [finding.fault for finding in verify(Store(out)).findings]
            remount(disk, "rw")
            return wrong + self._plain(out)

    def at_once(self, seed: int) -> list[str]:
        """Two runs of one campaign: one refuses and says why, the other one is not disturbed.

        With an even seed the first is halted at a random moment until the second has ended; with an odd one both start
        at the same moment.
        """
        out = self.place / f"at-once-{seed}"
        self.rig.ensure()
        first = self.rig.flow(self.campaign, out)
        if seed % 2 == 0:
            until(lambda: len(list(out.glob("*"))) > 1 or not first.is_alive(), "the first run")  # more than .lock
            time.sleep(random.Random(f"twins {seed}").uniform(0, 0.3))  # noqa: S311
            os.kill(first.pid or 0, signal.SIGSTOP)
        second = self.rig.flow(self.campaign, out)
        second.join(PATIENCE)
        if seed % 2 == 0:
            os.kill(first.pid or 0, signal.SIGCONT)
        first.join(PATIENCE)
        wrong = []
        if sorted([first.exitcode or 0, second.exitcode or 0]) != [0, 1]:
            wrong.append(f"exit codes {first.exitcode} and {second.exitcode}, one should have refused")
        if "another run is at work" not in self.rig.said("flow"):
            wrong.append("the run that refused did not say why")
        return wrong + differences(out, self.whole)

    def clock(self, seed: int) -> list[str]:
        """Files from the future and the past, and a clock that jumps while the campaign runs."""
        out = self.place / f"clock-{seed}"
        rng = random.Random(f"clock {seed}")  # noqa: S311
        self.rig.ensure()
        killed = self.rig.flow(self.campaign, out)
        killed.join(rng.uniform(0.5, 3.0))
        killed.kill()
        killed.join()
        for path in (path for path in out.rglob("*") if path.is_file()):
            moment = rng.choice([0.0, time.time() + 1e8])
            os.utime(path, (moment, moment))
        self.rig.ensure()
        jumping = self.rig.flow(self.campaign, out, jumps=seed + 1)
        jumping.join(PATIENCE)
        wrong = [] if jumping.exitcode == 0 else [f"ended with {jumping.exitcode}: {self.rig.said('flow')}"]
        return wrong + (differences(out, self.whole) if not wrong else [])

    def _fails_saying(self, out: Path, reason: str) -> list[str]:
        self.rig.ensure()
        process = self.rig.flow(self.campaign, out)
        process.join(PATIENCE)
        if process.exitcode != 1:
            return [f"the run ended with {process.exitcode}, not with an error"]
        said = self.rig.said("flow")
        return [] if reason in said else [f"the error does not say {reason!r}: {said[-300:]}"]

    def _plain(self, out: Path) -> list[str]:
        try:
            self.rig.finish(self.campaign, out)
        except RuntimeError as error:
            return [str(error)]
        return differences(out, self.whole)


PARENT = '''
import numpy as np
from atomsets_core.parents.base import featurize_batches

class Greedy:
    """Fills the memory of its process at thorium."""

    name, digest = "greedy", "0" * 16
    site_levels, structure_levels, default_levels = {"z": 2}, {}, ("z",)

    def featurize(self, structures, levels=None):
        return featurize_batches(self, structures, levels, covered=np.arange(119) > 0, compute=self.compute)

    def compute(self, structures, wanted, refused):
        held = []
        while 90 in structures.numbers:
            held.append(np.ones(4_000_000))
        z = structures.numbers.astype(np.float32)
        yield np.arange(len(structures)), {"z": np.stack([z, np.sqrt(z)], axis=1)}

def load(device):
    return Greedy()
'''


def out_of_memory(place: Path, limit: str = "1GB") -> list[str]:
    """A structure that takes all memory costs itself: Dask ends its worker, the ledger has it, all else goes on.

    The parent is a package of its own whose thorium never has enough; the campaign is started as people start it.
    """
    info = place / "package" / "greedy-1.dist-info"
    info.mkdir(parents=True)
    (place / "package" / "greedy.py").write_text(PARENT)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greedy\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[atomsets_core.parents]\ngreedy = greedy:load\n")
    write_inputs(place / "inputs")
    candidates = pd.read_parquet(place / "inputs/candidates.parquet")
    hungry = {"material_id": "hungry", "lattice": [5.0, 0, 0, 0, 5.0, 0, 0, 0, 5.0], "Z": [90], "frac": [0.0, 0, 0]}
    pd.concat([candidates, pd.DataFrame([hungry])]).to_parquet(place / "inputs/candidates.parquet")
    from tests.faults.kills import as_toml

    raw = campaign(
        place / "inputs",
        features={"parent": "greedy", "shard_size": 60},
        discovery={"seeds": 0},
        cluster={"workers": 1, "memory_per_worker": limit},
    )
    (place / "mini.toml").write_text(as_toml(raw))
    path = os.pathsep.join([str(place / "package"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "PREFECT_HOME": str(place / "prefect")}
    command = [
        sys.executable,
        "-m",
        "atomsets_flows.cli",
        "screen",
        str(place / "mini.toml"),
        "--out",
        str(place / "out"),
    ]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    if done.returncode:
        return [f"the campaign failed: {done.stderr[-500:]}"]
    ledger = pd.read_parquet(place / "out/failures.parquet").set_index("material_id")["reason"]
    ranking = pd.read_parquet(place / "out/ranking.parquet")
    wrong = []
    if "its worker died on it" not in ledger.get("hungry", ""):
        wrong.append(f"the ledger says of it {ledger.get('hungry')!r}")
    if (
        len(ranking) != len(candidates) - 1
    ):  # one candidate has a NaN coordinate; what was too heavy for megnet isn't here
        wrong.append(f"{len(ranking)} candidates are ranked, {len(candidates) - 1} can be")
    # Where its parent is known.
    check = subprocess.run(
        [sys.executable, "-m", "atomsets_flows.cli", "verify", str(place / "out")],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    return wrong + ([f"verify: {check.stdout}{check.stderr}"[-500:]] if check.returncode else [])
