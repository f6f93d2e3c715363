"""The thread runner: blocks in the threads of this process."""

from __future__ import annotations

import heapq
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from prefect_dask_core.config import home_bytes
from prefect_dask_core.engine.block import BlockReport
from prefect_dask_core.engine.block_results import BlockResult, StaleInput, result_of
from prefect_dask_core.engine.book import Book
from prefect_dask_core.engine.driver import Driver
from prefect_dask_core.engine.effects import AsyncCalls
from prefect_dask_core.engine.events import (
    Assignment,
    BlockAdvanced,
    BlockDone,
    BlockWaiting,
    Command,
    Event,
    Release,
    Started,
    StopAsked,
    Submit,
    TriedLong,
)
from prefect_dask_core.engine.growing import GrowingDriver
from prefect_dask_core.engine.running import run_block
from prefect_dask_core.engine.views import DriverLook
from prefect_dask_core.errors import InternalError, OptionTypeError
from prefect_dask_core.runners.base import A_MOMENT, FlowRun, NamedRunner, Trial
from prefect_dask_core.runners.coroutines import Coroutines
from prefect_dask_core.runners.driven import DrivenSession
from prefect_dask_core.runners.home import trim
from prefect_dask_core.runners.logs import COLLECTOR
from prefect_dask_core.runners.shell import ThreadShell
from prefect_dask_core.states import State
from prefect_dask_core.tasks import Task


class ThreadPoolTaskRunner(NamedRunner):
    """Runs tasks in threads of this process.

    Parameters
    ----------
    max_workers : int, optional
        Bodies that run at a time; the number of CPUs unless given.

    Raises
    ------
    OptionTypeError
        If `max_workers` is no int; also a `TypeError`.
    ValueError
        If `max_workers` is less than 1.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        is_int = isinstance(max_workers, int) and not isinstance(max_workers, bool)
        if max_workers is not None and not is_int:
            raise OptionTypeError(
                f"max_workers={max_workers!r}, but expected an int, the number of "
                "threads, or None for the number of CPUs."
            )
        if max_workers is not None and max_workers < 1:
            raise ValueError(
                f"max_workers={max_workers} leaves no thread to run a task; give 1 "
                "or more, or None for the number of CPUs."
            )
        self.max_workers = max_workers

    def __repr__(self) -> str:
        return f"ThreadPoolTaskRunner(max_workers={self.max_workers})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ThreadPoolTaskRunner)
            and other.max_workers == self.max_workers
        )

    def __hash__(self) -> int:
        return hash((type(self), self.max_workers))

    def __enter__(self) -> ThreadPoolTaskRunner:
        return self

    def __exit__(self, *exception: Any) -> None:
        return None

    def run(self, flow_run: FlowRun) -> Sequence[State]:
        """Run a plan to its end; one state per node."""
        threads = self.max_workers or os.cpu_count() or 1
        driver = Driver(Book(flow_run.plan, flow_run.wanted, flow_run.earlier))
        if flow_run.view is not None:
            flow_run.view.add_look(DriverLook(driver))
        pool = _Pool(threads, flow_run.variables, flow_run.wanted)
        try:
            event: Event = Started(threads)
            while True:
                pool.carry_out(driver.handle(event))
                if driver.finished:
                    break
                event = pool.next_event(driver)
        except KeyboardInterrupt:
            driver.handle(StopAsked("interrupted from the keyboard."))
            raise
        finally:
            pool.close()
        return [driver.state(node.index) for node in flow_run.plan.nodes]

    def session(
        self, name: str, variables: Mapping[str, Any], run_id: str
    ) -> DrivenSession:
        """Begin a function flow, or what a task submits."""
        driver = GrowingDriver(name)
        # What a task submits here runs in threads as well.
        inherited = {**variables, "_task_runner": self}
        threads = self.max_workers or os.cpu_count() or 1
        engine = _PoolSession(threads, driver, inherited)
        return DrivenSession(run_id, driver, engine)


#: Another word for `ThreadPoolTaskRunner`.
ConcurrentTaskRunner = ThreadPoolTaskRunner


class _PoolSession:
    """A function flow in threads; see `driven.Engine`."""

    def __init__(
        self, threads: int, driver: GrowingDriver, variables: Mapping[str, Any]
    ) -> None:
        self._threads = threads
        self._driver = driver
        self._pool = _Pool(threads, variables, None)

    def post(self, event: Event) -> None:
        """Put an event beside those of the blocks."""
        self._pool.post(event)

    def hurry(self) -> None:
        """Nothing is gathered here."""

    def prepare(self, task: Task[..., Any]) -> None:
        """Every task can run here."""

    def drive(self, told: Callable[[], None]) -> None:
        """Feed events until the driver has finished."""
        event: Event = Started(self._threads)
        while True:
            self._pool.carry_out(self._driver.handle(event))
            told()
            if self._driver.finished:
                return
            event = self._pool.next_event(self._driver)

    def value(self, node: int, index: int | None) -> Any:
        """Value of a node, or of one child."""
        if index is None:
            return self._driver.state(node).result()
        children = self._driver.children(node)
        assert children is not None
        return children[index].result()

    def close(self, outcome: State | None = None) -> None:
        """Start nothing more."""
        self._pool.close()


class _Pool:
    """Runs blocks as soon as what they read is there and a thread is free."""

    def __init__(
        self,
        threads: int,
        variables: Mapping[str, Any],
        wanted: frozenset[int] | None,
    ) -> None:
        self._free = threads
        self._due = 0  # threads whose wait is over, and which have no place yet
        self._variables = variables
        # Nodes whose large values are kept; `None` is all of them.
        self._wanted = wanted
        self._limit = home_bytes()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._results: dict[int, BlockResult] = {}
        self._readers: dict[int, list[Assignment]] = {}
        self._missing: dict[int, int] = {}
        self._unread: dict[int, int] = {}
        self._held: set[int] = set()
        self._ready: list[tuple[int, Assignment]] = []
        self._closed = False
        self._trial = Trial()
        # Of the task in which the flow runs, if it does.
        self._collector = COLLECTOR.get()

    def carry_out(self, commands: Sequence[Command]) -> None:
        """Do what the driver says."""
        for command in commands:
            if isinstance(command, Submit):
                self.submit(command)
            elif isinstance(command, Release):
                self.release(command.numbers)

    def post(self, event: Event) -> None:
        """Put an event of the flow's beside those of the blocks."""
        self._events.put(event)

    def submit(self, command: Submit) -> None:
        """Take in blocks; those that can start do."""
        with self._lock:
            self._held |= command.hold
            for assignment in command.assignments:
                number = assignment.block.number
                if assignment.given is not None:
                    self._results[number] = result_of(assignment.given)
                    continue
                missing = 0
                for above in assignment.reads:
                    self._unread[above] = self._unread.get(above, 0) + 1
                    if above not in self._results:
                        missing += 1
                        self._readers.setdefault(above, []).append(assignment)
                if missing:
                    self._missing[number] = missing
                else:
                    heapq.heappush(self._ready, (number, assignment))
            self._start_ready()

    def release(self, numbers: Sequence[int]) -> None:
        """Forget results."""
        with self._lock:
            for number in numbers:
                self._held.discard(number)
                self._forget_if_unread(number)

    def next_event(self, driver: Driver) -> Event:
        """Wait for what happens next."""
        if self._trial.is_long(driver, time.monotonic()):
            return TriedLong()
        try:
            event = self._events.get(timeout=A_MOMENT if driver.is_trying else None)
        except queue.Empty:
            return TriedLong()
        if isinstance(event, BaseException):
            raise InternalError("running a block failed") from event
        return event

    def close(self) -> None:
        """Start nothing more; blocks that run are left to end by themselves."""
        with self._lock:
            self._closed = True
            self._ready.clear()
            self._results.clear()

    # -- with the lock held --------------------------------------------------------

    def _start_ready(self) -> None:
        while self._free > self._due and self._ready and not self._closed:
            _, assignment = heapq.heappop(self._ready)
            self._free -= 1
            thread = threading.Thread(
                target=self._run,
                args=(assignment,),
                daemon=True,
                name=f"prefect-dask-core-{assignment.block.number}",
            )
            thread.start()

    def _forget_if_unread(self, number: int) -> None:
        if number not in self._held and not self._unread.get(number):
            self._results.pop(number, None)

    # -- in the threads ------------------------------------------------------------

    def _run(self, assignment: Assignment) -> None:
        """Run a block, then the next ones that are ready, in one thread."""
        COLLECTOR.set(self._collector)
        while True:
            block = assignment.block
            shell = _PoolShell(self)
            report: BlockReport | None
            try:
                result, report = run_block(
                    block,
                    [self._results[number] for number in assignment.reads],
                    self._variables,
                    shell,
                    partial(self._waiting, block.number),
                    self._advanced,
                )
            except StaleInput:
                # The driver knows, and has submitted it anew.
                result, report = BlockResult({}, {}), None
            except BaseException as error:
                self._events.put(error)
                return
            if shell.has_lent:
                with self._lock:
                    self._free -= 1
            with self._lock:
                following = self._finished(assignment, result, report)
            if following is None:
                return
            assignment = following

    def _finished(
        self, assignment: Assignment, result: BlockResult, report: BlockReport | None
    ) -> Assignment | None:
        number = assignment.block.number
        if self._closed:
            return None
        self._results[number] = result
        for above in assignment.reads:
            self._unread[above] -= 1
            self._forget_if_unread(above)
        for reader in self._readers.pop(number, ()):
            waiting = reader.block.number
            self._missing[waiting] -= 1
            if not self._missing[waiting]:
                heapq.heappush(self._ready, (waiting, reader))
        self._forget_if_unread(number)
        if report is not None:
            self._events.put(BlockDone(self._trimmed(report)))
        if self._ready and not self._due:
            return heapq.heappop(self._ready)[1]
        self._free += 1
        self._room.notify()
        return None

    def _waiting(self, number: int, done: int, busy: float) -> None:
        self._events.put(BlockWaiting(number, done, busy))

    def _advanced(self, report: BlockReport) -> None:
        self._events.put(BlockAdvanced(self._trimmed(report)))

    def _trimmed(self, report: BlockReport) -> BlockReport:
        if self._wanted is None:
            return report
        return trim(report, self._wanted, self._limit)

    def give_away(self) -> None:
        """Let others use this thread's place until its block has ended."""
        with self._lock:
            self._free += 1
            self._start_ready()

    def lend(self, until: float) -> None:
        """Let others use this thread's place until a time."""
        with self._lock:
            self._free += 1
            self._start_ready()
        time.sleep(max(0.0, until - time.time()))
        with self._room:
            # Its time has come: it goes before blocks that have not begun.
            self._due += 1
            while self._free <= 0 and not self._closed:
                self._room.wait()
            self._due -= 1
            self._free -= 1


class _PoolShell(ThreadShell):
    """Lends the thread's place while it waits."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        #: Whether the place is another's until the block has ended.
        self.has_lent = False

    def async_calls(self) -> AsyncCalls:
        """Coroutines side by side; the thread's place is given away meanwhile."""
        return Coroutines(self._give_away, _nothing)

    def _give_away(self) -> None:
        self.has_lent = True
        self._pool.give_away()

    def wait(self, until: float) -> None:
        """Wait, and let other blocks run meanwhile."""
        if self.has_lent:
            super().wait(until)
        else:
            self._pool.lend(until)


def _nothing() -> None:
    """The event loop needs no preparation here."""
