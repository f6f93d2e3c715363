"""Traces: the traceback of what made a run fail, as text."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

from prefect_dask_core.states import State

#: A name in the code of frames that `tblib` made anew, of a traceback that has
#: travelled. Code and columns are those of a line of `tblib`, not of the user's.
_MADE_ANEW = "__traceback_maker"


def trace_of(state: State) -> str:
    r"""Traceback of the exception that a state has; empty without one.

    The frames are those of the run, however often somebody has raised the exception
    since by asking for the result.

    Examples
    --------
    >>> from prefect_dask_core.states import Failed
    >>> trace_of(Failed("no", ValueError("no"))), trace_of(Failed("no"))
    ('ValueError: no\n', '')
    """
    error = state.data
    if not isinstance(error, BaseException):
        return ""
    try:
        told = traceback.TracebackException(type(error), error, state.frames)
        _mend(told, error, state.frames)
        return "".join(told.format())
    except Exception:  # of an exception's own __str__
        return ""


def _mend(
    told: traceback.TracebackException | None,
    error: BaseException | None,
    frames: TracebackType | None,
) -> None:
    """Take the carets from lines of frames made anew: they know no columns."""
    while told is not None and error is not None:
        for shown, (frame, _) in zip(
            told.stack, traceback.walk_tb(frames), strict=False
        ):
            if _MADE_ANEW in frame.f_code.co_names and sys.version_info >= (3, 11):
                shown.colno = shown.end_colno = None
        if told.__context__ is not None and error.__context__ is not None:
            _mend(told.__context__, error.__context__, error.__context__.__traceback__)
        told, error = told.__cause__, error.__cause__
        frames = None if error is None else error.__traceback__
