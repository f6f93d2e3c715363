"""Waiting: for several futures at once, and for those anywhere in a value."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar

from prefect_dask_core.engine.templates import rebuild
from prefect_dask_core.future_lists import FutureList
from prefect_dask_core.futures import PrefectFuture, end_of, left_until, wait_all

R = TypeVar("R")


class DoneAndNotDone(NamedTuple):
    """What `wait` returns.

    Parameters
    ----------
    done : set of PrefectFuture
        Those that have ended.
    not_done : set of PrefectFuture
        The others.
    """

    done: set[PrefectFuture[Any]]
    not_done: set[PrefectFuture[Any]]


def wait(
    futures: Iterable[PrefectFuture[Any]], timeout: float | None = None
) -> DoneAndNotDone:
    """Wait until all of some runs have ended, at most some seconds.

    Parameters
    ----------
    futures : iterable of PrefectFuture
        The runs.
    timeout : float, optional
        Seconds. That they are over is no error.
    """
    given = list(futures)
    wait_all(given, end_of(timeout))
    done = {future for future in given if future.done()}
    return DoneAndNotDone(done, set(given) - done)


def as_completed(
    futures: Iterable[PrefectFuture[R]], timeout: float | None = None
) -> Iterator[PrefectFuture[R]]:
    """Futures in the order in which their runs end, each once.

    Parameters
    ----------
    futures : iterable of PrefectFuture
        The runs.
    timeout : float, optional
        Seconds for all of them.

    Raises
    ------
    TimeoutError
        If they have not all ended in time.
    """
    end = end_of(timeout)
    waiting = dict.fromkeys(futures)
    ended: queue.SimpleQueue[PrefectFuture[R]] = queue.SimpleQueue()
    for future in waiting:
        future.on_end(partial(ended.put, future))
    while waiting:
        try:
            future = ended.get(timeout=left_until(end))
        except queue.Empty:
            raise TimeoutError(
                f"{len(waiting)} of the runs have not ended within {timeout} seconds."
            ) from None
        if future in waiting:
            del waiting[future]
            yield future


def resolve_futures_to_states(value: Any) -> Any:
    """A value with the final state in the place of each future, however deep."""

    def state_of(leaf: Any) -> Any:
        if isinstance(leaf, FutureList):
            leaf.wait()
            return list(leaf.states)
        if isinstance(leaf, PrefectFuture):
            leaf.wait()
            return leaf.state
        return leaf

    return rebuild(value, state_of)


def resolve_futures_to_results(value: Any) -> Any:
    """A value with the result in the place of each future, however deep.

    Raises
    ------
    Exception
        What made the first run fail that did not succeed.
    """

    def result_of(leaf: Any) -> Any:
        return leaf.result() if isinstance(leaf, PrefectFuture | FutureList) else leaf

    return rebuild(value, result_of)
