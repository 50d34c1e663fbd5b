"""How the server misbehaves on demand.

429 503 500 502     that status; `retry_after` in seconds goes into the header
redirect            to the address `to`
drop                the connection is closed without a word
broken              the connection is closed in the middle of the reply
slow                the answer comes after `seconds`
bad_json            a reply that is not JSON
short               a reply with half of its entries, and the right count
no_total            a reply without total_doc
shuffle             another order of all entries with each request
cap                 pages of at most `size` entries, whatever is asked for
release             the database gets version `version` after the request, `changes` as in Database.release
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Fault:
    """One misbehaviour.

    Attributes:
        kind: see above.
        after: requests for data that are answered well before it.
        times: requests it lasts; -1 for ever.
        endpoint: only requests to this one count; "" for all.
        options: retry_after, seconds, size, version, changes.
    """

    kind: str
    after: int = 0
    times: int = 1
    endpoint: str = ""
    options: dict[str, Any] = field(default_factory=dict)


class Faults:
    """Those that are to come."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def set(self, faults: list[dict[str, Any]]) -> None:
        """Replace all."""
        known = {"kind", "after", "times", "endpoint"}
        made = [
            Fault(
                **{key: value for key, value in fault.items() if key in known},
                options={key: value for key, value in fault.items() if key not in known},
            )
            for fault in faults
        ]
        with self._lock:
            self._waiting = made

    def next(self, endpoint: str) -> list[Fault]:
        """What befalls the next request to an endpoint."""
        found = []
        with self._lock:
            for fault in self._waiting:
                if fault.endpoint not in ("", endpoint) or fault.times == 0:
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times -= 1
                found.append(fault)
        return found
