"""The rules of deployments/automations on a real server: they are installed once, fire, and the message arrives."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from atomsets_flows.server.automation_files import AutomationError, paths, read
from tests.deployments.servers import until
from tests.deployments.test_weekly import TINY

FILES = Path(__file__).resolve().parents[2] / "deployments" / "automations"


@pytest.fixture(scope="module")
def webhook():
    """Where messages go; what came."""
    came = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", came
    server.shutdown()


@pytest.fixture(scope="module")
def installed(prefect_with_deployments, webhook):
    """All three, and the block that their messages go through; what came, and what the command said."""
    url, came = webhook
    prefect = prefect_with_deployments
    with prefect.client() as client:
        kind = client.read_block_type_by_slug("custom-webhook")
        schema = client.request("POST", "/block_schemas/filter", json={
            "block_schemas": {"block_type_id": {"any_": [str(kind.id)]}}, "limit": 1,
        }).json()[0]  # fmt: skip
        data = {"name": "lab", "url": url, "json_data": {"subject": "{{subject}}", "body": "{{body}}"}}
        block = {"name": "lab", "block_type_id": str(kind.id), "block_schema_id": schema["id"], "data": data}
        client.request("POST", "/block_documents/", json=block).raise_for_status()
    done = prefect.run("atomsets_flows.cli", "automations", "install", "--notify", "custom-webhook/lab")
    assert done.returncode == 0, done.stderr
    return came, done.stderr


def on_the_server(prefect):
    with prefect.client() as client:
        return {found["name"]: found for found in client.request("POST", "/automations/filter", json={}).json()}


def message(came, word):
    found = until(lambda: [said for said in list(came) if word in said["subject"] + said["body"]], 120, word)
    assert len(found) == 1
    return found[0]


def test_they_are_installed_once(prefect_with_deployments, installed):
    names = {yaml.safe_load(path.read_text())["name"] for path in FILES.glob("*.yaml")}
    assert len(names) == 3
    first = on_the_server(prefect_with_deployments)
    assert names <= set(first)
    assert installed[1].count("installed") == 3
    again = prefect_with_deployments.run(
        "atomsets_flows.cli", "automations", "install", "--notify", "custom-webhook/lab"
    )
    assert again.stderr.count("brought up to date") == 3
    second = on_the_server(prefect_with_deployments)
    assert {name: first[name]["id"] for name in names} == {name: second[name]["id"] for name in names}
    silence = next(found for name, found in second.items() if "8 days" in name)
    assert silence["trigger"]["posture"] == "Proactive"
    assert silence["trigger"]["within"] == 8 * 24 * 3600


def test_a_failed_run_is_told(prefect_with_deployments, installed):
    """A run that the worker starts, of a campaign whose source is nowhere."""
    wrong = {**TINY, "name": "doomed", "training": {**TINY["training"], "source": "/nowhere.parquet", "query": None}}
    with prefect_with_deployments.client() as client:
        deployment = client.read_deployment_by_name("screen/embedded")
        run = client.create_flow_run_from_deployment(deployment.id, parameters={"campaign": wrong})
    said = message(installed[0], "doomed")
    assert "is failed" in said["subject"]
    assert "/nowhere.parquet" in said["body"]
    assert str(run.id) in said["body"]


EMIT = """
from atomsets_tasks.events import entered_top_ten
row = {"rank": 3, "material_id": "mp-21", "formula": "FeWN2", "predicted": 333.04, "lower": 301.2, "upper": 368.4}
print(entered_top_ten("incompressible-mp", [row], target="K", unit="GPa", report="http://127.0.0.1/report.html"))
from prefect.events.worker import EventsWorker
EventsWorker.instance().drain()
"""


def test_a_new_candidate_is_told(prefect_with_deployments, installed):
    environment = prefect_with_deployments.environment()
    done = subprocess.run([sys.executable, "-c", EMIT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = "FeWN2 (mp-21) is number 3: 333 GPa, 301.2 to 368.4 GPa"
    assert done.stdout.strip() == line
    said = message(installed[0], "FeWN2")
    assert said["subject"] == f"incompressible-mp: {line}"
    assert "http://127.0.0.1/report.html" in said["body"]


def test_silence_is_told(prefect_with_deployments, installed, tmp_path):
    """The same rule with ten seconds, the shortest that Prefect takes, in place of eight days."""
    rule = yaml.safe_load((FILES / "silence.yaml").read_text())
    (tmp_path / "short.yaml").write_text(yaml.safe_dump({**rule, "name": "short silence", "trigger": {
        **rule["trigger"], "within": 10,
        "match_related": {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.nobody"},
    }}))  # fmt: skip
    command = (
        "atomsets_flows.cli",
        "automations",
        "install",
        str(tmp_path / "short.yaml"),
        "--notify",
        "custom-webhook/lab",
    )
    done = prefect_with_deployments.run(*command)
    assert done.returncode == 0, done.stderr
    found = until(lambda: [said for said in list(installed[0]) if "8 days" in said["subject"]], 120, "the message")
    assert "prefect worker start" in found[0]["body"]
    with prefect_with_deployments.client() as client:
        there = on_the_server(prefect_with_deployments)["short silence"]["id"]
        client.request("DELETE", "/automations/{id}", path_params={"id": there}).raise_for_status()


def test_what_cant_be_installed_is_named(prefect_with_deployments, installed, tmp_path):
    missing = prefect_with_deployments.run(
        "atomsets_flows.cli", "automations", "install", "--notify", "slack-webhook/nobody"
    )
    assert missing.returncode == 2
    assert "no block slack-webhook/nobody" in missing.stderr
    neither = prefect_with_deployments.run("atomsets_flows.cli", "automations", "install")
    assert neither.returncode == 2
    assert "--notify" in neither.stderr
    with pytest.raises(AutomationError, match="no automation 'failures'; there are failure, silence, top-ten"):
        paths(["failures"])
    (tmp_path / "bad.yaml").write_text("name: x\nactions: []\n")
    with pytest.raises(AutomationError, match=r"bad\.yaml: no automation"):
        read(tmp_path / "bad.yaml", None)


def test_without_a_block_nothing_is_sent():
    for path in FILES.glob("*.yaml"):
        assert [action.type for action in read(path, None).actions] == ["do-nothing"]
