"""Watching: who wants to know how a run goes is told so, by a thread beside the run.

The thread looks a few times a second at what the runner knows anyway, and hands on what
is new. So watching adds nothing to the work of the driver, and a watcher that is slow
or that fails delays and harms no task.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Protocol

from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.views import NodeView, RunView
from prefect_dask_core.monitor.watched_run import WatchedRun
from prefect_dask_core.states import Cancelled, Crashed, State

_LOGGER: Final = logging.getLogger(__name__)

#: Seconds between two looks, at least.
LOOK_EVERY: Final = 0.25
#: Seconds until the first one: of a short run little is left to do at its end then.
FIRST_LOOK: Final = 0.1
#: Seconds that the run is left alone at its begin. A thread that begins at once to work
#: keeps the interpreter from the one that has started it.
HEAD_START: Final = 0.005
#: Seconds that a fork or the end of the interpreter waits for what is being closed.
MOST_PATIENCE: Final = 10.0
#: A look that took long is followed by a rest of so many times its work, but of no more
#: than so many seconds: the first one may import what draws the rows.
REST: Final = 50.0
MOST_REST: Final = 2.0


def rest_after(work: float) -> float:
    """Seconds between a look and the next.

    Parameters
    ----------
    work : float
        Seconds of processor time that the look took.

    Examples
    --------
    >>> rest_after(0.001), rest_after(0.01), rest_after(1.0)
    (0.25, 0.5, 2.0)
    """
    return min(max(LOOK_EVERY, REST * work), MOST_REST)


class News(NamedTuple):
    """What was not there at the last look.

    Parameters
    ----------
    nodes : sequence of NodeView
        Nodes that were added.
    fan_outs : sequence of int
        Numbers of nodes whose number of children is known now.
    segments : sequence of (int, Segment)
        What has ended: number of the node and states of consecutive children of it, or
        of the node itself. Nothing is told twice.
    are_last : bool
        Whether the run has ended, so that nothing more will come.
    """

    nodes: Sequence[NodeView]
    fan_outs: Sequence[int]
    segments: Sequence[tuple[int, Segment]]
    are_last: bool = False


class Watcher(Protocol):
    """Wants to know how one run goes. All calls come from one thread, in order."""

    def began(self, view: RunView) -> None:
        """Take in that the run has begun; it has no nodes yet."""

    def advanced(self, view: RunView, news: News) -> None:
        """Take in what is new, a few times a second; also if nothing is.

        The last call comes after the last task has ended and before `ended`, so all
        news together are all that happened.
        """

    def ended(self, view: RunView, state: State) -> None:
        """Take in how the run ended.

        Parameters
        ----------
        view : RunView
            The run.
        state : State
            Its final state; that of a run that was interrupted is `Cancelled`.
        """

    def close(self) -> None:
        """Give back what it has opened; nobody waits for that."""


#: Gives a watcher of a run that is about to begin, or `None`.
Maker = Callable[[RunView], "Watcher | None"]


class Novelties:
    """Tells what is new in a view, each thing once.

    Parameters
    ----------
    view : RunView
        The run.
    """

    def __init__(self, view: RunView) -> None:
        self._view = view
        self._nodes = 0
        self._plain: list[int] = []
        self._fan_outs: dict[int, set[int]] = {}

    def take(self) -> News:
        """What was not there the last time."""
        view = self._view
        view.refresh()
        nodes = view.nodes[self._nodes :]
        self._nodes += len(nodes)
        segments = [
            (index, segment)
            for index in view.plain(self._plain)
            for segment in view.segments(index)
        ]
        expanded = []
        for index in view.fan_outs():
            seen = self._fan_outs.get(index)
            if seen is None:
                expanded.append(index)
                seen = self._fan_outs[index] = set()
            segments += self._segments(index, seen)
        return News(nodes, expanded, segments)

    def _segments(self, index: int, seen: set[int]) -> list[tuple[int, Segment]]:
        """Segments of a fan-out that came since; a segment is told by its start."""
        found = self._view.segments(index)
        if len(found) == len(seen):
            return []
        # Copied first: the driver's thread adds to it.
        fresh = [segment for segment in list(found) if segment.start not in seen]
        seen.update(segment.start for segment in fresh)
        return [(index, segment) for segment in fresh]


class Watch:
    """Follows one run, in a thread of its own if there is anybody to tell.

    Parameters
    ----------
    view : WatchedRun
        The run.
    makers : iterable of callable
        Each gives a watcher, or `None`.

    Notes
    -----
    A context manager around the run; `ended` says how it ended, and waits until all
    watchers know. Left by an exception, the run counts as interrupted.
    """

    def __init__(self, view: WatchedRun, makers: Iterable[Maker] = ()) -> None:
        self.view = view
        self._watchers = [w for w in (_made(make, view) for make in makers) if w]
        self._to_close = list(self._watchers)
        self._novelties = Novelties(view)
        self._over = threading.Event()
        self._told = threading.Event()
        self._end: State | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.broken(error)
        self.close()

    def begin(self) -> None:
        """Begin to look, and to keep what is logged."""
        self.view.log.open()
        if self._watchers:
            _wait_before_leaving()
            self._thread = threading.Thread(
                target=self._run, daemon=True, name="prefect-dask-core-watch"
            )
            self._thread.start()

    def ended(self, state: State) -> None:
        """Tell how the run ended, once; waits until all watchers know."""
        if self._end is not None:
            return
        self._end = state
        self._over.set()
        # Not alive and not told: in a child that a body has forked off.
        while self._thread is not None and self._thread.is_alive():
            if self._told.wait(LOOK_EVERY):
                break
        self.view.settle(state, time.time())

    def close(self) -> None:
        """Keep no more of what is logged: hooks, too, have been called."""
        self.view.log.close()

    def broken(self, error: BaseException) -> None:
        """Tell that the run was left by an exception."""
        told = f"{type(error).__name__}: {error}"
        kind = Crashed if isinstance(error, Exception) else Cancelled
        self.ended(kind(told, data=error, timestamp=time.time()))

    # -- in the thread ---------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._follow()
        finally:
            with _closing(threading.current_thread()):
                self._told.set()
                for watcher in self._to_close:
                    _close(watcher)

    def _follow(self) -> None:
        self._over.wait(HEAD_START)
        self._tell(lambda watcher: watcher.began(self.view))
        rest = FIRST_LOOK
        while not self._over.wait(rest):
            before = time.thread_time()
            self._look()
            rest = rest_after(time.thread_time() - before)
        self._look(are_last=True)
        end = self._end
        assert end is not None
        self._tell(lambda watcher: watcher.ended(self.view, end))

    def _look(self, are_last: bool = False) -> None:
        news = self._novelties.take()._replace(are_last=are_last)
        self._tell(lambda watcher: watcher.advanced(self.view, news))

    def _tell(self, call: Callable[[Watcher], None]) -> None:
        for watcher in list(self._watchers):
            try:
                call(watcher)
            except Exception:
                self._watchers.remove(watcher)
                _LOGGER.exception(
                    "flow run %r goes on, but %r failed and watches it no more",
                    self.view.info.run_name,
                    watcher,
                )


#: Threads whose run has returned and whose watchers are still being closed.
_CLOSING: Final[set[threading.Thread]] = set()


@contextlib.contextmanager
def _closing(thread: threading.Thread) -> Iterator[None]:
    _CLOSING.add(thread)
    try:
        yield
    finally:
        _CLOSING.discard(thread)


@functools.cache
def _wait_before_leaving() -> None:
    """Let neither a fork nor the end of the interpreter come between a closing.

    A child would inherit a lock of SQLite's that nobody gives back, and a file whose
    journal is not moved into it lacks its last runs once it is copied.
    """
    atexit.register(_wait_for_closing)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_wait_for_closing)


def _wait_for_closing() -> None:
    for thread in list(_CLOSING):
        if thread is not threading.current_thread():
            thread.join(MOST_PATIENCE)


def _close(watcher: Watcher) -> None:
    try:
        watcher.close()
    except Exception:
        _LOGGER.exception("%r could not be closed", watcher)


def _made(make: Maker, view: RunView) -> Watcher | None:
    try:
        return make(view)
    except Exception:
        _LOGGER.exception(
            "flow run %r goes on without %r, which failed", view.info.run_name, make
        )
        return None
