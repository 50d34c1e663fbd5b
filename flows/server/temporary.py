"""Prefect without a server of its own: the temporary one that it starts for a run, made to start early and quietly.

It listens on this machine's loopback, which all users of a login node share: so it wants a password, made for the run
and known to its processes alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
import subprocess
import tempfile
import threading
import warnings
from pathlib import Path

ROOM = 2 << 20
"""Bytes that must be free where Prefect keeps its database: a run takes 0.6 MB."""

KEPT_RUNS = "ATOMSETS_KEPT_RUNS"
"""Variable: so many runs stay in the database of temporary servers, 50 unless told otherwise; 0 keeps all."""


class HomeError(Exception):
    """Prefect can't keep anything anywhere; the message says where it was tried and what to do."""


def quiet_environment(verbose: bool) -> None:
    """Settings that must stand before prefect is imported; what the user has set stays."""
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # The command shows progress and says what is wrong itself; the API gets the whole log all the same.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO" if verbose else "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "ERROR" if verbose else "CRITICAL",  # each event that a lost server missed
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # 2 + 4 + 8 + 16 s: a server takes as long to start again; a run that must end without it waits once as long
        "PREFECT_CLIENT_MAX_RETRIES": "4",
        "PREFECT_API_REQUEST_TIMEOUT": "20",
        # A server that stays up drops runs that ended months ago, as the temporary one does.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    quiet_warnings()


def quiet_warnings() -> None:
    """Keep off the console what pymatgen says whenever it sorts the elements of a noble-gas compound."""
    warnings.filterwarnings("ignore", message="No Pauling electronegativity")


def start_early(beside: str = "campaigns") -> threading.Thread:
    """Start the temporary server in the background while this process still imports what it needs.

    Nothing is started where an API is configured. Join the thread before the first flow: prefect finds the server
    running, or starts it itself if this failed.

    Args:
        beside: folder or URL of the campaign; Prefect's own files lie beside it where the home can't be written.

    Raises:
        HomeError: they can't lie there either.
    """
    find_home(beside)

    def start() -> None:
        from prefect.settings import PREFECT_API_URL

        if not PREFECT_API_URL.value():
            _give_password()
            forget_old_runs(_home())
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


def find_home(beside: str) -> None:
    """Have Prefect keep its files beside a campaign where its home is full or can't be written.

    Must come before prefect is imported. Prefect itself would wait for minutes for a server that can't start.

    Raises:
        HomeError: neither place can be written.
    """
    home = _home()
    wrong = _fault(home)
    if not wrong:
        return
    place = Path(tempfile.gettempdir() if "://" in beside else Path(beside).absolute().parent) / ".prefect"
    if there := _fault(place):
        raise HomeError(
            f"Prefect can keep its files neither in {home} ({wrong}) nor in {place} ({there}): free some space, or set "
            "PREFECT_HOME to a folder that can be written"
        )
    if (home / "profiles.toml").is_file():
        os.environ.setdefault("PREFECT_PROFILES_PATH", str(home / "profiles.toml"))
    os.environ["PREFECT_HOME"] = str(place)
    logging.getLogger(__name__).info("Prefect keeps its files in %s: %s can't be written (%s)", place, home, wrong)


def _home() -> Path:
    return Path(os.environ.get("PREFECT_HOME") or Path("~/.prefect")).expanduser()


def _fault(folder: Path) -> str:
    """Why a database can't be kept in a folder; "" where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(ROOM))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _give_password() -> None:
    """Make the password of the temporary server; its client and all processes of this run have it, nobody else."""
    from prefect.context import refresh_global_settings_context

    password = f"atomsets:{secrets.token_urlsafe(32)}"
    os.environ["PREFECT_SERVER_API_AUTH_STRING"] = os.environ["PREFECT_API_AUTH_STRING"] = password
    refresh_global_settings_context()


def keep_password() -> tuple[str, str]:
    """The password of the server that `atomsets serve` starts, made once; into the environment of both its sides.

    Returns:
        user:password, and the file that holds it; no file where the environment had it before.
    """
    password, place = os.environ.get("PREFECT_SERVER_API_AUTH_STRING", ""), ""
    if not password:
        path = _home() / "serve-password"
        with contextlib.suppress(FileExistsError), open(path, "x", opener=_for_me_alone) as file:
            file.write(f"atomsets:{secrets.token_urlsafe(24)}\n")
        path.chmod(0o600)
        password, place = path.read_text().strip(), str(path)
    os.environ["PREFECT_SERVER_API_AUTH_STRING"] = os.environ["PREFECT_API_AUTH_STRING"] = password
    return password, place


def _for_me_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def forget_old_runs(home: Path) -> None:
    """Drop the oldest runs from the database that temporary servers share, which would grow with every run.

    What can't be dropped now, for instance since another server writes, is dropped next time.
    """
    kept, path = int(os.environ.get(KEPT_RUNS) or 50), home / "prefect.db"
    if kept <= 0 or not path.is_file() or "PREFECT_API_DATABASE_CONNECTION_URL" in os.environ:
        return
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path, timeout=2.0)) as database:
        last = database.execute(
            "SELECT created FROM flow_run ORDER BY created DESC LIMIT 1 OFFSET ?", [kept - 1]
        ).fetchone()
        if last is None:
            return
        with database:
            database.execute("PRAGMA foreign_keys = ON")  # states and task runs go with their run
            database.execute(
                "DELETE FROM flow_run WHERE created < ? "
                "AND (end_time IS NOT NULL OR created < datetime('now', '-30 days'))",
                last,
            )
            for table in ("log", "artifact", "artifact_collection"):
                database.execute(f"DELETE FROM {table} WHERE flow_run_id NOT IN (SELECT id FROM flow_run)")  # noqa: S608
            for table in ("event_resources", "events"):
                database.execute(f"DELETE FROM {table} WHERE occurred < ?", last)  # noqa: S608


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
