"""Codes: states as small numbers, by which many are kept in the room of a few bytes."""

from __future__ import annotations

from typing import Final

from prefect_dask_core.states import (
    AwaitingRetry,
    Cached,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Finished,
    Looped,
    Paused,
    Pending,
    Running,
    Skipped,
    State,
    TimedOut,
    TriggerFailed,
    usual_attempts,
)

#: The class of a state by its code. The order is part of the format on the wire.
STATE_BY_CODE: Final[tuple[type[State], ...]] = (
    Completed,
    Skipped,
    Cached,
    Failed,
    TimedOut,
    TriggerFailed,
    Crashed,
    Cancelled,
    Paused,
    Pending,
    AwaitingRetry,
    Running,
    Finished,
    Looped,
)
CODE_BY_STATE: Final[dict[type[State], int]] = {
    state: code for code, state in enumerate(STATE_BY_CODE)
}
COMPLETED: Final = CODE_BY_STATE[Completed]
CACHED: Final = CODE_BY_STATE[Cached]
#: Attempts by code, where a segment has noted no others.
USUAL_ATTEMPTS: Final = tuple(usual_attempts(cls.__name__) for cls in STATE_BY_CODE)

#: Codes of states that are successful, skipped, failed or crashed, finished.
SUCCESSFUL: Final = frozenset(
    code for code, cls in enumerate(STATE_BY_CODE) if issubclass(cls, Completed)
)
SKIPPED: Final = frozenset(
    code for code, cls in enumerate(STATE_BY_CODE) if issubclass(cls, Skipped)
)
FAILED: Final = frozenset(
    code for code, cls in enumerate(STATE_BY_CODE) if issubclass(cls, Failed | Crashed)
)
FINISHED: Final = frozenset(
    code
    for code, cls in enumerate(STATE_BY_CODE)
    if issubclass(cls, Finished) and cls is not Looped
)
#: Final, and no success.
BAD: Final = FINISHED - SUCCESSFUL


def code_of(state: State) -> int:
    """The code of a state: that of its class, or of the nearest class with a code.

    Examples
    --------
    >>> STATE_BY_CODE[code_of(Skipped())].__name__
    'Skipped'
    """
    for cls in type(state).__mro__:
        code = CODE_BY_STATE.get(cls)
        if code is not None:
            return code
    return CODE_BY_STATE[Pending]
