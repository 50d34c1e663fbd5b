"""Prefect without a server of its own: the temporary one that it starts for a run, made to start early and quietly."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import warnings
from pathlib import Path


def quiet_environment(verbose: bool) -> None:
    """Settings that must stand before prefect is imported; what the user has set stays."""
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # The command shows progress and says what is wrong itself; the API gets the whole log all the same.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO" if verbose else "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # 2 + 4 + ... + 128 s: a server may be away for four minutes before a run minds
        "PREFECT_CLIENT_MAX_RETRIES": "7",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    quiet_warnings()


def quiet_warnings() -> None:
    """Keep off the console what pymatgen says whenever it sorts the elements of a noble-gas compound."""
    warnings.filterwarnings("ignore", message="No Pauling electronegativity")


def start_early() -> threading.Thread:
    """Start the temporary server in the background while this process still imports what it needs.

    Nothing is started where an API is configured. Join the thread before the first flow: prefect finds the server
    running, or starts it itself if this failed.
    """

    def start() -> None:
        from prefect.settings import PREFECT_API_URL

        if not PREFECT_API_URL.value():
            from prefect.server.api.server import SubprocessASGIServer

            server = SubprocessASGIServer()
            run = server._run_uvicorn_command

            def watched():  # type: ignore[no-untyped-def]
                # At once, not when it answers: this process may be killed while the server still starts.
                process = run()
                _end_with_this_process(process.pid)
                return process

            server._run_uvicorn_command = watched  # type: ignore[method-assign]
            server.start()

    thread = threading.Thread(target=_ignoring_errors(start), daemon=True)
    thread.start()
    return thread


def _end_with_this_process(pid: int) -> None:
    """Have the temporary server end when this process does, by SIGKILL too, after which nobody else would end it.

    A shell waits for a pipe to close, which the system does when this process is gone. A server that has not gone ten
    seconds after it was asked to (it may still be starting) is killed.
    """
    if not Path(f"/proc/{pid}/cmdline").exists():
        return
    still = f"grep -q uvicorn /proc/{pid}/cmdline 2>/dev/null"
    then = f"read -r _; {still} && kill {pid} && sleep 10 && {still} && kill -9 {pid}"
    command = ["/bin/sh", "-c", then]
    # In a session of its own, so that Ctrl-C doesn't end it first; its pipe stays open as long as the object lives.
    watcher = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _watchers.append(watcher)


_watchers: list[subprocess.Popen[bytes]] = []


def _ignoring_errors(work):  # type: ignore[no-untyped-def]
    def run() -> None:
        try:
            work()
        except Exception as error:
            logging.getLogger(__name__).debug("the temporary server did not start early: %s", error)

    return run
