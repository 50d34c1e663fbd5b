"""How a pull of a whole database goes: complete, killed twice and resumed, and a month later.

python benchmarks/pull.py --data STRUCTURES.parquet --out benchmarks/results/pull.json

The server (tests/materials_project_server) and `atomsets pull mp` run on this machine, so that the rate is that of
parsing, checking and storing; over a network the server of the real database decides. --data is any Parquet with an
identifier, lattice, Z and frac. Every claim is checked here, against the file and the server's log; one that fails ends
the run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.materials_project_server.running import KEY, Running, running  # noqa: E402

NEW, CHANGED, DEPRECATED = 500, 200, 50


def main() -> None:
    """Measure and check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet with an identifier, lattice, Z, frac")
    parser.add_argument("--out", type=Path, help="where the result goes")
    parser.add_argument("--page-size", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = pq.read_schema(options.data).names
    id_column = next(name for name in ("material_id", "mp") if name in names)
    ids: list[str] = pq.read_table(options.data, columns=[id_column])[id_column].to_pylist()
    random.seed(options.seed)
    chosen = random.sample(ids, NEW + CHANGED + DEPRECATED)
    held, changed = chosen[:NEW], chosen[NEW : NEW + CHANGED]
    deprecated = chosen[NEW + CHANGED :]
    first = sorted(set(ids) - set(held))
    with running(options.data) as server, tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        whole = at_once(server, out / "all", ids, options)
        check_content(out / "all" / "structures.parquet", options.data, id_column)
        server.release("2026.10.01", hide=held)
        killed = killed_twice(server, out / "killed", first, options)
        later = a_month_later(server, out / "killed", held, changed, deprecated, first, options)
        memory = Path(f"/proc/{server.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
    result = {
        "command": f"python benchmarks/pull.py --data {options.data.name}",
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {name: version(name) for name in ("mp-api", "emmet-core", "pyarrow", "pymatgen", "numpy")},
        "seed": options.seed,
        "page_size": options.page_size,
        "at_once": whole,
        "killed_twice": killed,
        "a_month_later": later,
        "server_peak_memory_mb": int(memory) // 1024,
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def command(out: Path, page_size: int) -> list[str]:
    """The pull."""
    return [
        sys.executable, "-m", "atomsets_flows.cli", "pull", "mp", "--out", str(out), "--json",
        "--filter", f"page_size={page_size}", "--filter", "requests_per_second=100",
    ]  # fmt: skip


def pull(server: Running, out: Path, page_size: int) -> dict[str, Any]:
    """Run the pull to its end; the JSON line it prints, with the seconds of the whole process."""
    started = time.perf_counter()
    done = subprocess.run(
        command(out, page_size), cwd=ROOT, env=environment(server), stdout=subprocess.PIPE, check=True, text=True
    )
    return {**json.loads(done.stdout), "process_seconds": round(time.perf_counter() - started, 1)}


def environment(server: Running) -> dict[str, str]:
    """Where the pull finds the server and its key."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "MP_API_ENDPOINT": server.url, "MP_API_KEY": KEY, "PYTHONPATH": path}


def told(result: dict[str, Any]) -> dict[str, Any]:
    """What of a result is kept."""
    names = ("structures", "refused", "seconds", "structures_per_second", "peak_memory_mb", "requests", "fetched")
    return {name: result[name] for name in names}


def stored(out: Path) -> list[str]:
    """Identifiers of the file, each as often as it is there."""
    found: list[str] = pq.read_table(out / "structures.parquet", columns=["material_id"])["material_id"].to_pylist()
    return found


def at_once(server: Running, out: Path, ids: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Everything without a stop, and again with nothing to do."""
    result = pull(server, out, options.page_size)
    assert sorted(stored(out)) == sorted(ids), "identifiers differ"
    sent = server.structures()
    assert len(sent) == sum(sent.values()) == len(ids), "entries were sent twice"
    server.forget()
    again = pull(server, out, options.page_size)
    assert server.log()["requests"] == [], "an unchanged database was asked for more than its version"
    print(f"at once: {result['structures_per_second']:.0f} structures/s", file=sys.stderr)
    return {**told(result), "again_seconds": again["process_seconds"]}


def killed_twice(server: Running, out: Path, ids: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """SIGKILL after a third and after two thirds of the pages."""
    server.forget()
    pages = -(-len(ids) // options.page_size)
    for share in (1 / 3, 2 / 3):
        process = subprocess.Popen(
            command(out, options.page_size), cwd=ROOT, env=environment(server), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while len(list(out.glob("pages/*/page-*.json"))) < share * pages:
            assert process.poll() is None, "the pull ended before it could be killed"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "structures.parquet").exists(), "half a file"
    result = pull(server, out, options.page_size)
    found, sent = stored(out), server.structures()
    again = sum(sent.values()) - len(sent)
    assert sorted(found) == ids, "identifiers differ"
    assert again <= 2 * options.page_size, "more than one page was fetched again after a kill"
    print(f"killed twice: {again} structures sent again", file=sys.stderr)
    return {
        **told(result),
        "pages": pages,
        "missing": len(set(ids) - set(found)),
        "twice_in_file": len(found) - len(set(found)),
        "structures_sent_again": again,
        "pages_sent_again": again / options.page_size,
    }


def a_month_later(
    server: Running, out: Path, new: list[str], changed: list[str], deprecated: list[str], before: list[str],
    options: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """Another version of the database."""
    server.release("2026.11.01", show=new, change=changed, deprecate=deprecated)
    server.forget()
    result = pull(server, out, options.page_size)
    sent, log = server.structures(), server.log()["requests"]
    assert sent == dict.fromkeys([*new, *changed], 1), "others than the new and the changed were sent"
    assert sorted(stored(out)) == sorted((set(before) | set(new)) - set(deprecated)), "identifiers differ"
    assert (result["new"], result["changed"], result["deprecated"]) == (NEW, CHANGED, DEPRECATED)
    assert result["refused"] == DEPRECATED
    print(f"a month later: {len(sent)} structures sent", file=sys.stderr)
    return {
        **told(result),
        "new": NEW,
        "changed": CHANGED,
        "deprecated": DEPRECATED,
        "structures_sent": len(sent),
        "requests_of_the_listing": sum("structure" not in r["asked"]["_fields"].split(",") for r in log),
        "requests_with_structures": sum("structure" in r["asked"]["_fields"].split(",") for r in log),
    }


def check_content(pulled: Path, data: Path, id_column: str) -> None:
    """Sites are those of the data, entry by entry."""
    got = pq.read_table(pulled, columns=["material_id", "Z", "frac"])
    had = pq.read_table(data, columns=[id_column, "Z", "frac"])
    had = had.take(pc.index_in(got["material_id"].cast(pa.string()), had[id_column].cast(pa.string())))
    for name, kind in (("Z", pa.uint8()), ("frac", pa.float64())):
        lists = [table[name].cast(pa.large_list(kind)).combine_chunks() for table in (got, had)]
        lists = [pa.concat_arrays(x.chunks) if isinstance(x, pa.ChunkedArray) else x for x in lists]
        ours, theirs = (np.asarray(x.flatten()) for x in lists)
        lengths = [np.asarray(pc.list_value_length(x)) for x in lists]
        assert np.array_equal(*lengths), f"{name}: other numbers of sites"
        assert np.array_equal(ours, theirs), f"{name} differs"


def processor() -> str:
    """What the machine calls its processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
