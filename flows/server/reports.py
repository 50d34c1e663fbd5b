"""Reports for a browser: a page that was loaded from a server doesn't follow links to files."""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from atomsets_core.campaigns import REPORT
from atomsets_core.storage import Store

VARIABLE = "ATOMSETS_REPORTS_URL"
SHOWN = (".html", ".csv")


def report_url(store: Store) -> str:
    """Where the report of a campaign can be read.

    With ATOMSETS_REPORTS_URL, the address under which the working directory is served, a link that browsers follow;
    else the file's own address, or its URL in an object store.
    """
    if not store.is_local:
        return store.url(REPORT)
    path = store.local(REPORT).resolve()
    base = os.environ.get(VARIABLE, "").rstrip("/")
    if base and path.is_relative_to(Path.cwd()):
        return f"{base}/{quote(path.relative_to(Path.cwd()).as_posix())}"
    return path.as_uri()


@contextlib.contextmanager
def serve_reports(folder: Path, port: int, password: str = "") -> Iterator[str]:
    """Serve the reports and rankings below a folder on this machine's loopback, and nothing else; their address.

    Args:
        folder: in which campaigns/ lies.
        port: where it is taken, another one that is free.
        password: user:password that a browser must give; none is asked for without.
    """
    wanted = f"Basic {base64.b64encode(password.encode()).decode()}"

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder.resolve()))

        def send_head(self) -> Any:
            if password and not hmac.compare_digest(self.headers.get("Authorization", ""), wanted):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="atomsets"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            path = Path(self.translate_path(self.path))
            if path.suffix not in SHOWN or not path.resolve().is_relative_to(folder.resolve()):
                self.send_error(404)
                return None
            return super().send_head()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
