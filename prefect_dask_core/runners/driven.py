"""Driven sessions: a running function flow on a runner that has a driver.

The driver runs in a thread of its own, so a flow's code goes on while its tasks run.
What the code asks (states, ends, values) is answered from what the driver knows.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from prefect_dask_core.engine.events import Added, Closed, Dropped, Event, StopAsked
from prefect_dask_core.engine.growing import GrowingDriver
from prefect_dask_core.engine.plan import Node
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.session import Request
from prefect_dask_core.engine.views import DriverLook, Look
from prefect_dask_core.errors import InternalError
from prefect_dask_core.results.keeping import KEEPING
from prefect_dask_core.results.locks import LOCKED
from prefect_dask_core.results.places import KEPT_UNDER
from prefect_dask_core.runners._private import outside_the_pool
from prefect_dask_core.states import Cancelled, Crashed, Pending, Running, State
from prefect_dask_core.tasks import Task


class Engine(Protocol):
    """Carries out what a driver says; one per session."""

    def post(self, event: Event) -> None:
        """Hand an event to the driver's thread; from any thread, without waiting."""

    def hurry(self) -> None:
        """Take in what was posted now: somebody waits."""

    def drive(self, told: Callable[[], None]) -> None:
        """Feed events until the driver has finished; call `told` after each."""

    def prepare(self, task: Task[..., Any]) -> None:
        """Look at a task before it is added; raises if it can never run."""

    def value(self, node: int, index: int | None) -> Any:
        """Value of a final node that completed, or of a child."""

    def close(self, outcome: State | None) -> None:
        """Clean up once the driver has finished; values that are kept stay readable.

        Parameters
        ----------
        outcome : State or None
            How the flow ended, as far as that is known.
        """


class DrivenSession:
    """A function flow on a driver; see `engine.session.Session`.

    Parameters
    ----------
    run_id : str
        Id of the flow run.
    driver : GrowingDriver
        Its driver.
    engine : Engine
        Carries its commands out.
    """

    def __init__(self, run_id: str, driver: GrowingDriver, engine: Engine) -> None:
        self.run_id = run_id
        self.outcome: State | None = None
        self._driver = driver
        self._engine = engine
        self._lock = threading.RLock()
        self._ended = threading.Condition(self._lock)
        self._final: set[int] = set()
        self._calls: dict[int, list[Callable[[], None]]] = {}
        self._watched: dict[int, _Watched] = {}
        self._watching = 0
        self._callbacks = _Callbacks()
        self._tasks: list[Node] = []
        self._failure: BaseException | None = None
        self._reason: str | None = None
        self._ended_at: float | None = None
        self._closed = False
        self._thread = threading.Thread(
            target=self._run, daemon=True, name="prefect-dask-core-session"
        )
        self._thread.start()

    # -- the driver's thread ----------------------------------------------------------

    def _run(self) -> None:
        try:
            self._engine.drive(self._take_ended)
        except BaseException as error:
            self._failure = error
            # A driver that failed may fail again, and somebody waits for this thread.
            with contextlib.suppress(Exception):
                self._driver.handle(StopAsked(_told(error), True))
            self._driver.finished = True
        self._take_ended()
        with self._ended:
            self._ended_at = time.time()
            # Nodes that were added after the end, and that the driver never heard of.
            self._final.update(range(len(self._tasks)))
            self._ended.notify_all()
        self._call_back(list(self._calls))

    def _take_ended(self) -> None:
        ended = self._driver.take_ended()
        if not (ended or self._watching or self._watched):
            return
        with self._ended:
            self._final.update(ended)
            # Before anybody wakes: who closes the session waits for what was called.
            self._call_back(ended)
            self._ended.notify_all()

    def _call_back(self, nodes: Sequence[int]) -> None:
        calls = []
        with self._lock:
            for node in list(self._watched):
                calls += self._calls_of_children(node)
            for node in nodes:
                calls += self._calls.pop(node, ())
        if calls:
            self._callbacks.call(calls)

    def _calls_of_children(self, node: int) -> list[Callable[[], None]]:
        """What has to be called because children have ended since the last time."""
        watched = self._watched[node]
        if node in self._final:
            del self._watched[node]
            return [call for calls in watched.calls.values() for call in calls]
        found = self._driver.children(node)
        ready = [] if found is None else watched.take(found.segments)
        if not watched.calls:
            del self._watched[node]
        return ready

    # -- what the code of the flow asks ----------------------------------------------

    def look(self) -> Look:
        """What is known of the nodes, for any thread to read."""
        return DriverLook(self._driver)

    def add(self, request: Request) -> int:
        """Add a node and return its number."""
        with self._lock:
            self._engine.prepare(request.task)
            node = self._node(request)
            if self._driver.finished or self._reason is not None:
                self._final.add(node.index)
            else:
                self._engine.post(Added((node,)))
            return node.index

    def _node(self, request: Request) -> Node:
        number = len(self._tasks)
        node = Node(
            number,
            request.name,
            request.task,
            request.task.identity,
            request.inputs,
            request.mapped,
            constant=False,
            variables=request.variables,
            tolerated=request.tolerated,
            annotations=request.annotations,
        )
        self._tasks.append(node)
        return node

    def state(self, node: int) -> State:
        """State of a node at this moment."""
        if node in self._final:
            return self._final_state(node)
        found = self._driver.children(node)
        return Pending() if found is None else Running(states=found)

    def _final_state(self, node: int) -> State:
        if node < len(self._driver.plan.nodes):
            found = self._driver.state(node)
            if found.is_final() or self._failure is None:
                return found
        if self._failure is not None:
            told = _told(self._failure)
            return Crashed(told, data=self._failure, timestamp=self._ended_at)
        reason = self._reason or "the run had ended."
        return Cancelled(reason, timestamp=self._ended_at)

    def child_count(self, node: int) -> int | None:
        """Number of children; `None` while it is not known, or if there are none."""
        found = self._driver.children(node)
        return None if found is None else len(found)

    def child_state(self, node: int, index: int) -> State:
        """State of a child at this moment."""
        found = self._driver.children(node)
        return Pending() if found is None else found[index]

    def wait(self, nodes: Collection[int], timeout: float | None = None) -> bool:
        """Wait until all of some nodes are final; whether they are."""
        todo = set(nodes)
        if todo <= self._final:
            return True
        if timeout is not None and timeout <= 0:
            return False
        self._engine.hurry()
        with outside_the_pool(), self._ended:
            return self._ended.wait_for(lambda: todo <= self._final, timeout)

    def wait_child(
        self, node: int, index: int | None, timeout: float | None = None
    ) -> bool:
        """Wait until a child has ended; `None`: until there are children."""
        if self._knows(node, index):
            return True
        if timeout is not None and timeout <= 0:
            return False
        self._engine.hurry()
        with outside_the_pool(), self._ended:
            self._watching += 1
            try:
                return self._ended.wait_for(lambda: self._knows(node, index), timeout)
            finally:
                self._watching -= 1

    def _knows(self, node: int, index: int | None) -> bool:
        """Whether a child has ended, or the number of children is known."""
        if node in self._final:
            return True
        found = self._driver.children(node)
        if found is None or index is None:
            return found is not None
        return found.locate(index) is not None

    def on_child_final(self, node: int, index: int, call: Callable[[], None]) -> None:
        """Call once a child has ended; at once if it has."""
        with self._lock:
            if not self._knows(node, index):
                watched = self._watched.setdefault(node, _Watched())
                watched.calls.setdefault(index, []).append(call)
                return
        call()

    def on_final(self, node: int, call: Callable[[], None]) -> None:
        """Call once a node is final; at once if it is."""
        with self._lock:
            if node not in self._final:
                self._calls.setdefault(node, []).append(call)
                return
        call()

    def value(self, node: int, index: int | None = None) -> Any:
        """Value of a final node, or of one child."""
        state = self.state(node) if index is None else self.child_state(node, index)
        if not state.is_successful():
            return state.result()
        return self._engine.value(node, index)

    def drop(self, node: int) -> None:
        """Say that nobody holds the future of a node any more; waits for no lock."""
        if not self._closed:
            self._engine.post(Dropped((node,)))

    def cancel(self, reason: str) -> None:
        """Start nothing more; unfinished runs end as `Cancelled`."""
        with self._lock:
            self._reason = reason
        self._engine.post(StopAsked(reason))
        self._engine.hurry()

    def close(self) -> Sequence[State]:
        """Wait for everything that was added; one state per node."""
        if not self._closed:
            self._close()
        if isinstance(self._failure, InternalError):
            raise self._failure
        return [self.state(node) for node in range(len(self._tasks))]

    def _close(self) -> None:
        try:
            with outside_the_pool():
                self._wait_for_callbacks()
                self._engine.post(Closed())
                self._engine.hurry()
                self._thread.join()
                self._callbacks.close()
        except KeyboardInterrupt:
            self.cancel("interrupted from the keyboard.")
            self._thread.join()
            self._callbacks.close()
            raise
        finally:
            self._closed = True
            with contextlib.suppress(Exception):
                self._engine.close(self.outcome)

    def _wait_for_callbacks(self) -> None:
        """Wait for what was called at the end of runs, which may add others."""
        known = -1
        while len(self._tasks) > known and (
            self._calls or self._watched or self._callbacks.were_used
        ):
            known = len(self._tasks)
            self.wait(range(known))
            self._callbacks.wait()


class _Watched:
    """Children of one node that somebody waits for the end of."""

    def __init__(self) -> None:
        self.calls: dict[int, list[Callable[[], None]]] = {}
        self._seen: set[int] = set()

    def take(self, segments: Sequence[Segment]) -> list[Callable[[], None]]:
        """Calls of the children in segments that are new."""
        if len(segments) == len(self._seen):
            return []
        ready: list[Callable[[], None]] = []
        for segment in list(segments):
            if segment.start in self._seen:
                continue
            self._seen.add(segment.start)
            for index in range(segment.start, segment.stop):
                ready += self.calls.pop(index, ())
        return ready


class _Callbacks:
    """Calls what wants to know of ends, in a thread of its own, one by one.

    Not in the driver's thread: what is called may wait for other runs.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Sequence[Callable[[], None]]] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def call(self, calls: Sequence[Callable[[], None]]) -> None:
        """Call some functions, which raise nothing."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, daemon=True, name="prefect-dask-core-callbacks"
            )
            self._thread.start()
        self._queue.put(calls)

    @property
    def were_used(self) -> bool:
        """Whether there is anything to wait for."""
        return self._thread is not None

    def wait(self) -> None:
        """Wait until what is there now was called."""
        if self._thread is not None and self._thread is not threading.current_thread():
            called = threading.Event()
            self._queue.put([called.set])
            called.wait()

    def _run(self) -> None:
        while calls := self._queue.get():
            for call in calls:
                # Nobody may be left to listen, such as a loop that is closed.
                with contextlib.suppress(Exception):
                    call()

    def close(self) -> None:
        """Wait until all were called."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(())
            thread.join()


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


#: Context variables with a name of ours that runs elsewhere need.
_TRAVELS: Final = frozenset({"_id_base", KEEPING, KEPT_UNDER, LOCKED})


def of_the_session(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Context variables that travel: not those of this process's own making."""
    return {
        key: value
        for key, value in variables.items()
        if not key.startswith("_") or key in _TRAVELS
    }
