"""Telling: what the client of a run says of it, for the pages of the dashboard.

Workers tell what became of blocks. Only the client knows what a run consists of, how
many children a node has, which blocks were lost and how the run ended. It says so on
the topic of the run, in few messages of plain numbers and texts.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from distributed import Client

from prefect_dask_core.config import monitor_enabled
from prefect_dask_core.context import context
from prefect_dask_core.engine.codes import COMPLETED
from prefect_dask_core.engine.driver import Driver
from prefect_dask_core.engine.events import Assignment, BlockLost, Submit
from prefect_dask_core.engine.plan import Node, Plan
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.summary import ALL_SUCCEEDED, flow_state
from prefect_dask_core.runners.digests import ReportDigest, counts_of, digest_of, told
from prefect_dask_core.runners.preflight import by_value
from prefect_dask_core.runners.redaction import message_of
from prefect_dask_core.states import Cancelled, Completed, Failed, State

_LOGGER: Final = logging.getLogger(__name__)

#: Kind of the client's messages on the topic of a run.
TOLD: Final = "told"
#: Code of a node that has not ended.
OPEN: Final = 255
#: Seconds between two messages.
TELL_EVERY: Final = 0.25


class NodeInfo(NamedTuple):
    """A node, as the client tells of it.

    Parameters
    ----------
    number : int
        Its number in the plan.
    name : str
        Name of its task.
    mapped, constant : bool
        Whether it has children; whether it is a constant, which never runs.
    upstream : tuple of int
        Nodes it reads.
    """

    number: int
    name: str
    mapped: bool
    constant: bool
    upstream: tuple[int, ...]


class Begin(NamedTuple):
    """What the client tells when a run begins.

    Parameters
    ----------
    flow, name : str
        Name of the flow, and of the run.
    begin : float
        Seconds since the epoch.
    client : str
        Id of the client that drives it.
    parent : str
        Id of the run in which it was started; empty if there is none.
    """

    flow: str
    name: str
    begin: float
    client: str
    parent: str


class End(NamedTuple):
    """What the client tells when a run has ended.

    Parameters
    ----------
    state : str
        Name of its state.
    message : str
        Its message.
    end : float
        Seconds since the epoch.
    plain : bytes
        Per node the code of its state; of a mapped one 255.
    mapped : tuple of (int, int, tuple)
        Number of a mapped node, its length, and pairs of a code and a count.
    """

    state: str
    message: str
    end: float
    plain: bytes
    mapped: tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]


class Death(NamedTuple):
    """A worker that died, or a block that was lost.

    Parameters
    ----------
    time : float
        Seconds since the epoch.
    worker : str
        Address of the worker; empty if it is not known.
    block : bool
        Whether it was a block that was lost, by however many deaths.
    tasks : str
        What ran on it, in words.
    reason : str
        One line for people.
    """

    time: float
    worker: str
    block: bool
    tasks: str
    reason: str


def end_of(
    driver: Driver,
    outcome: State | None,
    end: float,
    states: Sequence[State] | None = None,
) -> End:
    """What is told of the end of a run, from what its driver knows.

    Parameters
    ----------
    driver : Driver
        Of the run; one that has not finished was interrupted.
    outcome : State or None
        State of the flow; `None`: it is worked out from those of the nodes.
    end : float
        Seconds since the epoch.
    states : sequence of State, optional
        States of the nodes, where they have been made already.
    """
    codes = bytearray(bytes([OPEN]) * len(driver.plan.nodes))
    mapped = []
    unsettled = False  # whether anything did not complete
    for node in driver.plan.nodes:
        if node.constant:
            continue
        segments = driver.segments(node.index)
        children = driver.children(node.index) if node.mapped else None
        if children is not None:
            counts = _counts(segments)
            mapped.append((node.index, len(children), counts))
            unsettled |= sum(counts.values()) != counts.get(COMPLETED, 0)
            unsettled |= sum(counts.values()) != len(children)
        elif segments:
            codes[node.index] = segments[0].codes[0]
            unsettled |= codes[node.index] != COMPLETED
        else:
            unsettled = True
    if outcome is None:
        if driver.finished and not unsettled:
            # The states of a large flow need not be looked through to know that.
            outcome = Completed(ALL_SUCCEEDED)
        else:
            outcome = _outcome(driver, states)
    return End(
        type(outcome).__name__,
        message_of(outcome.message),
        end,
        bytes(codes),
        tuple((n, length, tuple(sorted(told.items()))) for n, length, told in mapped),
    )


def _outcome(driver: Driver, states: Sequence[State] | None) -> State:
    """State of a run in which not everything completed, from those of its nodes."""
    plan = driver.plan
    if not driver.finished:
        return Cancelled("the run was interrupted")
    if states is None:
        states = [driver.state(node.index) for node in plan.nodes]
    if isinstance(plan, Plan):
        return flow_state(plan, states)
    # What a task has submitted: nothing of it decides how the task ends.
    bad = sum(not state.is_successful() for state in states)
    return Failed(f"{bad} of its runs did not succeed") if bad else Completed()


def _counts(segments: Sequence[Segment]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for segment in segments:
        counts.update(dict(counts_of(segment.codes)))
    return counts


class Silence:
    """Tells nothing: nobody listens."""

    def began(self, driver: Driver) -> None:
        """Tell that the run has begun, and of what it consists."""

    def added(self, nodes: Sequence[Node], driver: Driver) -> None:
        """Tell of more nodes."""

    def submitted(self, command: Submit, driver: Driver) -> None:
        """Tell how many children there are, and which states stand without a run."""

    def lost(self, event: BlockLost, key: Any) -> None:
        """Tell of a block that was lost."""

    def rest(self) -> None:
        """Tell what has gathered, if the last message was long enough ago."""

    def take_states(self, states: Sequence[State]) -> None:
        """Take the states in which the nodes ended: they need not be made once more."""

    def last(self, driver: Driver, outcome: State | None) -> Any:
        """The last message, for whoever closes the topic; `None` if there is none."""


class Teller(Silence):
    """Tells the pages of one run.

    Parameters
    ----------
    client : Client
        Client of the run.
    topic : str
        Topic of the run.
    variables : mapping of str to object
        Context variables of the run.
    flow : str
        Name of the flow.
    """

    def __init__(
        self, client: Client, topic: str, variables: Mapping[str, Any], flow: str
    ) -> None:
        self._client = client
        self._topic = topic
        name = str(variables.get("flow_run_name") or "")
        parent = variables.get("parent_flow_run_id")
        if parent is None:
            around = context.get("flow_run_id")  # of the body that runs a flow
            parent = around if around != variables.get("flow_run_id") else None
        begin = time.time()
        self._begin = Begin(flow, name, begin, str(client.id), str(parent or ""))
        self._known: set[int] = set()
        self._gathered: dict[str, Any] = {}
        self._told = 0.0
        self._states: Sequence[State] | None = None

    def began(self, driver: Driver) -> None:
        """Tell that the run has begun, and of what it consists."""
        self._gathered["begin"] = tuple(self._begin)
        self.added(driver.plan.nodes, driver)
        self._tell()

    def added(self, nodes: Sequence[Node], driver: Driver) -> None:
        """Tell of more nodes."""
        upstream = driver.plan.upstream
        self._gathered.setdefault("nodes", []).extend(
            (n.index, n.name, n.mapped, n.constant, upstream[n.index]) for n in nodes
        )

    def submitted(self, command: Submit, driver: Driver) -> None:
        """Tell how many children there are, and which states stand without a run."""
        for assignment in command.assignments:
            for step in assignment.block.steps:
                if step.mapped and step.node not in self._known:
                    children = driver.children(step.node)
                    if children is not None:
                        self._known.add(step.node)
                        told_of = self._gathered.setdefault("lengths", [])
                        told_of.append((step.node, len(children)))
            if assignment.given is not None:
                self._gathered.setdefault("given", []).append(_given(assignment))

    def lost(self, event: BlockLost, key: Any) -> None:
        """Tell of a block that was lost."""
        if not event.stale:
            # A block's key begins with the names of its tasks and the id of the run.
            tasks = str(key[0]).rpartition("-")[0]
            worker, told = event.worker or "", message_of(event.reason)
            death = Death(time.time(), worker, True, tasks, told)
            self._gathered.setdefault("lost", []).append(tuple(death))

    def take_states(self, states: Sequence[State]) -> None:
        """Take the states in which the nodes ended: they need not be made once more."""
        self._states = states

    def rest(self) -> None:
        """Tell what has gathered, if the last message was long enough ago."""
        if self._gathered and time.monotonic() - self._told > TELL_EVERY:
            self._tell()

    def last(self, driver: Driver, outcome: State | None) -> Any:
        """The last message, for whoever closes the topic."""
        ended = end_of(driver, outcome, time.time(), self._states)
        self._gathered["end"] = tuple(ended)
        return TOLD, "", self._gathered

    def _tell(self) -> None:
        gathered, self._gathered = self._gathered, {}
        # Nobody looks at pages of a scheduler that is gone; the run hears of it itself.
        with contextlib.suppress(Exception):
            self._client.log_event(self._topic, (TOLD, "", gathered))
        self._told = time.monotonic()


def _given(assignment: Assignment) -> tuple[Any, ...]:
    """Digest of states that stand without a run."""
    assert assignment.given is not None
    mapped = {step.node: step.mapped for step in assignment.block.steps}
    digests = tuple(
        digest_of(node, mapped[node], segment)
        for node, segment in assignment.given.items()
    )
    return told(ReportDigest(0, assignment.block.number, (), digests))


# -- pages -------------------------------------------------------------------------

_watched: Final[WeakKeyDictionary[Client, bool]] = WeakKeyDictionary()


def add_pages(client: Client) -> bool:
    """Put the pages on the scheduler of a client, if they are wanted; once per client.

    Returns
    -------
    bool
        Whether somebody there wants to be told. Not where the setting
        ``monitor.enabled`` is off, and not where the package cannot be imported.
    """
    if not monitor_enabled():
        return False
    known = _watched.get(client)
    if known is None:
        try:
            problem = client.run_on_scheduler(by_value(_register))
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        known = _watched[client] = not problem
        if problem:
            _LOGGER.info(
                "flow runs are not shown in the dashboard of %s: %s",
                client.scheduler_info().get("address"),
                problem,
            )
    return known


def _register(dask_scheduler: Any = None) -> str:
    """Run on the scheduler: why there can be no pages; empty if there are."""
    # It brings no names along, so what it needs is imported here.
    import importlib

    try:
        dashboard = importlib.import_module("prefect_dask_core.monitor.dashboard")
        dashboard.register(dask_scheduler)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
