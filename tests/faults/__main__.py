"""`make faults`: every fault of the suite at length, as a table, kept in benchmarks/results/faults.json.

python -m tests.faults                       # all of it, some forty minutes
python -m tests.faults --only flow,worker    # these parts; the others stay in the file as they are
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, describe, keep
from tests.faults.damage import FILES, KINDS, Damages
from tests.faults.kills import CommandKills, Kill, Kills
from tests.faults.mini import campaign, write_inputs
from tests.faults.rig import Rig
from tests.faults.surroundings import CannotMountError, Surroundings, out_of_memory

KILLED = {"flow": 20, "worker": 12, "scheduler": 8, "server": 4, "server again": 8}
"""Process of the rig -> how often it is killed."""

COMMANDS = {"command": 6, "its worker": 4, "its server": 3}
"""Process of `atomsets screen` -> how often."""

AROUND = {"full_disk": 8, "read_only": 4, "at_once": 6, "clock": 4}

NAMES = {
    "flow": "SIGKILL of the flow process",
    "worker": "SIGKILL of a Dask worker",
    "scheduler": "SIGKILL of the Dask scheduler",
    "server": "SIGKILL of the Prefect server, which stays away",
    "server again": "SIGKILL of the Prefect server, started again at once",
    "command": "SIGKILL of `atomsets screen`",
    "its worker": "SIGKILL of a worker of `atomsets screen`",
    "its server": "SIGKILL of the temporary Prefect server of `atomsets screen`",
    "full_disk": "disk full at a random moment",
    "read_only": "folder read-only",
    "at_once": "two runs of one campaign at once",
    "clock": "files from 1970 and 2029, a clock that jumps on by days and back by seconds in the run",
    "memory": "a structure that takes all memory of its worker",
    "verified": "one file damaged, `verify` asked",
    **{f"all files {kind}": f"every kind of file {kind} at once" for kind in KINDS},
    "one file": "one file damaged at random",
}

ENDED = {
    "full_disk": "says that no space is left",
    "read_only": "says so before anything is done",
    "at_once": "one goes on, the other refuses and says why",
    "clock": "finished",
    "memory": "finished, that structure in the ledger",
}

OUTCOMES = {
    "verified": "the file is named",
    "memory": "all other candidates ranked, `verify` finds nothing wrong",
}

ONE_FILE = 12

Case = dict[str, Any]


def main() -> None:
    """Run, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"parts, with commas between them: {', '.join(parts())}")
    parser.add_argument("--out", type=Path, default=RESULTS / "faults.json")
    parser.add_argument("--add", action="store_true", help="go on where a run that was stopped is")
    chosen = parser.parse_args()
    kept = json.loads(chosen.out.read_text())["cases"] if (chosen.only or chosen.add) and chosen.out.exists() else {}
    wanted = chosen.only.split(",") if chosen.only else list(parts())
    for name in wanted:
        kept[name] = kept.get(name, []) if chosen.add else []
        with tempfile.TemporaryDirectory(prefix="faults-") as place:
            for case in parts()[name](Path(place), list(kept[name])):
                kept[name].append(case)
                print(f"{name} {case.get('seed', '')}: {case['wrong'] or 'well'}", flush=True)
                about = describe("python -m tests.faults", ("atomsets-screening", "prefect", "distributed", "torch"))
                keep(chosen.out, {**about, "cases": {part: kept[part] for part in parts() if part in kept}})
    for row in table(kept):
        print("| " + " | ".join(row) + " |")
    if any(case["wrong"] for cases in kept.values() for case in cases):
        raise SystemExit(1)


def parts() -> dict[str, Callable[[Path, list[Case]], Iterator[Case]]]:
    """Name of a part -> its cases, tried one after the other in a folder, without those that are given."""
    found: dict[str, Callable[[Path, list[Case]], Iterator[Case]]] = {}
    for name in KILLED:
        found[name] = functools.partial(_kills, victim=name)
    found |= {"commands": _commands, "verified": _verified, "damage": _damage}
    for name in AROUND:
        found[name] = functools.partial(_around, condition=name)
    return {**found, "memory": _memory}


def _kills(place: Path, done: list[Case], victim: str) -> Iterator[Case]:
    if len(done) >= KILLED[victim]:
        return
    with Rig(place / "rig") as rig:
        kills = Kills(rig, place)
        yield from _counted(lambda seed: kills.kill(victim, seed), KILLED[victim], done)


def _commands(place: Path, done: list[Case]) -> Iterator[Case]:
    if len(done) >= sum(COMMANDS.values()):
        return
    kills = CommandKills(place)
    for victim, times in COMMANDS.items():
        own = [case for case in done if case["victim"] == victim]
        yield from _counted(functools.partial(kills.kill, victim), times, own)


def _counted(kill: Callable[[int], Kill | None], times: int, done: list[Case]) -> Iterator[Case]:
    """So many kills; a run that was over before, or had nobody to kill yet, doesn't count."""
    n = len(done)
    for seed in range(max((case["seed"] for case in done), default=-1) + 1, 4 * times):
        if n < times and (killed := kill(seed)):
            n += 1
            yield killed.as_json()


def _verified(place: Path, done: list[Case]) -> Iterator[Case]:
    todo = list(itertools.product(KINDS, FILES, range(2)))[len(done) :]
    if not todo:
        return
    with Rig(place / "rig") as rig:
        damages = Damages(rig, place)
        for kind, file, seed in todo:
            wrong = damages.named(kind, file, seed)
            yield {"victim": "verified", "file": file, "kind": kind, "seed": seed, "wrong": wrong}


def _damage(place: Path, done: list[Case]) -> Iterator[Case]:
    todo = [(f"all files {kind}", kind, tuple(FILES), seed) for kind in KINDS for seed in range(2)]
    for seed in range(ONE_FILE):
        rng = random.Random(f"one file {seed}")  # noqa: S311
        todo.append(("one file", rng.choice(sorted(KINDS)), (rng.choice(sorted(FILES)),), 100 + seed))
    if not todo[len(done) :]:
        return
    with Rig(place / "rig") as rig:
        damages = Damages(rig, place)
        for victim, kind, files, seed in todo[len(done) :]:
            case = {"victim": victim, "seed": seed, "wrong": damages.run(kind, files, seed).wrong}
            yield {**case, "kind": kind, "file": files[0]} if victim == "one file" else case


def _around(place: Path, done: list[Case], condition: str) -> Iterator[Case]:
    if len(done) >= AROUND[condition]:
        return
    write_inputs(place / "inputs")
    with Rig(place / "rig") as rig:
        rig.finish(campaign(place / "inputs"), place / "whole")
        surroundings = Surroundings(rig, place / "runs", place / "whole")
        for seed in range(len(done), AROUND[condition]):
            with contextlib.suppress(CannotMountError):
                started = time.monotonic()
                wrong = getattr(surroundings, condition)(seed)
                yield {"victim": condition, "seed": seed, "wrong": wrong,
                       "seconds": round(time.monotonic() - started, 2)}  # fmt: skip


def _memory(place: Path, done: list[Case]) -> Iterator[Case]:
    if not done:
        yield {"victim": "memory", "seed": 0, "wrong": out_of_memory(place / "memory")}


def table(kept: dict[str, list[Case]]) -> list[tuple[str, ...]]:
    """Fault, times tried, how the disturbed run ended, what came out."""
    rows: list[tuple[str, ...]] = [
        ("fault", "times", "the disturbed run", "after a plain run"),
        ("---", "---", "---", "---"),
    ]
    cases = [case for part in kept.values() for case in part]
    for victim in dict.fromkeys(case["victim"] for case in cases):
        own = [case for case in cases if case["victim"] == victim]
        wrong = sum(bool(case["wrong"]) for case in own)
        runs = Counter(case["run"] for case in own if case.get("run"))
        ended = ", ".join(f"{n} {run}" for run, n in runs.most_common()) or ENDED.get(victim, "")
        out = OUTCOMES.get(victim, "the ranking of an undisturbed run, nothing lost, nothing twice")
        rows.append((NAMES[victim], str(len(own)), ended, f"{wrong} wrong" if wrong else f"each: {out}"))
    return rows


if __name__ == "__main__":
    main()
