"""SIGKILL at random moments, each followed by a plain run that must end with the ranking of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.faults.mini import campaign, differences, write_inputs
from tests.faults.rig import PATIENCE, ROOT, Rig

LATEST = 0.95
"""Share of an undisturbed run after which nobody is killed."""

LEAVING = 60.0
"""Seconds in which what a killed command had started must have gone."""


@dataclass
class Kill:
    """One kill and what came of it.

    Attributes:
        victim: who was killed.
        seed: of the moment.
        after: seconds from the start of the run.
        reached: what there was in the folder then.
        run: how the disturbed run itself ended.
        wrong: what was not as it should be after the plain run; nothing where all was well.
        seconds: of the plain run.
    """

    victim: str
    seed: int
    after: float
    reached: str
    run: str = ""
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Numbers rounded."""
        return {**asdict(self), "after": round(self.after, 2), "seconds": round(self.seconds, 2)}


class Kills:
    """Undisturbed and disturbed runs of the mini campaign on a rig.

    Args:
        rig: its processes.
        place: folder of the runs.
    """

    def __init__(self, rig: Rig, place: Path) -> None:
        self.rig, self.place = rig, place
        write_inputs(place / "inputs")
        self.campaign = campaign(place / "inputs")
        self.undisturbed = place / "undisturbed"
        rig.finish(self.campaign, place / "warm")
        started = time.monotonic()
        rig.finish(self.campaign, self.undisturbed)
        self.duration = time.monotonic() - started

    def kill(self, victim: str, seed: int) -> Kill | None:
        """Kill flow, worker, scheduler or server during a run; None where the run was over before.

        "server again" is started again at once, as a worker always is.
        """
        self.rig.ensure()
        who, _, again = victim.partition(" ")
        out = self.place / f"{who}-{again}-{seed}"
        after = random.Random(f"{victim} {seed}").uniform(0, LATEST * self.duration)  # noqa: S311
        process = self.rig.flow(self.campaign, out)
        process.join(after)
        if not process.is_alive():
            return None
        killed = Kill(victim, seed, after, reached(out))
        whom = {"flow": process, "worker": self.rig.workers[0], "scheduler": self.rig.scheduler,
                "server": self.rig.server}[who]  # fmt: skip
        assert whom is not None
        whom.kill()
        whom.join()
        if again or who == "worker":
            self.rig.ensure()  # what SLURM, Kubernetes or Dask's nanny do
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
            killed.run = f"did not end within {PATIENCE:.0f} s"
        else:
            killed.run = {0: "finished", -signal.SIGKILL: "killed"}.get(process.exitcode or 0, "ended with an error")
        if who == "flow" and killed.run == "finished":
            return None
        self._again(killed, out)
        return killed

    def _again(self, killed: Kill, out: Path) -> None:
        if killed.run == "finished":
            killed.wrong += [f"before the plain run: {text}" for text in differences(out, self.undisturbed)]
        started = time.monotonic()
        try:
            self.rig.finish(self.campaign, out)
            killed.wrong += differences(out, self.undisturbed)
        except Exception as error:
            killed.wrong.append(str(error))
        killed.seconds = time.monotonic() - started


class CommandKills:
    """The same with `atomsets screen` as people start it: processes and a temporary server of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        write_inputs(place / "inputs")
        self.file = place / "mini.toml"
        self.file.write_text(as_toml(campaign(place / "inputs")))
        self.undisturbed = place / "undisturbed"
        _command(self.file, place / "warm").wait(PATIENCE)
        started = time.monotonic()
        assert _command(self.file, self.undisturbed).wait(PATIENCE) == 0
        self.duration = time.monotonic() - started

    def kill(self, victim: str, seed: int) -> Kill | None:
        """Kill the command, its Dask worker or its temporary Prefect server; None where there was none to kill."""
        out = self.place / f"{victim}-{seed}"
        after = random.Random(f"{victim} {seed}").uniform(0, LATEST * self.duration)  # noqa: S311
        process = _command(self.file, out)
        try:
            process.wait(after)
            return None
        except subprocess.TimeoutExpired:
            pass
        children = psutil.Process(process.pid).children(recursive=True)
        whom = [process.pid] if victim == "command" else [c.pid for c in children if _is(c, victim)]
        if not whom:
            process.kill()
            process.wait()
            _leave(children)
            return None
        killed = Kill(victim, seed, after, reached(out))
        os.kill(whom[0], signal.SIGKILL)
        try:
            code = process.wait(PATIENCE)
            killed.run = {0: "finished", -signal.SIGKILL: "killed"}.get(code, "ended with an error")
        except subprocess.TimeoutExpired:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            killed.run = f"did not end within {PATIENCE:.0f} s"
        killed.wrong += [f"left behind: {name}" for name in _leave(children)]
        started = time.monotonic()
        if _command(self.file, out).wait(PATIENCE):
            killed.wrong.append(f"a plain run failed: {out.with_suffix('.log').read_text()[-500:]}")
        else:
            killed.wrong += differences(out, self.undisturbed)
        killed.seconds = time.monotonic() - started
        return killed


def reached(out: Path) -> str:
    """The last stage that has left something in a campaign's folder."""
    for stage, pattern in (
        ("report", "report.html"),
        ("rank", "ranking.parquet"),
        ("predict", "predictions/*/*.parquet"),
        ("train", "models/*/*.safetensors"),
        ("discovery", "discovery/*.json"),
        ("features", "features/*/*.parquet"),
        ("pull", "structures/*.parquet"),
    ):
        if next(iter(out.glob(pattern)), None):
            return stage
    return "start"


def _command(file: Path, out: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(file.parent / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    with out.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "atomsets_flows.cli", "screen", str(file), "--out", str(out)],
            stdout=log, stderr=log, env=environment, cwd=ROOT,
        )  # fmt: skip


def _is(process: psutil.Process, victim: str) -> bool:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return False
    if victim == "its server":
        return "uvicorn" in line
    return "spawn_main" in line  # the Dask workers


def _leave(children: list[psutil.Process]) -> list[str]:
    """Names of processes that stayed, which are ended here."""
    _, alive = psutil.wait_procs(children, timeout=LEAVING)
    names = []
    for process in alive:
        try:
            names.append(" ".join(process.cmdline())[:120])
            process.kill()
        except psutil.Error:
            continue
    return names


def as_toml(raw: dict[str, Any]) -> str:
    """A campaign as a file."""
    lines = [f'name = "{raw["name"]}"']
    for section, values in raw.items():
        if isinstance(values, dict):
            lines.append(f"[{section}]")
            lines += [f"{name} = {_value(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
