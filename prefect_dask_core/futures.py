"""Futures: handles of the runs that a function flow has submitted."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import logging
import operator
import queue
import time
import uuid
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar, overload

from prefect_dask_core.causes import error_of
from prefect_dask_core.displays import counts_html, titled_html
from prefect_dask_core.engine.columns import Children
from prefect_dask_core.engine.session import Session
from prefect_dask_core.engine.templates import rebuild
from prefect_dask_core.errors import OptionValueError
from prefect_dask_core.run_ids import task_run_id
from prefect_dask_core.states import State, TriggerFailed

R = TypeVar("R")

_LOGGER: Final = logging.getLogger(__name__)


class Handle:
    """A node of a session, shared by all futures of it.

    When the last of them is gone, the session is told that nobody asks any more.

    Parameters
    ----------
    session : Session
        Where it runs.
    node : int
        Its number.
    name : str
        Name of the run.
    id_base : str
        Hexadecimal id that the ids of the runs are worked out from.
    looked : set of int
        Nodes of the session that somebody has asked how they ended.
    parents : mapping of int to tuple of int
        By node of the session, the nodes it reads or comes after.
    """

    __slots__ = ("id_base", "looked", "name", "node", "parents", "session")

    def __init__(
        self,
        session: Session,
        node: int,
        name: str,
        id_base: str,
        looked: set[int],
        parents: Mapping[int, tuple[int, ...]],
    ) -> None:
        self.session = session
        self.node = node
        self.name = name
        self.id_base = id_base
        self.looked = looked
        self.parents = parents

    def error(self, state: State, index: int | None = None) -> BaseException:
        """What made the run, or a child of it, end in a state that is no success."""
        name = self.name if index is None else f"{self.name}[{index}]"
        return error_of(
            self.session, self.parents, self.looked, self.node, index, name, state
        )

    def note(self, found: State) -> State:
        """Take down that somebody was told how it ended, if it has."""
        if has_ended(found):
            self.looked.add(self.node)
        return found

    def __del__(self) -> None:
        self.session.drop(self.node)


class PrefectFuture(Generic[R]):
    """A run that was submitted: of a task, or of one child of a mapped task.

    It can be given to other tasks, alone or inside of lists, dicts and the like: these
    wait for it, and get its value. In an async function ``await future`` gives the
    value.

    Examples
    --------
    >>> from prefect_dask_core import SequentialTaskRunner, flow, task
    >>> @task
    ... def double(x):
    ...     return 2 * x
    >>> @flow(task_runner=SequentialTaskRunner())
    ... def twice():
    ...     future = double.submit(double.submit(2))
    ...     return future.name, future.state, future.result()
    >>> twice()
    ('double-1', Completed(), 8)
    """

    __slots__ = ("_handle", "_index")

    def __init__(self, handle: Handle, index: int | None = None) -> None:
        self._handle = handle
        self._index = index

    @property
    def name(self) -> str:
        """Name of the run, such as ``"load-3"``; that of a child is ``"load-3[7]"``."""
        name = self._handle.name
        return name if self._index is None else f"{name}[{self._index}]"

    @property
    def task_run_id(self) -> uuid.UUID:
        """Id of the run."""
        return task_run_id(self._handle.id_base, self._handle.name, self._index)

    @property
    def state(self) -> State:
        """State of the run at this moment."""
        handle = self._handle
        if self._index is None:
            found = handle.session.state(handle.node)
        else:
            found = handle.session.child_state(handle.node, self._index)
        return handle.note(found)

    def get_state(self) -> State:
        """State of the run at this moment."""
        return self.state

    def done(self) -> bool:
        """Whether the run has ended."""
        return self.wait_until(0.0)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the run has ended, at most some seconds; never raises its error.

        Parameters
        ----------
        timeout : float, optional
            Seconds.
        """
        self.wait_until(_end_of(timeout))

    def wait_until(self, end: float | None) -> bool:
        """Wait until a moment of `time.monotonic`; whether the run has ended."""
        handle = self._handle
        if self._index is None:
            return handle.session.wait([handle.node], _left(end))
        return handle.session.wait_child(handle.node, self._index, _left(end))

    def result(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> Any:
        """Value of the run, waited for.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.
        raise_on_failure : bool
            Whether the exception of a run that did not succeed is raised or returned.

        Raises
        ------
        TimeoutError
            If the run has not ended in time.
        Exception
            What made the run fail.
        """
        if not self.wait_until(_end_of(timeout)):
            raise TimeoutError(f"{self.name} has not ended within {timeout} seconds.")
        found = self.state
        if isinstance(found, TriggerFailed):
            error = self._handle.error(found, self._index)
            if raise_on_failure:
                raise error
            return error
        if not found.is_successful() or found.is_skipped():
            return found.result(raise_on_failure)
        return self._handle.session.value(self._handle.node, self._index)

    def add_done_callback(self, fn: Callable[[PrefectFuture[R]], object]) -> None:
        """Call a function with this future once the run has ended; at once if it has.

        It is called in a thread of the runner's, with the context variables of now, and
        what it raises is logged.
        """
        if self.done():
            _call_back(fn, self)
            return
        around = contextvars.copy_context()
        self.on_end(partial(around.run, _call_back, fn, self))

    def on_end(self, tell: Callable[[], None]) -> None:
        """Call once the run has ended, in whatever thread hears of it."""
        handle = self._handle
        if self._index is None:
            handle.session.on_final(handle.node, tell)
        else:
            handle.session.on_child_final(handle.node, self._index, tell)

    def __await__(self) -> Generator[Any, None, R]:
        return self._awaited().__await__()

    async def _awaited(self) -> R:
        await until_done(self)
        found: R = await asyncio.to_thread(self.result)
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrefectFuture) and _place(self) == _place(other)

    def __hash__(self) -> int:
        return hash(_place(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name}>"

    def _repr_html_(self) -> str:
        found = self.state
        below = "" if found.is_mapped() else found._repr_html_()
        if isinstance(found.states, Children):
            below = found.states._repr_html_()
        return titled_html(self.name, below)

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} cannot be pickled: a future belongs to the flow run that it was "
            "made in. Give it to .submit or .map as an argument, which waits for its "
            "value, or send .result()."
        )


class FutureList(Sequence[PrefectFuture[R]], Generic[R]):
    """Futures in a row: of the children of a mapped run, or of any runs.

    Notes
    -----
    The number of children may be unknown until what they are mapped over has ended:
    ``len``, an index and a loop wait for that, not for the children. Nothing but
    `result` fetches a value.

    Examples
    --------
    >>> from prefect_dask_core import SequentialTaskRunner, flow, task
    >>> @task
    ... def double(x):
    ...     return 2 * x
    >>> @flow(task_runner=SequentialTaskRunner())
    ... def doubled():
    ...     futures = double.map([1, 2, 3])
    ...     return len(futures), futures[-1].result(), futures[:2].result()
    >>> doubled()
    (3, 6, [2, 4])
    """

    __slots__ = ("_futures", "_handle", "_length")

    def __init__(
        self, futures: Iterable[PrefectFuture[R]] = (), handle: Handle | None = None
    ) -> None:
        self._handle = handle
        self._futures = None if handle is not None else list(futures)
        self._length: int | None = None

    def __len__(self) -> int:
        if self._futures is not None:
            return len(self._futures)
        if self._length is None:
            self._length = self._count()
        return self._length

    def _count(self) -> int:
        """Number of children, waited for."""
        handle = self._handle
        assert handle is not None
        handle.session.wait_child(handle.node, None)
        found = handle.session.child_count(handle.node)
        if found is not None:
            return found
        # It ended without children, for a reason that its state tells.
        ended = handle.note(handle.session.state(handle.node))
        if not ended.is_successful():
            raise handle.error(ended)
        return 0

    @overload
    def __getitem__(self, index: int) -> PrefectFuture[R]: ...

    @overload
    def __getitem__(self, index: slice) -> FutureList[R]: ...

    def __getitem__(self, index: int | slice) -> PrefectFuture[R] | FutureList[R]:
        if isinstance(index, slice):
            return FutureList(self[i] for i in range(*index.indices(len(self))))
        try:
            index = operator.index(index)
        except TypeError:
            raise TypeError(
                f"{self!r} is read by an int or a slice, not by {index!r}; its values "
                "are those of .result()."
            ) from None
        if self._futures is not None:
            return self._futures[index]
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"future {index} of {self!r}, which has {length}.")
        assert self._handle is not None
        return PrefectFuture(self._handle, index % length)

    def __iter__(self) -> Iterator[PrefectFuture[R]]:
        return (self[index] for index in range(len(self)))

    def __add__(self, other: Iterable[PrefectFuture[R]]) -> FutureList[R]:
        if not isinstance(other, FutureList | list | tuple):
            return NotImplemented
        return FutureList([*self, *other])

    @property
    def state(self) -> State:
        """State of the mapped run, with those of its children; made when looked at."""
        handle = self._handle
        if handle is None:
            raise AttributeError("futures of several runs have no common state.")
        found = handle.session.state(handle.node)
        return handle.note(found)

    def is_single(self) -> bool:
        """Whether these are the children of one mapped run."""
        return self._handle is not None

    @property
    def states(self) -> Sequence[State]:
        """State of each at this moment."""
        if self._handle is not None:
            found = self.state.states
            if isinstance(found, Sequence):
                return found
        return [future.state for future in self]

    def progress(self) -> dict[str, int]:
        """How many are in a state of which name; fetches no value.

        Examples
        --------
        >>> FutureList([]).progress()
        {}
        """
        found = self.states
        if isinstance(found, Children):
            return found.counts()
        return dict(collections.Counter(type(state).__name__ for state in found))

    def done(self) -> bool:
        """Whether all have ended."""
        return self.wait_until(0.0)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all have ended, at most some seconds; never raises their errors.

        Parameters
        ----------
        timeout : float, optional
            Seconds.
        """
        self.wait_until(_end_of(timeout))

    def wait_until(self, end: float | None) -> bool:
        """Wait until a moment of `time.monotonic`; whether all have ended."""
        if self._handle is not None:
            return self._handle.session.wait([self._handle.node], _left(end))
        assert self._futures is not None
        return _wait_all(self._futures, end)

    def result(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> list[Any]:
        """Values of all, in order, waited for.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.
        raise_on_failure : bool
            Whether the exception of the first that did not succeed is raised; else it
            stands in the place of its value.

        Raises
        ------
        TimeoutError
            If they have not all ended in time.
        """
        if timeout is not None and timeout < 0:
            raise OptionValueError(f"timeout={timeout!r}, but it cannot be negative.")
        if not self.wait_until(_end_of(timeout)):
            raise TimeoutError(f"{self!r}: not all ended within {timeout} seconds.")
        if self._futures is not None:
            return [f.result(raise_on_failure=raise_on_failure) for f in self._futures]
        handle = self._handle
        assert handle is not None
        found = handle.note(handle.session.state(handle.node))
        if not found.is_mapped():
            if not found.is_successful():
                raise handle.error(found)  # it has no children, and says why
            return []
        if raise_on_failure:
            for index, child in enumerate(found.states or ()):
                if not child.is_successful():
                    raise handle.error(child, index)
        values: list[Any] = handle.session.value(handle.node)
        return values

    def __await__(self) -> Generator[Any, None, list[R]]:
        return self._awaited().__await__()

    async def _awaited(self) -> list[R]:
        if self._handle is not None:
            await until_done(PrefectFuture(self._handle))
        for future in self._futures or ():
            await until_done(future)
        return await asyncio.to_thread(self.result)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FutureList) and self._handle is not None:
            return self._handle is other._handle
        if isinstance(other, FutureList | list):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self._handle is not None:
            return f"<FutureList: children of {self._handle.name}>"
        return f"<FutureList: {len(self)} futures>"

    def _repr_html_(self) -> str:
        # The number of children may be unknown, and a display does not wait for it.
        if self._handle is not None and self.state.states is None:
            return titled_html(self._handle.name, self.state._repr_html_())
        title = f"{len(self)} futures" if self._handle is None else self._handle.name
        return titled_html(title, f"<div>{counts_html(self.progress())}</div>")

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} cannot be pickled: futures belong to the flow run that they "
            "were made in. Give them to .submit or .map as an argument, or send "
            ".result()."
        )


#: Another word for `FutureList`.
PrefectFutureList = FutureList


def has_ended(state: State) -> bool:
    """Whether a run will do nothing more by itself: it ended, or it is paused.

    Examples
    --------
    >>> from prefect_dask_core.states import Completed, Paused, Pending
    >>> has_ended(Completed()), has_ended(Paused()), has_ended(Pending())
    (True, True, False)
    """
    waits = state.is_pending() and state.name == "WaitingForUpstream"
    return state.is_final() or state.is_paused() or waits


def node_of(future: PrefectFuture[Any] | FutureList[Any]) -> Handle | None:
    """Node that a future or a mapped list stands for as a whole, if it does."""
    if isinstance(future, FutureList):
        return future._handle
    return future._handle if future._index is None else None


def child_of(future: PrefectFuture[Any]) -> tuple[Handle, int | None]:
    """Node of a future, and the index of its child."""
    return future._handle, future._index


def _place(future: PrefectFuture[Any]) -> tuple[int, int, int | None]:
    handle = future._handle
    return id(handle.session), handle.node, future._index


def _end_of(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


def _wait_all(futures: Iterable[PrefectFuture[Any]], end: float | None) -> bool:
    """Wait for many, each session asked once for all of its nodes."""
    sessions: dict[int, tuple[Session, set[int]]] = {}
    children = []
    for future in futures:
        handle, index = child_of(future)
        if index is not None:
            children.append(future)
            continue
        kept = sessions.setdefault(id(handle.session), (handle.session, set()))
        kept[1].add(handle.node)
    ended = [session.wait(nodes, _left(end)) for session, nodes in sessions.values()]
    return all(ended) and all(future.wait_until(end) for future in children)


async def until_done(future: PrefectFuture[Any]) -> None:
    """Wait for the end of a run without holding the event loop."""
    if future.done():
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(ended.set)

    future.on_end(tell)
    await ended.wait()


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
    _wait_all(given, _end_of(timeout))
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
    end = _end_of(timeout)
    waiting = dict.fromkeys(futures)
    ended: queue.SimpleQueue[PrefectFuture[R]] = queue.SimpleQueue()
    for future in waiting:
        future.on_end(partial(ended.put, future))
    while waiting:
        try:
            future = ended.get(timeout=_left(end))
        except queue.Empty:
            raise TimeoutError(
                f"{len(waiting)} of the runs have not ended within {timeout} seconds."
            ) from None
        if future in waiting:
            del waiting[future]
            yield future


def _call_back(fn: Callable[[Any], object], future: PrefectFuture[Any]) -> None:
    """Call a function of the user's; its mistakes are no mistake of the run."""
    try:
        fn(future)
    except Exception:
        _LOGGER.exception("the done callback %r of %r raised", fn, future)


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
