"""A real SLURM of one node, with its own configuration, ports and keys, for root on a machine that has its programs."""

# ruff: noqa: S607  # SLURM's programs lie where the PATH says

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "srun")

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no SLURM here; "" where there can."""
    if os.geteuid() or not Path("/proc/self").exists():
        return "a SLURM of one's own needs root, on Linux"
    lacking = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    packages = "apt-get install slurmctld slurmd slurm-client munge"
    return f"{', '.join(lacking)} is not installed: {packages}" if lacking else ""


@contextlib.contextmanager
def slurm(place: Path) -> Iterator[dict[str, str]]:
    """Start it; the environment that its commands need."""
    for name in ("state", "spool"):
        (place / name).mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    configuration = CONFIGURATION.format(host=host, place=place, ports=_free_ports(), cpus=os.cpu_count())
    (place / "slurm.conf").write_text(configuration)
    environment = {"SLURM_CONF": str(place / "slurm.conf"), "PATH": _path()}
    everything = {**os.environ, **environment}
    subprocess.run(["mungekey", "--create", f"--keyfile={place}/munge.key"], check=True, env=everything)
    files = [f"--{kind}-file={place}/munge.{kind}" for kind in ("key", "log", "pid", "seed")]
    commands = [["munged", "--foreground", "--force", f"--socket={place}/munge.socket", *files]]
    commands += [["slurmctld", "-D"], ["slurmd", "-D"]]
    daemons = []
    try:
        for command in commands:
            with (place / f"{command[0]}.out").open("wb") as log:
                daemons.append(subprocess.Popen(command, env=everything, stdout=log, stderr=log))
            time.sleep(0.3)
        deadline = time.monotonic() + 120
        while subprocess.run(["srun", "-n1", "true"], env=everything, capture_output=True, timeout=120).returncode:
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in daemons):
                said = "".join(path.read_text(errors="replace")[-500:] for path in sorted(place.glob("*.out")))
                raise RuntimeError(f"SLURM did not start: {said}")
            time.sleep(0.5)
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=everything, capture_output=True, timeout=60)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _free_ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
