"""Endings: what is said of a flow run that did not end well, and how it goes on."""

from __future__ import annotations

from prefect_dask_core.engine.views import RunInfo
from prefect_dask_core.states import State


def way_on(info: RunInfo, call: str, recorded: bool, stored: bool) -> str:
    """How a run can be resumed, as the end of a message.

    Parameters
    ----------
    info : RunInfo
        The run. One inside of another goes on with that one.
    call : str
        What is written to resume it, with ``{}`` for its id.
    recorded : bool
        Whether it is in a ledger.
    stored : bool
        Whether values of it are in a store.

    Returns
    -------
    str
        Empty if nothing of the run is left to go on with.

    Examples
    --------
    >>> way_on(RunInfo("07", "etl", "etl-07", 0.0), 'resume="{}"', True, True)
    '; resume it with resume="07" and its ledger'
    """
    inside = info.parent_run_id is not None or info.parent_task_run_id is not None
    if inside or not (recorded or stored):
        return ""
    return f"; resume it with {call.format(info.run_id)}" + " and its ledger" * recorded


def is_over(state: State) -> bool:
    """Whether a run ended, and not well."""
    return state.is_final() and not state.is_successful()


def told_error(error: BaseException) -> str:
    """An exception in one line: its type and text.

    Examples
    --------
    >>> told_error(KeyError("x")), told_error(ValueError())
    ("KeyError: 'x'", 'ValueError')
    """
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
