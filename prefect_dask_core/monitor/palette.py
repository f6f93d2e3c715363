"""Palette: the colours of states in every picture, and the order in which they stand.

The colours themselves are those of the state classes: vermilion, orange, blue, green
and purple of Okabe and Ito, which people with any common colour-blindness tell apart,
and shades of them. Where colours meet, an outline or a word tells the same.
"""

from __future__ import annotations

from typing import Final

from prefect_dask_core.engine.codes import STATE_BY_CODE

#: Names of state classes from what needs a look to what does not: the order of stacked
#: bars and legends. Classes that have no code of their own are not among them.
ORDER: Final[tuple[str, ...]] = (
    "Crashed",
    "Failed",
    "TimedOut",
    "TriggerFailed",
    "Cancelled",
    "Paused",
    "AwaitingRetry",
    "Running",
    "Pending",
    "Skipped",
    "Cached",
    "Looped",
    "Finished",
    "Completed",
)
#: Colour by the name of a state's class, as ``"#rrggbb"``.
COLORS: Final[dict[str, str]] = {cls.__name__: cls.color for cls in STATE_BY_CODE}
#: Colour by the code of a state in a segment.
COLOR_BY_CODE: Final[tuple[str, ...]] = tuple(cls.color for cls in STATE_BY_CODE)
#: Place in `ORDER` by the code of a state.
RANK_BY_CODE: Final[tuple[int, ...]] = tuple(
    ORDER.index(cls.__name__) for cls in STATE_BY_CODE
)
#: Colour of what waits between two attempts, and of grid lines and borders.
WAIT: Final = "#e69f00"
LINE: Final = "#c9d1d9"


def worst(names: dict[str, int]) -> str:
    """The name, of those that count more than 0, that needs a look first.

    Examples
    --------
    >>> worst({"Completed": 9, "Failed": 1, "Crashed": 0}), worst({})
    ('Failed', 'Pending')
    """
    found = [name for name, count in names.items() if count]
    return min(found, key=ORDER.index, default="Pending")
