"""Tallies: what triggers need to know of the states above a run, counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prefect_dask_core.engine.codes import (
    COMPLETED,
    FAILED,
    FINISHED,
    SKIPPED,
    SUCCESSFUL,
)
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.states import State, counts_as_failure
from prefect_dask_core.triggers import Tally

#: The tally of the commonest upstream.
ONE_COMPLETED: Final = Tally(1, 1, 0, 0, 1, ())
_NOTHING: Final = Tally(0, 0, 0, 0, 0, ())


def tally_of(segment: Segment, name: str, mapped: bool) -> Tally:
    """What triggers need to know of a whole segment.

    Parameters
    ----------
    segment : Segment
        One or more children.
    name : str
        Name of the task, for messages.
    mapped : bool
        Whether children are named by their index.

    Examples
    --------
    >>> from prefect_dask_core.states import Completed, Failed
    >>> segment = Segment(start=0)
    >>> segment.open(2)
    >>> segment.put(0, Completed(data=1), 0.0, 0.0)
    >>> segment.put(1, Failed("no"), 0.0, 0.0)
    >>> tally_of(segment, "load", mapped=True).failed_names
    ('load[1]',)
    """
    codes = segment.codes
    total = len(codes)
    completed = codes.count(COMPLETED)
    if completed == total:
        if total == 1:
            return ONE_COMPLETED
        return Tally(total, total, 0, 0, total, ())
    present = set(codes)

    def count(group: frozenset[int]) -> int:
        return sum(codes.count(code) for code in present & group)

    names: list[str] = []
    if present & FAILED:
        for offset, code in enumerate(codes):
            if code in FAILED:
                index = segment.start + offset
                names.append(f"{name}[{index}]" if mapped else name)
                if len(names) == 3:
                    break
    return Tally(
        total,
        count(SUCCESSFUL),
        count(FAILED),
        count(SKIPPED),
        count(FINISHED),
        tuple(names),
    )


def tally_of_state(state: State, name: str) -> Tally:
    """What triggers need to know of one state."""
    failed = counts_as_failure(state)
    return Tally(
        1,
        int(state.is_successful()),
        int(failed),
        int(state.is_skipped()),
        int(state.is_final()),
        (name,) if failed else (),
    )


def sum_tallies(tallies: Iterable[Tally]) -> Tally:
    """Add up tallies; of none: an empty one."""
    total = None
    for tally in tallies:
        total = tally if total is None else total + tally
    return _NOTHING if total is None else total


def tolerate(tally: Tally) -> Tally:
    """A tally in which whatever ended has succeeded.

    Examples
    --------
    >>> tolerate(Tally(3, 1, 1, 0, 2, ("load",)))
    Tally(total=3, successful=2, failed=0, skipped=0, finished=2, failed_names=())
    """
    return Tally(tally.total, tally.finished, 0, tally.skipped, tally.finished, ())
