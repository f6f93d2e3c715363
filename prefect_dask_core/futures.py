"""Futures: handles of the runs that a function flow has submitted."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from typing import Any, Final, Generic, TypeVar

from prefect_dask_core.causes import error_of, first_above, name_of
from prefect_dask_core.displays import titled_html
from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.session import Session
from prefect_dask_core.run_ids import task_run_id
from prefect_dask_core.runners.own_threads import in_own_thread
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

    def told_above(self, index: int | None = None) -> str:
        """What made the run not start, as the end of a message."""
        found = first_above(self.session, self.parents, self.looked, self.node, index)
        return "" if found is None else found.told(name_of(self.session, found.node))

    def note(self, found: State) -> State:
        """Take down that somebody was told how it ended, if it has."""
        if has_ended(found):
            self.looked.add(self.node)
        return found

    def __del__(self) -> None:
        self.session.drop(self.node)


class Awaitable:
    """What has an end that can be waited for: one run, or several."""

    __slots__ = ()

    def wait_until(self, end: float | None) -> bool:
        """Wait until a moment of `time.monotonic`; whether the end has come."""
        raise NotImplementedError

    def done(self) -> bool:
        """Whether it has ended; of several runs, whether all have."""
        return self.wait_until(0.0)

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end, at most some seconds; never raises the error of a run.

        Parameters
        ----------
        timeout : float, optional
            Seconds.
        """
        self.wait_until(end_of(timeout))


class PrefectFuture(Awaitable, Generic[R]):
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

    def wait_until(self, end: float | None) -> bool:
        """Wait until a moment of `time.monotonic`; whether the run has ended."""
        handle = self._handle
        if self._index is None:
            return handle.session.wait([handle.node], left_until(end))
        return handle.session.wait_child(handle.node, self._index, left_until(end))

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
        if not self.wait_until(end_of(timeout)):
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
        found: R = await in_own_thread(self.result)
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


def child_of(future: PrefectFuture[Any]) -> tuple[Handle, int | None]:
    """Node of a future, and the index of its child."""
    return future._handle, future._index


def _place(future: PrefectFuture[Any]) -> tuple[int, int, int | None]:
    handle = future._handle
    return id(handle.session), handle.node, future._index


def end_of(timeout: float | None) -> float | None:
    """Moment of `time.monotonic` until which to wait; `None` without a limit."""
    return None if timeout is None else time.monotonic() + timeout


def left_until(end: float | None) -> float | None:
    """Seconds that are left until a moment; `None` without a limit."""
    return None if end is None else max(0.0, end - time.monotonic())


def wait_all(futures: Iterable[PrefectFuture[Any]], end: float | None) -> bool:
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
    ended = [
        session.wait(nodes, left_until(end)) for session, nodes in sessions.values()
    ]
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


def _call_back(fn: Callable[[Any], object], future: PrefectFuture[Any]) -> None:
    """Call a function of the user's; its mistakes are no mistake of the run."""
    try:
        fn(future)
    except Exception:
        _LOGGER.exception("the done callback %r of %r raised", fn, future)
