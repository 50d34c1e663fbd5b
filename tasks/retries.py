"""When a failed task is worth another try, how often, and after how long."""

from __future__ import annotations

from typing import Any

from distributed import KilledWorker
from distributed.comm import CommClosedError

PASSING = (KilledWorker, CommClosedError, ConnectionError, TimeoutError)
"""Faults of machines and networks, which may be gone a moment later; every other error would come again."""


def worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect's `retry_condition_fn`: whether the failure was a passing one."""
    try:
        state.result()
    except PASSING:
        return True
    except Exception:
        return False
    return False


DELAYS = (1, 5, 20)
"""Seconds before the second, third and fourth try."""

RETRY: dict[str, Any] = {
    "retries": len(DELAYS),
    "retry_delay_seconds": list(DELAYS),
    "retry_condition_fn": worth_retrying,
}
"""For tasks whose work runs on the cluster."""
