"""Waiting: for several futures at once, and for those anywhere in a value."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from prefect_dask_core.annotations import quote
from prefect_dask_core.calls import Future
from prefect_dask_core.engine.templates import rebuild
from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.future_lists import FutureList
from prefect_dask_core.futures import PrefectFuture, end_of, left_until, wait_all
from prefect_dask_core.states import State

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

    done: set[Future[Any]]
    not_done: set[Future[Any]]


def wait(
    futures: Iterable[Future[Any]], timeout: float | None = None
) -> DoneAndNotDone:
    """Wait until all of some runs have ended, at most some seconds.

    Parameters
    ----------
    futures : iterable of PrefectFuture
        The runs.
    timeout : float, optional
        Seconds. That they are over is no error.
    """
    given = _own(futures)
    wait_all(given, end_of(timeout))
    done: set[Future[Any]] = {future for future in given if future.done()}
    return DoneAndNotDone(done, {future for future in given if future not in done})


def _own(futures: Iterable[Future[R]]) -> list[PrefectFuture[R]]:
    """The futures, as what they are: `calls.Future` is what type checkers see."""
    found = list(futures)
    for future in found:
        if not isinstance(future, PrefectFuture):
            raise OptionTypeError(
                f"expected futures that .submit or .map has given, and got {future!r}."
            )
    return cast(list[PrefectFuture[R]], found)


def as_completed(
    futures: Iterable[Future[R]], timeout: float | None = None
) -> Iterator[Future[R]]:
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
    waiting = dict.fromkeys(_own(futures))
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


def opaque(value: Any) -> Any:
    """Give an argument that is waited for, if it is a future, and not looked into.

    Like `quote`, but for a future or a state, of which the task gets the value. Values
    of futures are never looked into.

    Examples
    --------
    >>> opaque([1, 2])
    Quote(value=[1, 2])
    """
    if isinstance(value, PrefectFuture | FutureList | State):
        return value
    return quote(value)


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
