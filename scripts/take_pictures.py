"""Take the pictures of docs/deploying.md: the Prefect UI with real runs, in a headless browser.

    pip install playwright pillow
    python scripts/take_pictures.py --chromium /usr/bin/chromium --out docs/images

A Prefect server, a worker and a Materials Project of this machine are started and stopped again. The weekly campaign
runs twice, the second time after a release with new entries; its parameters are those of deployments/prefect.yaml with
fewer repeats of the simulated discovery.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from atomsets_flows.server import read  # noqa: E402
from tests.deployments.servers import Prefect, postgres, until  # noqa: E402
from tests.materials_project_server.running import DATA, KEY, running  # noqa: E402

FLAGS = (
    "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
COLOURS = 64


def main() -> None:
    """Run the campaigns and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    parser.add_argument("--seeds", type=int, default=2, help="repeats of the simulated discovery")
    options = parser.parse_args()
    every = ids()
    folder = Path(tempfile.mkdtemp(prefix="pictures-"))
    data = ["--elasticity", str(DATA / "elastic_tensor_2015.parquet"), "--limit", str(len(every) - 100)]
    with running(DATA / "flla_2015.parquet", *data) as materials, postgres(folder) as url:
        prefect = Prefect(folder, url or f"sqlite+aiosqlite:///{folder}/prefect.db", password="")
        try:
            prefect.start_server()
            check(prefect.run("atomsets_flows.cli", "deploy"))
            check(prefect.run("atomsets_flows.cli", "automations", "install", "--quiet"))
            prefect.start_worker(
                MP_API_ENDPOINT=materials.url, MP_API_KEY=KEY, ATOMSETS_REPORTS_URL="http://127.0.0.1:4201"
            )
            runs = [run(prefect, options.seeds)]
            materials.release("2026.11.01", show=every[-100:])
            runs.append(run(prefect, options.seeds))
            take(prefect, runs, options)
        finally:
            prefect.close()


def check(done: Any) -> None:
    """End where a command failed."""
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def ids() -> list[str]:
    """Identifiers of the structures in the order of the file."""
    import pyarrow.parquet as pq

    return list(pq.read_table(DATA / "flla_2015.parquet", columns=["material_id"])["material_id"].to_pylist())


def run(prefect: Prefect, seeds: int) -> dict[str, Any]:
    """The weekly screening through the worker, to its end."""
    campaign = next(raw for raw in read() if raw["name"] == "weekly")["parameters"]["campaign"]
    campaign = {**campaign, "discovery": {"seeds": seeds}, "features": {"shard_size": 256}}
    with prefect.client() as client:
        deployment = client.read_deployment_by_name("screen/weekly")
        made = client.create_flow_run_from_deployment(deployment.id, parameters={"campaign": campaign})

        def ended() -> Any:
            found = client.read_flow_run(made.id)
            return found if found.state and found.state.is_final() else None

        found = until(ended, 1800, "the campaign")
        if not found.state.is_completed():
            sys.exit(f"{found.state}\n{(prefect.folder / 'worker.log').read_text()[-3000:]}")
        body = {"artifacts": {"flow_run_id": {"any_": [str(made.id)]}}, "limit": 200}
        artifacts = client.request("POST", "/artifacts/filter", json=body).json()
    print(f"{found.name}: {found.state.name}, {found.total_run_time.total_seconds():.0f} s", file=sys.stderr)
    return {
        "id": str(made.id),
        "deployment": str(deployment.id),
        "artifacts": {item["key"]: item["id"] for item in artifacts},
    }


def take(prefect: Prefect, runs: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """All pictures."""
    from playwright.sync_api import sync_playwright

    first, last = runs
    name = "incompressible-mp"
    pages = {
        "prefect-run": (f"/runs/flow-run/{first['id']}", 1000, "Task Runs"),
        "prefect-logs": (f"/runs/flow-run/{first['id']}", 1500, "Logs"),
        "prefect-deployment": (f"/deployments/deployment/{last['deployment']}", 820, None),
        "prefect-shortlist": (f"/artifacts/artifact/{first['artifacts'][f'{name}-shortlist']}", 820, None),
        "prefect-summary": (f"/artifacts/artifact/{first['artifacts'][f'{name}-summary']}", 1500, None),
        "prefect-automations": ("/automations", 620, None),
    }
    base = prefect.url.removesuffix("/api") + "/v2"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=list(FLAGS))
        for file, (path, height, tab) in pages.items():
            page = browser.new_page(viewport={"width": 1280, "height": height})
            page.goto(base + path)
            page.wait_for_load_state("load")
            if tab:
                page.get_by_role("tab", name=tab).click()
            page.wait_for_timeout(5000)  # the graph is drawn when it has settled
            save(page.screenshot(), options.out / f"{file}.png")
            page.close()
        browser.close()


def save(png: bytes, path: Path) -> None:
    """With a palette, a third of the size."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    print(json.dumps({"picture": os.fspath(path), "bytes": path.stat().st_size}), file=sys.stderr)


if __name__ == "__main__":
    main()
