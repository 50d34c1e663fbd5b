"""The file of deployments as Prefect has it, and the commands: what they serve, and how they end when they can't."""

import base64
import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import httpx
import pytest
from typer.testing import CliRunner

from atomsets_core.storage.store import Store
from atomsets_flows.campaign.joint import JointCampaign
from atomsets_flows.campaign.sections import Campaign
from atomsets_flows.cli import app
from atomsets_flows.runs.discover import Asked
from atomsets_flows.server.deployment_files import DeploymentError, chosen, read
from atomsets_flows.server.home import go_home
from atomsets_flows.server.reports import report_url, serve_reports
from tests.deployments.servers import PASSWORD, ROOT, end, free_port, until
from tests.deployments.test_weekly import TINY, run_to_the_end


def test_parameters_are_campaigns():
    for raw in read():
        parameters = raw["parameters"]
        kind = JointCampaign if "properties" in parameters.get("campaign", {}) else Campaign
        model = kind.model_validate(parameters["campaign"]) if "campaign" in parameters else None
        assert model or Asked.model_validate(parameters["asked"])


def test_the_server_has_them_as_the_file_says(prefect_with_deployments):
    expected = {
        "screen/weekly": "0 6 * * 1",
        "pull/nightly": "30 2 * * *",
        "retrain/monthly": "0 4 1 * *",
        "screen/embedded": None,
        "screen together/hard-and-light": None,
        "discover/benchmark": None,
    }
    with prefect_with_deployments.client() as client:
        found = {name: client.read_deployment_by_name(name) for name in expected}
    for name, deployment in found.items():
        crons = [item.schedule.cron for item in deployment.schedules if item.active]
        assert crons == ([expected[name]] if expected[name] else []), name
        assert deployment.global_concurrency_limit.limit == 1, name
        assert deployment.concurrency_options.collision_strategy == "CANCEL_NEW", name
        assert deployment.work_pool_name == "atomsets"
        assert "atomsets" in deployment.tags
        assert deployment.description.startswith("**")
        assert deployment.enforce_parameter_schema
    form = found["screen/weekly"].parameter_openapi_schema["definitions"]["Objective"]["properties"]["kappa"]
    assert form["description"] == "Weight of the uncertainty in ucb."
    assert form["minimum"] == 0


def test_the_server_refuses_parameters_that_are_no_campaign(prefect_with_deployments):
    with prefect_with_deployments.client() as client:
        deployment = client.read_deployment_by_name("screen/weekly")
        with pytest.raises(httpx.HTTPStatusError) as refused:
            client.create_flow_run_from_deployment(deployment.id, parameters={"campaign": {"name": "x"}})
    assert refused.value.response.status_code == 409
    assert "training" in refused.value.response.text


def test_whoever_has_no_password_is_turned_away(prefect_with_deployments):
    done = prefect_with_deployments.run("atomsets_flows.cli", "deploy", PREFECT_API_AUTH_STRING="tests:wrong")
    assert done.returncode == 2
    assert "wants a password: set PREFECT_API_AUTH_STRING" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_without_a_server_deploy_says_so(tmp_path):
    nowhere = f"http://127.0.0.1:{free_port()}/api"
    environment = {"HOME": str(tmp_path), "PREFECT_API_URL": nowhere, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "atomsets_flows.cli", "deploy"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"no Prefect server answers at {nowhere}" in done.stderr.replace("\n", " ")


def test_what_isnt_there_is_named(tmp_path):
    with pytest.raises(DeploymentError, match="no deployment 'week'; there are weekly, nightly"):
        chosen(read(), ["week"])
    (tmp_path / "empty.yaml").write_text("name: x\n")
    done = CliRunner().invoke(app, ["serve", "--file", str(tmp_path / "empty.yaml")])
    assert done.exit_code == 2
    assert CliRunner().invoke(app, ["deploy", "--file", str(tmp_path / "none.yaml")]).exit_code == 2


def test_serve_on_a_laptop(prefect_with_deployments, tmp_path):
    """With no server it starts one, on loopback; schedules, reports and runs are there; Ctrl-C ends everything."""
    port = free_port()
    environment = prefect_with_deployments.environment(PREFECT_HOME=str(tmp_path / "prefect"))
    del environment["PREFECT_API_URL"], environment["PREFECT_API_AUTH_STRING"]
    command = [sys.executable, "-m", "atomsets_flows.cli", "serve", "weekly", "embedded", "--port", str(port)]
    log = (tmp_path / "log").open("w")
    serving = subprocess.Popen(
        [*command, "--home", str(tmp_path)], env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell takes it from background jobs
    )  # fmt: skip
    kept = tmp_path / "prefect/serve-password"
    body = b'{"deployments": {"name": {"any_": ["weekly", "embedded"]}}}'
    try:
        url = f"http://127.0.0.1:{port}/api"

        def served():
            assert serving.poll() is None, (tmp_path / "log").read_text()
            if not kept.is_file():
                return False
            token = base64.b64encode(kept.read_text().strip().encode()).decode()
            kind = {"Content-Type": "application/json", "Authorization": f"Basic {token}"}
            request = urllib.request.Request(f"{url}/deployments/count", body, kind)  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                    return answer.read() == b"2"
            except OSError:
                return False

        until(served, 400, "atomsets serve")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ui-settings") as answer:
            settings = json.loads(answer.read())
        assert (settings["api_url"], settings["auth"]) == ("/api", "BASIC")
        page = httpx.get(f"http://127.0.0.1:{port}/", follow_redirects=True).text
        scripts = [httpx.get(f"http://127.0.0.1:{port}{name}").text for name in re.findall(r'src="(/[^"]+\.js)"', page)]
        assert scripts
        assert not any("amplitude.com" in text for text in (page, *scripts)), "the page asks an analytics service"
        # Another user of this machine has no password, for the server or for the reports, and can't read the file.
        assert kept.stat().st_mode & 0o077 == 0
        assert httpx.post(f"{url}/deployments/count", json={}).status_code == 401
        assert httpx.get(f"http://127.0.0.1:{port + 1}/campaigns/x.html").status_code == 401
        assert kept.read_text().strip() not in (tmp_path / "log").read_text()
        serving.send_signal(signal.SIGINT)
        assert serving.wait(120) is not None
    finally:
        end(serving, signal.SIGKILL)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2)


def test_reports_are_served_and_nothing_else(tmp_path, monkeypatch):
    campaign = tmp_path / "campaigns" / "a b"
    (campaign / "models").mkdir(parents=True)
    (campaign / "report.html").write_text("<html>here")
    (campaign / "summary.json").write_text("{}")
    (tmp_path.parent / "outside.html").write_text("secret")
    (campaign / "link.html").symlink_to(tmp_path.parent / "outside.html")
    monkeypatch.chdir(tmp_path)
    with serve_reports(tmp_path, free_port()) as base:
        monkeypatch.setenv("ATOMSETS_REPORTS_URL", base)
        url = report_url(Store("campaigns/a b"))
        assert url == f"{base}/campaigns/a%20b/report.html"
        with urllib.request.urlopen(url) as answer:  # noqa: S310
            assert answer.read() == b"<html>here"
        for path in ("campaigns/a%20b/summary.json", "campaigns/", "../outside.html", "campaigns/a%20b/link.html"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{base}/{path}")  # noqa: S310
    monkeypatch.delenv("ATOMSETS_REPORTS_URL")
    assert report_url(Store("campaigns/a b")).startswith("file:///")


def test_home(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ATOMSETS_HOME", str(tmp_path))
    assert go_home() == {"directory": str(tmp_path)}
    monkeypatch.setenv("ATOMSETS_HOME", str(tmp_path / "none"))
    with pytest.raises(RuntimeError, match="there is no folder"):
        go_home()
    monkeypatch.delenv("ATOMSETS_HOME")
    with pytest.raises(RuntimeError, match="ATOMSETS_HOME is not set"):
        go_home()


def test_a_pull_at_night_leaves_a_campaign_at_work_alone(prefect_with_deployments):
    """Through the worker: the folder's lock is held here."""
    home = prefect_with_deployments.home / "campaigns" / "busy"
    with Store(home).lock():
        run = run_to_the_end(prefect_with_deployments, "pull/nightly", {**TINY, "name": "busy"})
    assert run.state.name == "Campaign at work"
    assert not list(home.rglob("*.parquet"))
