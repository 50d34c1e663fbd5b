"""The names of the states that runs end in, beside Prefect's own "Completed" and "Failed".

All of them are of the type COMPLETED: nothing has to be repaired, but a person who looks at the list of runs, or an
automation, can tell at a glance which is which.
"""

from __future__ import annotations

from typing import Any, cast

from prefect.states import Completed

NOTHING_NEW = "Nothing new"
"""Everything is as the last run left it; no work was done."""
WITH_FAILURES = "Completed with failures"
"""Results are there, but some work failed that another try might mend: a worker died, a shard hung."""
APPOINTED = "Champion appointed"
PROMOTED = "Challenger promoted"
KEPT = "Champion kept"


def ended(name: str, message: str, result: dict[str, Any]) -> dict[str, Any]:
    """What a flow returns to end in a state with a name of its own; who calls the flow gets the result."""
    # Prefect unpacks the state: a caller sees its data
    return cast("dict[str, Any]", Completed(name=name, message=message, data=result))
