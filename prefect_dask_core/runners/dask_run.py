"""The run of one flow on a Dask cluster: carries out commands and feeds events."""

from __future__ import annotations

import contextlib
import logging
import pickle
import queue
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from dask.highlevelgraph import HighLevelGraph
from dask.typing import Key
from distributed import (
    Client,
    Future,
    KilledWorker,
)

from prefect_dask_core.config import home_bytes
from prefect_dask_core.engine.block import BlockReport
from prefect_dask_core.engine.block_results import StaleInput
from prefect_dask_core.engine.caching import within
from prefect_dask_core.engine.compile import GraphBuilder, RunRecord
from prefect_dask_core.engine.driver import Driver
from prefect_dask_core.engine.elsewhere import Elsewhere
from prefect_dask_core.engine.events import (
    Assignment,
    BlockAdvanced,
    BlockDone,
    BlockLost,
    BlockReached,
    BlockWaiting,
    Command,
    Event,
    Finish,
    Release,
    ReportLost,
    Resized,
    ResultsLost,
    Started,
    StopAsked,
    Submit,
    TriedLong,
)
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.errors import (
    InternalError,
    MissingResult,
)
from prefect_dask_core.results.keeping import KEEPING, FlowKeeping
from prefect_dask_core.runners._private import (
    TOPIC_PREFIX,
    find_blamed,
    find_ended,
    forget_topic,
)
from prefect_dask_core.runners.base import Trial
from prefect_dask_core.runners.blame import error_of, last_worker, reason_of
from prefect_dask_core.runners.dask_graphs import Graphs
from prefect_dask_core.runners.fetching import Fetch
from prefect_dask_core.runners.home import PlainReport
from prefect_dask_core.runners.logs import LOGS
from prefect_dask_core.runners.outbox import (
    ADVANCED,
    BEGAN_WAITING,
    DONE,
    PLAIN,
    REACHED,
)
from prefect_dask_core.runners.payloads import Payloads
from prefect_dask_core.runners.run_logger import Outlet
from prefect_dask_core.runners.spool import left_behind
from prefect_dask_core.runners.stranded import Strandings
from prefect_dask_core.runners.telling import TOLD, Silence, Teller, add_pages
from prefect_dask_core.runners.worker import (
    CannotLoadItems,
    Lost,
    retell,
    run_on_worker,
)
from prefect_dask_core.runners.workforce import Workforce
from prefect_dask_core.states import State
from prefect_dask_core.tasks import Task

_LOGGER: Final = logging.getLogger(__name__)

#: Seconds between two looks at the futures and the size of the cluster.
LOOK_EVERY: Final = 0.5
#: Seconds between two times that reports are taken in.
BREATH: Final = 0.005
#: Seconds without a report after which blocks that have ended are asked for although no
#: worker was seen to leave. A body that holds Python's lock holds reports up, too.
CERTAINLY_LOST = 60.0
#: Most blocks that the scheduler is asked about at a time.
MOST_ASKED: Final = 1_000


class DaskRun:
    """One flow run on a client: carries out commands and feeds events."""

    def __init__(
        self,
        client: Client,
        driver: Driver,
        variables: Mapping[str, Any],
        run_id: str,
        own_client: bool,
    ) -> None:
        self._client = client
        self._own_client = own_client
        self._driver = driver
        self._topic = f"{TOPIC_PREFIX}{run_id}"
        self._outlet = Outlet(variables.get("flow_run_id"))
        record = RunRecord(
            run_id,
            variables,
            self._topic,
            home_bytes(),
            self._outlet.process,
            self._outlet.level,
            watched=add_pages(client),
        )
        self._teller = Silence()
        if record.watched:
            self._teller = Teller(client, self._topic, variables, driver.plan.flow_name)
        self._builder = GraphBuilder(record, run_on_worker)
        self._keeping: FlowKeeping | None = variables.get(KEEPING)
        self._graphs = Graphs(self._builder, self._topic, driver.plan.flow_name)
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._futures: dict[int, Future[Any]] = {}
        self._number_of: dict[Any, int] = {}
        self._payloads = Payloads()
        self._strandings = Strandings()
        self._looked = 0.0
        self._drained = 0.0
        # Whether no report came since the last look; blocks that had then ended.
        self._is_quiet = False
        self._quiet_since = time.monotonic()
        self._workforce = Workforce(client)
        self._trial = Trial()
        self._silent: set[int] = set()
        # For each block one of its graph whose future is held: there always is one, as
        # something in a graph is read by nothing in it.
        self._witness: dict[int, int] = {}

    def run(self) -> Sequence[State]:
        """Run to the end; whatever happens, nothing stays on the scheduler."""
        self._preflight()
        self._client.subscribe_topic(self._topic, self._messages.put)
        try:
            self._teller.began(self._driver)
            self._feed(Started(self._workforce.threads()))
            while not self._driver.finished:
                self._step()
            self._bring_home()
            states = [self._driver.state(n.index) for n in self._driver.plan.nodes]
            self._teller.take_states(states)
            return states
        except KeyboardInterrupt:
            self._driver.handle(StopAsked("interrupted from the keyboard."))
            self._client.cancel(list(self._futures.values()), force=True)
            raise
        finally:
            self._clean_up()

    def _preflight(self) -> None:
        """Pickle every definition, so that a mistake is told before anything runs."""
        for node in self._driver.plan.nodes:
            if not node.constant:
                self._builder.packer.pack_task(node.task)
                self._note_place(node.task)

    def _note_place(self, task: Task[..., Any]) -> bool:
        """Note the place that a task keeps values in; whether it is a new one."""
        keeper = within(task, self._keeping).keeper
        place = None if keeper is None else keeper.local_place
        return place is not None and self._workforce.note_place(place)

    # -- events ------------------------------------------------------------------------

    def _step(self) -> None:
        for event in self._next_events():
            self._feed(event)
        if self._trial.is_long(self._driver, time.monotonic()):
            self._feed(TriedLong())
        if time.monotonic() - self._looked > LOOK_EVERY:
            try:
                events = list(self._look())
            except OSError:
                # No answer. The next look tells whether the scheduler is gone.
                events = []
            for event in events:
                self._feed(event)
            self._looked = time.monotonic()
        self._teller.rest()

    def _feed(self, event: Event) -> None:
        known = len(self._driver.ended)
        for command in self._driver.handle(event):
            self._carry_out(command)
        # After the commands, which may need what they needed.
        self._builder.let_go(self._payloads.let_go(self._driver.ended[known:]))

    def _next_events(self) -> Iterator[Event]:
        """What workers reported; waits a moment for the first report."""
        try:
            # The client's event loop pays for waking this thread, so not per report.
            rest = self._drained + BREATH - time.monotonic()
            if rest > 0:
                self._rest(rest)
            message = self._messages.get(timeout=LOOK_EVERY)
            while True:
                if not isinstance(message, tuple):
                    yield message
                else:
                    yield from self._take(*message[1][:3])
                message = self._messages.get_nowait()
        except queue.Empty:
            self._drained = time.monotonic()

    def _take(self, kind: str, worker: str, body: Any) -> Iterator[Event]:
        """What a worker's message stands for."""
        if kind == TOLD:
            return  # its own words
        self._is_quiet = False
        worker = sys.intern(worker)
        if kind == PLAIN:
            for fields in body:
                yield BlockDone(PlainReport(*fields[:-1]).full(worker))
        elif kind == LOGS:
            self._take_logs(body)
        elif kind == DONE:
            yield BlockDone(_report_of(body, worker))
        elif kind == ADVANCED:
            yield BlockAdvanced(_report_of(body, worker))
        elif kind == REACHED:
            yield BlockReached(*body)
        elif kind == BEGAN_WAITING:
            yield BlockWaiting(*body)

    def _take_logs(self, blobs: Sequence[bytes]) -> None:
        try:
            self._outlet.take(blobs)
        except Exception:  # of a handler or filter of the user's
            _LOGGER.exception("logs of task runs could not be handled")

    def _look(self) -> Iterator[Event]:
        """What no report tells: workers that came, and blocks that were lost."""
        if self._client.status != "running":
            yield StopAsked("the connection to the scheduler was lost.", crashed=True)
            return
        threads = self._workforce.threads()
        if threads != self._driver.threads:
            yield Resized(threads)
        self._strandings.look(self._client, time.monotonic())
        if self._workforce.lost:
            gone = tuple(n for n, f in self._futures.items() if f.status == "lost")
            if gone:
                yield ResultsLost(gone)
        lost = {n: f for n, f in self._futures.items() if f.status in _LOST}
        if lost:
            yield from self._lost_blocks(lost)
        if not self._is_quiet:
            self._quiet_since = time.monotonic()
        silence = time.monotonic() - self._quiet_since
        # One that has left may have taken reports along.
        if (self._workforce.lost and silence) or silence > CERTAINLY_LOST:
            yield from self._lost_reports()
        self._is_quiet = True

    def _lost_reports(self) -> Iterator[Event]:
        """Blocks that have ended without a word: their worker took it along.

        What ended a moment ago may have its report on the way, so only what had ended
        at the look before as well counts as lost. If its result is still somewhere, a
        report is made of that.
        """
        silent = self._driver.silent()[:MOST_ASKED]
        before, self._silent = self._silent, set()
        if not silent:
            return
        key = self._builder.key
        asked = {}
        for number in silent:
            witness = self._witness[number]
            asked[key(number)] = key(witness) if witness in self._futures else None
        ended = self._client.run_on_scheduler(find_ended, list(asked.items()))
        numbers = {self._number_of[found]: where for found, where in ended}
        self._silent = numbers.keys() - before
        gone = []
        at: dict[str, list[Lost]] = {}
        for number in sorted(numbers.keys() & before):
            where = numbers[number]
            if where is None:
                gone.append(number)
            else:
                lost = Lost(key(number), number, self._driver.lengths_of(number))
                at.setdefault(where, []).append(lost)
        for worker, todo in at.items():
            told = self._client.run(
                retell, todo, home_bytes(), workers=[worker], on_error="return"
            )
            for kind, body in told[worker] if isinstance(told[worker], list) else ():
                yield from self._take(kind, worker, body)
        if gone:
            yield ReportLost(tuple(gone))

    def _lost_blocks(self, lost: Mapping[int, Future[Any]]) -> Iterator[Event]:
        """An event for each block that is to blame for an erred future."""
        keys = [future.key for future in lost.values()]
        blamed = self._client.run_on_scheduler(find_blamed, keys)
        victims: dict[int, list[int]] = {}
        for number, future in lost.items():
            culprit = self._number_of.get(blamed.get(future.key), number)
            victims.setdefault(culprit, []).append(number)
        for culprit, numbers in victims.items():
            error = error_of(lost[numbers[0]])
            if isinstance(error, InternalError):
                raise error
            event = BlockLost(
                culprit,
                reason_of(error),
                divisible=isinstance(error, KilledWorker),
                others=tuple(numbers),
                stale=isinstance(error, StaleInput),
                when=time.time(),
                worker=last_worker(error) or None,
                of_items=isinstance(error, CannotLoadItems),
            )
            self._teller.lost(event, self._builder.key(culprit))
            yield event

    # -- commands ----------------------------------------------------------------------

    def _carry_out(self, command: Command) -> None:
        match command:
            case Submit(assignments, hold):
                self._builder.there = self._payloads.there()
                graph = self._graph(assignments)
                brought = self._note_payloads()
                for assignment in assignments:
                    number = assignment.block.number
                    self._number_of[self._builder.key(number)] = number
                self._teller.submitted(command, self._driver)
                numbers = sorted(hold)
                keys = [self._builder.key(number) for number in numbers]
                futures = self._client.get(graph, [*keys, *brought], sync=False)
                self._futures.update(zip(numbers, futures, strict=False))
                payloads = futures[len(keys) :]
                self._payloads.hold(dict(zip(brought, payloads, strict=True)))
                for assignment in assignments:
                    self._witness[assignment.block.number] = numbers[0]
            case Release(numbers):
                for number in numbers:
                    self._futures.pop(number).release()
            case Finish():
                pass

    def _note_payloads(self) -> list[Key]:
        """Note what the last graph needs; the payloads that it brings."""
        needed, self._builder.needed = self._builder.needed, {}
        for key, nodes in needed.items():
            self._payloads.note(key, nodes)
        return [key for key in needed if key not in self._builder.there]

    def _graph(self, assignments: Sequence[Assignment]) -> HighLevelGraph:
        """Graph of some blocks."""
        return self._graphs.made_of(assignments, self._strandings)

    def _rest(self, seconds: float) -> None:
        """Let reports gather."""
        time.sleep(seconds)

    # -- the end -----------------------------------------------------------------------

    def _bring_home(self) -> None:
        """Values that did not come with their reports, as far as they are kept."""
        for node in self._driver.plan.nodes:
            for segment in self._driver.segments(node.index):
                if segment.values is None:
                    segment.values = self._elsewhere(node.index, segment)

    def _elsewhere(self, node: int, segment: Segment) -> Any:
        """Values that did not come with the report: fetched now, or when asked for."""
        future = self._holder(node, segment.start)
        if future is None:
            return None
        values = Elsewhere(Fetch(future, node))
        if self._own_client:
            # The futures end with the client, and the values with them.
            # Kept as what it is if it cannot be brought: the state is final.
            with contextlib.suppress(MissingResult):
                return list(values.load())
        return values

    def _holder(self, node: int, start: int) -> Future[Any] | None:
        """Future of the block that has the values of children from an index on."""
        for number in self._driver.blocks_of(node):
            future = self._futures.get(number)
            if future is not None and self._driver.holds(number, node, start):
                return future
        return None

    def _drain_logs(self) -> None:
        """Take in what came after the last event that mattered."""
        with contextlib.suppress(queue.Empty):
            while True:
                message = self._messages.get_nowait()
                if isinstance(message, tuple) and message[1][0] == LOGS:
                    self._take_logs(message[1][2])

    def _fetch_late_logs(self) -> None:
        """Take in what workers logged before they were killed, and could not send."""
        if not (self._looked or self._outlet.has_taken):
            return
        if not self._workforce.lost:
            return
        # This host first: all workers may be gone at this moment.
        found = set(left_behind(self._topic))
        for nanny in (True, False):
            told = self._client.run(
                left_behind, self._topic, nanny=nanny, on_error="ignore"
            )
            for blobs in told.values():
                found.update(blobs)
        self._outlet.take_late(list(found))

    def _clean_up(self, outcome: State | None = None) -> None:
        self._futures.clear()
        self._payloads.clear()
        self._drain_logs()
        if self._client.status != "running":
            return
        with contextlib.suppress(Exception):
            self._fetch_late_logs()
        with contextlib.suppress(Exception):  # the scheduler may be gone by now
            last = self._teller.last(self._driver, outcome)
            forget_topic(self._client, self._topic, last)


#: Not "lost": the worker that held the result died, and Dask computes it again.
_LOST: Final = frozenset({"error", "cancelled"})


def _report_of(blob: bytes, worker: str) -> BlockReport:
    report: BlockReport = pickle.loads(blob)
    for segment in report.segments.values():
        segment.worker = worker
    return report
