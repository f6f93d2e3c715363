"""The Dask runner: blocks on the workers of a cluster."""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import pickle
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from dask.base import get_annotations
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.typing import Key
from distributed import (
    Client,
    Future,
    KilledWorker,
    LocalCluster,
    performance_report,
    span,
)

from prefect_dask_core.config import home_bytes
from prefect_dask_core.engine.block import BlockReport
from prefect_dask_core.engine.book import Book, all_ended
from prefect_dask_core.engine.caching import within
from prefect_dask_core.engine.columns import Elsewhere, Segment
from prefect_dask_core.engine.compile import GraphBuilder, RunRecord
from prefect_dask_core.engine.driver import Driver
from prefect_dask_core.engine.events import (
    Added,
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
from prefect_dask_core.engine.feeds import StaleInput, segment_in
from prefect_dask_core.engine.growing import GrowingDriver
from prefect_dask_core.engine.plan import Node
from prefect_dask_core.engine.views import DriverLook
from prefect_dask_core.errors import (
    InternalError,
    MissingResult,
    OptionTypeError,
    UnknownOptionError,
    UnpicklableTaskError,
)
from prefect_dask_core.results.keeping import KEEPING, FlowKeeping
from prefect_dask_core.runners._private import (
    TOPIC_PREFIX,
    client_here,
    find_blamed,
    find_ended,
    forget_topic,
    outside_the_pool,
)
from prefect_dask_core.runners.base import FlowRun, NamedRunner, Trial
from prefect_dask_core.runners.driven import DrivenSession, of_the_session
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
from prefect_dask_core.states import Failed, State
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
#: Seconds the scheduler is given to answer before it counts as gone.
PATIENCE: Final = 30.0


class DaskTaskRunner(NamedRunner):
    """Runs flows on a Dask cluster.

    Parameters
    ----------
    cluster : cluster object or Client, optional
        A running cluster (anything with a `scheduler_address`), or a client of one.
        It is used and left running.
    address : str, optional
        Address of a running scheduler, as ``"tcp://10.0.0.1:8786"``.
    cluster_class : class, callable or str, optional
        Makes a temporary cluster; a str is a dotted name, as
        ``"dask_jobqueue.SLURMCluster"``. `LocalCluster` unless given.
    cluster_kwargs : dict, optional
        Arguments of `cluster_class`.
    adapt_kwargs : dict, optional
        Makes the cluster adaptive: arguments of ``cluster.adapt``.
    client_kwargs : dict, optional
        Arguments of `distributed.Client`.
    performance_report_path : str, optional
        Where Dask's performance report of the run is written.

    Raises
    ------
    ValueError
        If two places to run are named, the name of a class has no module, or a client
        is asked to be asynchronous.
    OptionTypeError
        If a str or a class is given as the cluster; also a `TypeError`.
    UnknownOptionError
        If an argument of the cluster is given to the runner; also a `TypeError`.

    Notes
    -----
    Without arguments: the current `distributed.Client` if there is one, else a
    temporary `LocalCluster`. Only what the runner opened is closed. Used as a context
    manager, one cluster serves many runs; each of them is told so,
    ``flow.run(task_runner=runner)``, as the block by itself changes no flow.

    Values of the last tasks come home when a run ends, except on a client that the
    user opened: there the large ones stay on the cluster until somebody asks.

    Examples
    --------
    >>> from prefect_dask_core import DaskTaskRunner
    >>> DaskTaskRunner(address="tcp://10.0.0.1:8786")
    DaskTaskRunner(address='tcp://10.0.0.1:8786')
    >>> DaskTaskRunner(address="tcp://10.0.0.1:8786", cluster_kwargs={"n_workers": 2})
    Traceback (most recent call last):
    ...
    ValueError: DaskTaskRunner was given address= and cluster_kwargs=: a scheduler \
that runs already is not made; give one of them.
    """

    def __init__(
        self,
        cluster: Any = None,
        address: str | None = None,
        cluster_class: Callable[..., Any] | str | None = None,
        cluster_kwargs: Mapping[str, Any] | None = None,
        adapt_kwargs: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        performance_report_path: str | None = None,
        **misplaced: Any,
    ) -> None:
        if misplaced:
            raise UnknownOptionError(
                f"DaskTaskRunner has no option {next(iter(misplaced))!r}; what the "
                f"cluster is made with goes into cluster_kwargs={misplaced!r}, what "
                "the client is made with into client_kwargs."
            )
        self.cluster = cluster
        self.address = address
        self.cluster_class = cluster_class
        self.cluster_kwargs = dict(cluster_kwargs or {})
        self.adapt_kwargs = dict(adapt_kwargs or {})
        self.client_kwargs = dict(client_kwargs or {})
        self.performance_report_path = performance_report_path
        self._check()
        self._open: contextlib.ExitStack | None = None
        self._client: Client | None = None
        self._own_client = False
        self._lending = threading.Lock()
        self._borrowers = 0
        self._lent: DaskTaskRunner | None = None

    def _settings(self) -> dict[str, Any]:
        names = (
            "cluster",
            "address",
            "cluster_class",
            "cluster_kwargs",
            "adapt_kwargs",
            "client_kwargs",
            "performance_report_path",
        )
        return {name: value for name in names if (value := getattr(self, name))}

    def _check(self) -> None:
        _check_cluster(self.cluster)
        _check_class(self.cluster_class)
        for first in ("address", "cluster"):
            for other in ("cluster", "cluster_class", "cluster_kwargs", "adapt_kwargs"):
                clash = {first, other} != {"cluster", "adapt_kwargs"}
                if first == other or not clash:
                    continue
                if getattr(self, first) is not None and getattr(self, other):
                    raise ValueError(
                        f"DaskTaskRunner was given {first}= and {other}=: a scheduler "
                        "that runs already is not made; give one of them."
                    )
        for other in ("adapt_kwargs", "client_kwargs"):
            if isinstance(self.cluster, Client) and getattr(self, other):
                raise ValueError(
                    f"DaskTaskRunner was given a Client and {other}=: a client that "
                    "is open already is used as it is; give one of them."
                )
        for name in ("cluster_kwargs", "client_kwargs"):
            if "asynchronous" in getattr(self, name):
                raise ValueError(
                    f"{name} holds 'asynchronous', which the runner decides itself; "
                    "leave it out."
                )

    def __repr__(self) -> str:
        told = ", ".join(f"{key}={value!r}" for key, value in self._settings().items())
        return f"DaskTaskRunner({told})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, DaskTaskRunner) and self._settings() == other._settings()
        )

    __hash__ = None  # type: ignore[assignment]

    # -- the cluster -------------------------------------------------------------------

    def __enter__(self) -> DaskTaskRunner:
        if self._open is not None:
            raise RuntimeError("this DaskTaskRunner is open already.")
        with contextlib.ExitStack() as stack:
            self._client, self._own_client = self._connect(stack)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        stack, self._open, self._client = self._open, None, None
        if stack is not None:
            stack.close()

    @property
    def client(self) -> Client:
        """The client of the open runner.

        Raises
        ------
        RuntimeError
            If the runner is not open.
        """
        if self._client is None:
            raise RuntimeError(
                "this DaskTaskRunner is not open; use `with runner:` or run a flow."
            )
        return self._client

    def _connect(self, stack: contextlib.ExitStack) -> tuple[Client, bool]:
        """A client, and whether it ends with the runner."""
        place = self._place(stack)
        own = not isinstance(place, Client)
        if own:
            options = {"set_as_default": False, **self.client_kwargs}
            client = stack.enter_context(Client(place, **options))
        else:
            client = place
        if client.asynchronous:
            raise ValueError(
                "DaskTaskRunner was given an asynchronous Client; flow.run() waits "
                "for the run, so give one made with asynchronous=False."
            )
        if self.performance_report_path is not None:
            stack.enter_context(client.as_current())
            stack.enter_context(performance_report(self.performance_report_path))
        return client, own

    def _place(self, stack: contextlib.ExitStack) -> Any:
        """Client, cluster or address to use."""
        if self.address is not None:
            return self.address
        if self.cluster is not None:
            if self.adapt_kwargs:
                self.cluster.adapt(**self.adapt_kwargs)
            return self.cluster
        if not (self.cluster_class or self.cluster_kwargs or self.adapt_kwargs):
            with contextlib.suppress(ValueError):
                return client_here()
        cluster = stack.enter_context(self._make_cluster())
        if self.adapt_kwargs:
            cluster.adapt(**self.adapt_kwargs)
        return cluster

    def _make_cluster(self) -> Any:
        make = self.cluster_class or LocalCluster
        if isinstance(make, str):
            make = _imported(make)
        return make(**self.cluster_kwargs)

    # -- a run -------------------------------------------------------------------------

    def run(self, flow_run: FlowRun) -> Sequence[State]:
        """Run a plan to its end; one state per node."""
        if self._open is None:
            with copy.copy(self) as opened:  # several threads may share a runner
                return opened.run(flow_run)
        driver = Driver(Book(flow_run.plan, flow_run.wanted, flow_run.earlier))
        if flow_run.view is not None:
            flow_run.view.add_look(DriverLook(driver))
        with outside_the_pool():  # a flow that runs inside a task
            run = _DaskRun(
                self.client,
                driver,
                flow_run.variables,
                flow_run.run_id,
                self._own_client,
            )
            return run.run()

    def session(
        self, name: str, variables: Mapping[str, Any], run_id: str
    ) -> DrivenSession:
        """Begin a function flow, or what a task submits.

        Unless the runner is open, a cluster that it makes lives as long as its
        sessions, which share it.
        """
        with contextlib.ExitStack() as stack:
            client, own_client = stack.enter_context(self.borrowed())
            driver = GrowingDriver(name)
            kept = of_the_session(variables)
            held = contextlib.ExitStack()
            engine = _DaskSession(client, driver, kept, run_id, own_client, held)
            held.push(stack.pop_all())  # from here on the session gives it back
            return DrivenSession(run_id, driver, engine)

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[tuple[Client, bool]]:
        """The client of the open runner, or one that is shared by all who borrow it."""
        if self._open is not None:
            yield self.client, self._own_client
            return
        with self._lending:
            if not self._borrowers:
                self._lent = copy.copy(self).__enter__()
            self._borrowers += 1
            lent = self._lent
        assert lent is not None
        try:
            yield lent.client, lent._own_client
        finally:
            with self._lending:
                self._borrowers -= 1
                last = not self._borrowers
                if last:
                    self._lent = None
            if last:
                lent.__exit__(None, None, None)

    def __getstate__(self) -> dict[str, Any]:
        # What is open stays here; a cluster that is one's own does not travel.
        closed = {"_open": None, "_client": None, "_lent": None, "_borrowers": 0}
        own = {k: v for k, v in self.__dict__.items() if k != "_lending"}
        return {**own, **closed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lending=threading.Lock())


class _DaskRun:
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
        self._span = _span_of(driver.plan.flow_name)
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
            error = _error_of(lost[numbers[0]])
            if isinstance(error, InternalError):
                raise error
            event = BlockLost(
                culprit,
                _reason(error),
                divisible=isinstance(error, KilledWorker),
                others=tuple(numbers),
                stale=isinstance(error, StaleInput),
                when=time.time(),
                worker=_last_worker(error),
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
        """Graph of some blocks: a layer for each kind of annotations.

        Layers also because a bare dict is tokenized first, task by task.
        """
        groups: dict[str, tuple[Mapping[str, Any], dict[Any, Any]]] = {
            "": (self._span, {})
        }
        around = get_annotations()
        # In their order, because a block refers to the keys of those before it.
        for assignment in assignments:
            found = assignment.annotations
            if around:
                found = {**around, **found}
            label = repr(sorted(found.items())) if found else ""
            _, graph = groups.setdefault(label, ({**found, **self._span}, {}))
            # What several blocks share is bound to no place.
            self._builder.add(assignment, graph, groups[""][1])
            if found:
                key = self._builder.key(assignment.block.number)
                task = assignment.block.steps[-1].task.name
                self._strandings.note(key, task, found, time.monotonic())
        layers = {
            f"{self._topic}-{number}": MaterializedLayer(
                graph, annotations=dict(annotations)
            )
            for number, (annotations, graph) in enumerate(groups.values())
            if graph
        }
        return HighLevelGraph(layers, {name: set() for name in layers})

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
        for number in self._driver.blocks_of(node):
            future = self._futures.get(number)
            if future is not None and self._driver.holds(number, node, segment.start):
                values = Elsewhere(_Fetch(future, node))
                if self._own_client:
                    # The futures end with the client, and the values with them.
                    # Kept as what it is if it cannot be brought: the state is final.
                    with contextlib.suppress(MissingResult):
                        return list(values.load())
                return values
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


class _DaskSession(_DaskRun):
    """A function flow on a client; see `driven.Engine`."""

    def __init__(
        self,
        client: Client,
        driver: GrowingDriver,
        variables: Mapping[str, Any],
        run_id: str,
        own_client: bool,
        stack: contextlib.ExitStack,
    ) -> None:
        super().__init__(client, driver, variables, run_id, own_client)
        self._stack = stack
        self._hurried = threading.Event()

    def post(self, event: Event) -> None:
        """Put an event beside the reports of the workers."""
        self._messages.put(event)

    def hurry(self) -> None:
        """Gather no more."""
        self._hurried.set()

    def _rest(self, seconds: float) -> None:
        self._hurried.wait(seconds)
        self._hurried.clear()

    def prepare(self, task: Task[..., Any]) -> None:
        """Pickle the definition, and ask the workers for a place that it needs."""
        self._builder.packer.pack_task(task)
        if self._note_place(task):
            self._workforce.threads()

    def drive(self, told: Callable[[], None]) -> None:
        """Feed events until the driver has finished."""
        self._client.subscribe_topic(self._topic, self._messages.put)
        self._teller.began(self._driver)
        self._feed(Started(self._workforce.threads()))
        while not self._driver.finished:
            self._step()
            told()
        if self._client.status == "running":
            self._bring_home()

    def _next_events(self) -> Iterator[Event]:
        """Events, those of nodes that were added one after the other as one."""
        added: list[Node] = []
        for event in super()._next_events():
            if isinstance(event, Added):
                added.extend(event.nodes)
                continue
            if added:
                yield Added(tuple(added))
                added = []
            yield event
        if added:
            yield Added(tuple(added))

    def _feed(self, event: Event) -> None:
        super()._feed(event)
        if isinstance(event, Added):
            self._teller.added(event.nodes, self._driver)

    def _graph(self, assignments: Sequence[Assignment]) -> HighLevelGraph:
        try:
            return super()._graph(assignments)
        except UnpicklableTaskError:
            return super()._graph([self._sendable(one) for one in assignments])

    def _sendable(self, assignment: Assignment) -> Assignment:
        """A block, or one that has failed in the place of one that cannot travel."""
        try:
            self._builder.add(assignment, {}, {})
            return assignment
        except UnpicklableTaskError as error:
            block = assignment.block
            failed = Failed(str(error), data=error, timestamp=time.time())
            given = {
                step.node: all_ended(block.start, block.stop, failed)
                for step in block.steps
            }
            done = block.stop - block.start
            self.post(BlockDone(BlockReport(block.number, given, done, 0.0)))
            return Assignment(block, (), given)

    def value(self, node: int, index: int | None) -> Any:
        """Value of a node, or of one child; fetches no more than that."""
        for segment in self._driver.segments(node):
            if segment.values is not None:
                continue
            if index is None:
                segment.values = self._elsewhere(node, segment)
            elif segment.start <= index < segment.stop:
                return self._value_of_child(node, segment, index)
        if index is None:
            return self._driver.state(node).result()
        children = self._driver.children(node)
        assert children is not None
        return children[index].result()

    def _value_of_child(self, node: int, segment: Segment, index: int) -> Any:
        for number in self._driver.blocks_of(node):
            future = self._futures.get(number)
            if future is not None and self._driver.holds(number, node, segment.start):
                picked = self._client.submit(
                    _pick, future, node, index - segment.start, pure=False
                )
                return picked.result()
        return segment.state(index - segment.start).result()

    def close(self, outcome: State | None = None) -> None:
        """Forget the run; on a client of the user's what is kept stays readable."""
        self._clean_up(outcome)
        self._stack.close()


def _pick(result: Any, node: int, offset: int) -> Any:
    """Value of one child; runs where the block's result is."""
    return segment_in(result, node).value(offset)


#: Not "lost": the worker that held the result died, and Dask computes it again.
_LOST: Final = frozenset({"error", "cancelled"})


class _Fetch:
    """Brings the values of a segment home; keeps them alive on the cluster."""

    def __init__(self, future: Future[Any], node: int) -> None:
        self._future = future
        self._node = node

    def __call__(self) -> Sequence[Any]:
        try:
            result = self._future.result(timeout=None)
        except Exception as error:
            raise MissingResult(
                "the value stayed on the cluster and cannot be fetched any more "
                f"({type(error).__name__}: {error}). Ask for it while the cluster "
                "lives and its client is open."
            ) from error
        values: Sequence[Any] = segment_in(result, self._node).values
        return values


def _span_of(flow_name: str) -> Mapping[str, Any]:
    """Annotation of all graphs of a flow, which Dask shows as one span.

    Without one the scheduler keeps a span for each time that it was idle before. It
    never forgets a span, so all runs of a flow share one: its id is made of the name.
    """
    with span(flow_name):
        found = get_annotations()["span"]
    *around, _ = found["ids"]
    own = uuid.uuid5(uuid.NAMESPACE_OID, repr((around, flow_name)))
    return {"span": {**found, "ids": (*around, str(own))}}


def _report_of(blob: bytes, worker: str) -> BlockReport:
    report: BlockReport = pickle.loads(blob)
    for segment in report.segments.values():
        segment.worker = worker
    return report


def _error_of(future: Future[Any]) -> BaseException | None:
    if future.status != "error":
        return None
    error: BaseException | None = future.exception(timeout=PATIENCE)
    return error


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "its Dask future was cancelled or lost."
    if isinstance(error, KilledWorker):
        return (
            f"{error.allowed_failures + 1} workers died while running it; the last "
            f"was {error.last_worker.address}."
        )
    return f"{type(error).__name__}: {error}"


def _last_worker(error: BaseException | None) -> str | None:
    """Address of the worker that a block died with, if one did."""
    return error.last_worker.address if isinstance(error, KilledWorker) else None


def _check_cluster(cluster: Any) -> None:
    """Refuse what is no cluster, and say by which argument it is meant to be given."""
    if isinstance(cluster, str):
        raise OptionTypeError(
            f"DaskTaskRunner(cluster={cluster!r}): a str is no cluster; write "
            f"address={cluster!r} for a scheduler that runs already, as "
            "'tcp://10.0.0.1:8786', or cluster_class= for the dotted name of a class, "
            "as 'dask_jobqueue.SLURMCluster'."
        )
    if isinstance(cluster, type):
        raise OptionTypeError(
            f"DaskTaskRunner(cluster={cluster.__name__}): a class is no cluster; write "
            f"cluster_class={cluster.__name__}, or give an object of it."
        )


def _check_class(cluster_class: Any) -> None:
    """Refuse a name that nothing can be imported by."""
    if isinstance(cluster_class, str):
        parts = cluster_class.split(".")
        if len(parts) < 2 or not all(parts):
            raise ValueError(
                f"DaskTaskRunner(cluster_class={cluster_class!r}): the name of a class "
                "needs its module before a dot, as 'dask_jobqueue.SLURMCluster'; or "
                "give the class itself."
            )
    elif cluster_class is not None and not callable(cluster_class):
        raise OptionTypeError(
            f"DaskTaskRunner(cluster_class={cluster_class!r}), but expected a class or "
            "its dotted name; a cluster that runs already is given as cluster=."
        )


def _imported(name: str) -> Callable[..., Any]:
    """What a dotted name stands for."""
    module, _, attribute = name.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"cluster_class={name!r} cannot be imported ({error}); give a class, or "
            "its dotted name as 'package.module.Class'."
        ) from error
    return found
