"""Compose file, Dockerfile, Kubernetes manifests and SLURM examples, each checked by its own tool or schema."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from atomsets_flows.campaign.reading import read_campaign
from atomsets_tasks.clusters import kubernetes_spec, slurm_cluster

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = ROOT / "deployments"
BIN = Path(sys.executable).parent
FILLED_IN = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "POSTGRES_PASSWORD": "p", "PREFECT_AUTH": "u:p"}
MANIFESTS = sorted((DEPLOYMENTS / "kubernetes").glob("*.yaml"))
LOOPBACK = "127.0.0.1"


def compose(*arguments, environment=FILLED_IN):
    command = [str(BIN / "docker-compose"), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def resolved(*files):
    done = compose(*(word for file in files for word in ("-f", f"deployments/{file}")), "--profile", "deploy", "config")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    return yaml.safe_load(done.stdout)


def test_compose_file_is_one():
    services = resolved("compose.yaml")["services"]
    assert set(services) == {"database", "server", "worker", "deploy", "reports"}
    assert services["server"]["depends_on"]["database"]["condition"] == "service_healthy"
    for name in ("server", "worker", "deploy"):
        assert services[name]["environment"]["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false", name


def test_compose_opens_ports_to_this_machine_alone():
    ports = [port for service in resolved("compose.yaml")["services"].values() for port in service.get("ports", [])]
    assert [port["host_ip"] for port in ports] == [LOOPBACK, LOOPBACK]


def test_compose_doesnt_start_without_passwords():
    for missing in ("POSTGRES_PASSWORD", "PREFECT_AUTH"):
        rest = {name: value for name, value in FILLED_IN.items() if name != missing}
        done = compose("-f", "deployments/compose.yaml", "config", environment=rest)
        assert done.returncode != 0
        assert missing in done.stderr
        assert "deployments/.env" in done.stderr


def test_compose_with_a_card():
    worker = resolved("compose.yaml", "compose.cuda.yaml")["services"]["worker"]
    assert worker["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_dockerfile():
    done = subprocess.run([BIN / "hadolint", DEPLOYMENTS / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    text = (DEPLOYMENTS / "Dockerfile").read_text()
    users = re.findall(r"^USER (\w+)", text, flags=re.MULTILINE)
    assert users[-1:] == ["10001"], "the image runs as root"
    # what is copied must be let through, and nothing else is
    ignore = (ROOT / ".dockerignore").read_text().split("\n")
    copied = [word for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, flags=re.MULTILINE) for word in line.split()]
    assert {f"!{name}" for name in copied} == {line for line in ignore if line.startswith("!")}
    assert ignore[1] == "*"


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_kubernetes_manifests_fit_the_schemas(path):
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    assert documents
    if path.stem == "kustomization":
        named = set(documents[0]["resources"])
        assert named == {other.name for other in MANIFESTS} - {path.name}
        return
    for document in documents:
        kubernetes_validate.validate(document, "1.33", strict=True)


def pods():
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            if "template" in document.get("spec", {}):
                yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def test_kubernetes_pods_are_no_root_and_hold_no_secret():
    found = dict(pods())
    assert set(found) == {"database", "prefect", "worker"}
    for name, pod in found.items():
        assert pod["securityContext"]["runAsNonRoot"], name
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            for variable in container["env"]:
                if re.search("PASSWORD|AUTH|KEY|SECRET", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"], (name, variable["name"])
    services = [d for path in MANIFESTS for d in yaml.safe_load_all(path.read_text()) if d["kind"] == "Service"]
    assert {service["spec"].get("type", "ClusterIP") for service in services} == {"ClusterIP"}


def test_kubernetes_accounts_that_are_used_exist():
    documents = [d for path in MANIFESTS for d in yaml.safe_load_all(path.read_text())]
    accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
    used = {pod["serviceAccountName"] for _, pod in pods() if "serviceAccountName" in pod}
    bound = {s["name"] for d in documents if d["kind"] == "RoleBinding" for s in d["subjects"]}
    template = yaml.safe_load((DEPLOYMENTS / "pools" / "kubernetes.json").read_text())
    used.add(template["variables"]["properties"]["service_account_name"]["default"])
    assert used == bound == accounts


def from_pool(kind):
    """The job of a run without variables of its own, from the template that `atomsets deploy --kind` gives the pool."""
    from prefect.utilities.templating import apply_values

    template = yaml.safe_load((DEPLOYMENTS / "pools" / f"{kind}.json").read_text())
    variables = template["variables"]["properties"]
    jsonschema.Draft7Validator.check_schema(template["variables"])
    return apply_values(
        template["job_configuration"], {name: v["default"] for name, v in variables.items() if "default" in v}
    )


def test_a_kubernetes_run_becomes_a_job_that_fits_the_schema():
    job = from_pool("kubernetes")["job_manifest"]
    # what the worker adds
    job["metadata"]["generateName"] = "run-"
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": name, "value": value} for name, value in container["env"].items()]
    container["args"] = ["prefect", "flow-run", "execute"]
    kubernetes_validate.validate(job, "1.33", strict=True)
    assert {variable["name"]: variable["value"] for variable in container["env"]}["ATOMSETS_HOME"] == "/campaigns"
    assert container["envFrom"] == [{"secretRef": {"name": "atomsets-keys", "optional": True}}]


def test_a_docker_run_has_its_volume():
    job, made = from_pool("docker"), resolved("compose.yaml")
    # the names that compose gives them
    assert job["volumes"] == [f"{made['volumes']['campaigns']['name']}:/campaigns"]
    assert job["networks"] == [made["networks"]["atomsets"]["name"]]
    assert job["image"] == made["services"]["worker"]["image"]


def test_the_dask_cluster_of_the_kubernetes_example_fits_the_operator():
    import dask_kubernetes

    cluster = read_campaign(DEPLOYMENTS / "kubernetes" / "campaign.toml").cluster
    options = cluster.kubernetes.model_dump()
    namespace = options.pop("namespace")
    spec = kubernetes_spec(cluster.workers, cluster.memory_per_worker, **options)
    crd = Path(dask_kubernetes.__file__).parent / "operator" / "deployment" / "helm"
    crd = crd / "dask-kubernetes-operator" / "crds" / "daskcluster.yaml"
    schema = yaml.safe_load(crd.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    jsonschema.validate(spec, schema)
    for part in ("worker", "scheduler"):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": part}, "spec": spec["spec"][part]["spec"]}
        kubernetes_validate.validate(pod, "1.33", strict=True)
    worker = spec["spec"]["worker"]["spec"]
    assert worker["volumes"][0]["persistentVolumeClaim"]["claimName"] == "campaigns"
    for part in ("worker", "scheduler"):
        containers = spec["spec"][part]["spec"]["containers"]
        assert containers[0]["envFrom"] == [{"secretRef": {"name": "atomsets-keys"}}]
    # the operator may do in the namespace what the manifests allow its clusters
    assert namespace == "atomsets"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "cpu",
            ["-p short", "-A materials", "-t 02:00:00", "--cpus-per-task=16", "--lifetime 6720s"],
        ),
        ("gpu", ["-p gpu", "--gres=gpu:1", "--resources GPU=1", "--cpus-per-gpu=8", "--lifetime 6720s"]),
    ],
)
def test_slurm_examples_become_jobs(name, lines):
    cluster = read_campaign(DEPLOYMENTS / "slurm" / f"{name}.toml").cluster
    assert cluster.kind == "slurm"
    assert cluster.min_workers == 0
    made = slurm_cluster(cluster.memory_per_worker, **cluster.slurm.model_dump() | {"interface": None})
    try:
        script = made.job_script()
    finally:
        made.close()
    for line in lines:
        assert line in script, (line, script)
    assert "--preload atomsets_core.jobs.structures" in script
    assert subprocess.run(["/bin/bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_the_sbatch_script_is_bash():
    script = DEPLOYMENTS / "slurm" / "campaign.sbatch"
    assert subprocess.run(["/bin/bash", "-n", script], check=False).returncode == 0


def test_no_key_lies_in_a_file_of_deployments():
    for path in DEPLOYMENTS.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert not re.search(r"(?i)(api_key|password|secret)\s*[=:]\s*[\"']?[A-Za-z0-9]{12,}", path.read_text()), (
                path
            )
