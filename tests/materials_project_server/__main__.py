"""The server: GET /heartbeat, /materials/summary/, /materials/elasticity/, /materials/dielectric/, and /control/.

GET  /control/log        requests and how often each identifier was sent with its structure, since the last reset
POST /control/forget     forget them
POST /control/reset      forget them, and be again what it was when it started
POST /control/faults     a list of misbehaviours, see `faults`
POST /control/release    {"version": ..., "show": [ids], "hide": [], "change": [], "deprecate": [], "restore": []}
POST /control/options    {"gnome": [ids], "alpha_ids": true, "key": "...", "dates": false, "shift": {column: number}}
"""

from __future__ import annotations

import argparse
import random
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson

from .database import GNOME, Database
from .faults import Fault, Faults

ENDPOINTS = ("summary", "elasticity", "dielectric")


class State:
    """What all requests share."""

    def __init__(self, database: Database, key: str) -> None:
        self.database, self._first_key = database, key
        self.faults = Faults()
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """As it was in the beginning."""
        self.database.reset()
        self.key = self._first_key
        self.faults.set([])
        self.forget()

    def forget(self) -> None:
        """Forget what was sent."""
        self.requests: list[dict[str, Any]] = []
        self.structures: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: State

    def do_GET(self) -> None:
        """Answer a request for data, or for what was sent so far."""
        url = urlsplit(self.path)
        path = url.path.strip("/")
        if path == "heartbeat":
            version = self.state.database.version
            self._send(200, {"version": "0.88.0", "db_version": version, "access_controlled_batch_ids": [GNOME]})
        elif path == "control/log":
            with self.state.lock:
                self._send(200, {"requests": self.state.requests, "structures": dict(self.state.structures)})
        elif path.startswith("materials/") and path.removeprefix("materials/") in ENDPOINTS:
            self._data(path.removeprefix("materials/"), dict(parse_qsl(url.query)))
        else:
            self._send(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        """Change what the server does."""
        body = orjson.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        with self.state.lock:
            if self.path == "/control/forget":
                self.state.forget()
            elif self.path == "/control/reset":
                self.state.reset()
            elif self.path == "/control/faults":
                self.state.faults.set(body)
            elif self.path == "/control/release":
                self.state.database.release(**body)
            elif self.path == "/control/options":
                if "gnome" in body:
                    self.state.database.gnome[[self.state.database.row_of[name] for name in body["gnome"]]] = True
                self.state.database.alpha_ids = body.get("alpha_ids", self.state.database.alpha_ids)
                self.state.database.dates = body.get("dates", self.state.database.dates)
                for name, shift in body.get("shift", {}).items():
                    self.state.database.shift(name, shift)
                self.state.key = body.get("key", self.state.key)
        self._send(200, {})

    def _data(self, endpoint: str, asked: dict[str, str]) -> None:
        state, key = self.state, self.headers.get("x-api-key", "")
        faults = {fault.kind: fault for fault in state.faults.next(endpoint)}
        entry = {"endpoint": endpoint, "asked": asked, "status": 0, "documents": 0, "key_sent": bool(key)}
        with state.lock:
            state.requests.append(entry)
            # a slow answer belongs to the log of its beginning, also when that was forgotten in between
            sent = state.structures
        if key != state.key:
            entry["status"] = 403
            # worse than the real server: it says which key it got
            self._send(403, {"detail": f"Invalid authentication credentials: {key}"})
            return
        for status in ("429", "500", "502", "503"):
            if status in faults:
                entry["status"] = int(status)
                wait = faults[status].options.get("retry_after")
                headers = {} if wait is None else {"Retry-After": str(wait)}
                self._send(int(status), {"detail": "on demand"}, headers)
                return
        if "redirect" in faults:
            entry["status"] = 302
            self._send(302, {}, {"Location": faults["redirect"].options["to"]})
            return
        if "drop" in faults:
            self._hang_up()
            return
        if "slow" in faults:
            time.sleep(faults["slow"].options["seconds"])
        self._send_page(endpoint, asked, faults, entry, sent)

    def _send_page(self, endpoint: str, asked: dict[str, str], faults: dict[str, Fault], entry: dict[str, Any],
        sent: Counter[str],
    ) -> None:  # fmt: skip
        database = self.state.database
        rows = database.search(endpoint, asked)
        if "shuffle" in faults:
            rows = random.sample(rows.tolist(), len(rows))
        size = int(asked.get("_per_page") or asked.get("_limit") or 100)
        if "cap" in faults:
            size = min(size, faults["cap"].options["size"])
        start = (int(asked["_page"]) - 1) * size if asked.get("_page") else int(asked.get("_skip") or 0)
        page = rows[start : start + size]
        if "short" in faults:
            page = page[: len(page) // 2]
        fields = set(asked.get("_fields", "material_id").split(","))
        documents = database.documents(endpoint, page, fields)
        meta = {} if "no_total" in faults else {"total_doc": len(rows)}
        body = orjson.dumps({"data": documents, "meta": meta})
        if "bad_json" in faults:
            body = b"<html>" + body
        entry |= {"status": 200, "documents": len(documents)}
        if "broken" in faults:
            self._send_half(body)
            return
        if "structure" in fields:
            with self.state.lock:
                sent.update(database.ids[int(row)] for row in page)
        self._send(200, body)
        if "release" in faults:
            with self.state.lock:
                database.release(faults["release"].options["version"], **faults["release"].options.get("changes", {}))

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _send_half(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self._hang_up()

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the console: the log is asked for."""


class Server(ThreadingHTTPServer):
    """Clients that are killed are no news."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet of structures, see Database")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=0, help="0: a free one, printed")
    parser.add_argument("--key", default="0123456789abcdefABCDEF0123456789", help="the only key that is taken")
    parser.add_argument("--version", default="2026.10.01", help="of the database")
    parser.add_argument("--elasticity", type=Path, help="Parquet with K_VRH, G_VRH, ...")
    parser.add_argument("--dielectric", type=Path, help="Parquet with n, e_total, ...")
    parser.add_argument("--limit", type=int, help="only the first so many structures")
    parser.add_argument("--alpha-ids", action="store_true", help="send identifiers in letters")
    parser.add_argument("--fault", action="append", default=[], metavar="KIND[:AFTER[:TIMES]]", help="see faults")
    options = parser.parse_args()
    database = Database(options.data, options.version, options.alpha_ids)
    for endpoint in ("elasticity", "dielectric"):
        if getattr(options, endpoint):
            database.add_side(endpoint, getattr(options, endpoint))
    if options.limit:
        database.limit(options.limit)
    Handler.state = State(database, options.key)
    parts = [text.split(":") for text in options.fault]
    Handler.state.faults.set(
        [
            {"kind": p[0], "after": int(p[1]) if len(p) > 1 else 0, "times": int(p[2]) if len(p) > 2 else 1}
            for p in parts
        ]
    )
    server = Server((options.host, options.port), Handler)
    print(f"http://{options.host}:{server.server_address[1]}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
