"""Compile: blocks and nodes to Dask graphs, and a whole flow to a Dask collection.

The only module that knows Dask's graph specification.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import dask.threaded
from dask._task_spec import Task as GraphTask
from dask._task_spec import TaskRef
from dask.base import DaskMethodsMixin, tokenize
from dask.typing import Key

from prefect_dask_core.engine.block_results import result_of
from prefect_dask_core.engine.effects import Shell
from prefect_dask_core.engine.events import Assignment
from prefect_dask_core.engine.packing import (
    OWN_KEY_BYTES,
    PackedBlock,
    Packer,
    SmallPart,
    is_large,
    load_shared,
    load_small,
    small_part,
    unpack,
)
from prefect_dask_core.engine.plan import Node, Plan, items_of
from prefect_dask_core.engine.summary import flow_state
from prefect_dask_core.engine.upstream import with_causes
from prefect_dask_core.engine.whole import Outcome, run_node, state_of
from prefect_dask_core.states import Completed, State

#: Blocks a fan-out of known length is cut into, in a compiled collection.
MOST_SPANS: Final = 100

#: What is in the record of a run, for those who cannot pickle it.

Graph = dict[Any, GraphTask]


class RunRecord(NamedTuple):
    """What is the same for all blocks of a flow run.

    Parameters
    ----------
    run_id : str
        Hexadecimal id of the run; in every key.
    variables : mapping
        Context variables of the run.
    topic : str
        Where workers report.
    home_bytes : int
        Values up to this size travel home with the report of their block.
    log_process : str
        Process whose workers send no logs, because the client is there.
    log_level : int
        The least level of logs that the client takes in.
    watched : bool
        Whether pages want a digest of each report.
    """

    run_id: str
    variables: Mapping[str, Any]
    topic: str
    home_bytes: int
    log_process: str = ""
    log_level: int = 0
    watched: bool = False


class GraphBuilder:
    """Turns the blocks of one run into Dask graphs.

    Parameters
    ----------
    record : RunRecord
        The run.
    target : callable
        Runs a block on a worker: ``target(header, inline, record, *arguments)``.
    """

    def __init__(self, record: RunRecord, target: Callable[..., Any]) -> None:
        self.packer = Packer()
        self._suffix = record.run_id[:8]
        self._target = target
        self._keys: dict[int, Key] = {}
        self._shared: dict[bytes, Key] = {}
        self._blob_of: dict[Key, bytes] = {}
        self._numbers = itertools.count()
        self._record = _pack_record(self.packer, record)
        #: Payloads that the scheduler holds: graphs refer to them and bring them not.
        self.there: Collection[Key] = ()
        #: Payloads that graphs refer to, and the nodes that need them; for the runner
        #: to take and clear.
        self.needed: dict[Key, set[int]] = {}

    def key(self, number: int) -> Key:
        """Key of a block that is in some graph of the run."""
        return self._keys[number]

    def graph(self, assignments: Iterable[Assignment]) -> Graph:
        """Graph of some blocks; it may refer to keys of earlier graphs."""
        graph: Graph = {}
        for assignment in assignments:
            self.add(assignment, graph, graph)
        return graph

    def add(self, assignment: Assignment, graph: Graph, shared: Graph) -> None:
        """Add a block to a graph, and what it shares with others to another."""
        block = assignment.block
        name = block_name([step.task.name for step in block.steps])
        key = (f"{name}-{self._suffix}", block.number)
        self._keys[block.number] = key
        if assignment.given is not None:
            blob = self.packer.pack_object(result_of(assignment.given), 0)
            graph[key] = GraphTask(key, unpack, *blob[:2], ())
            return
        packed = self.packer.pack(block, len(assignment.reads))
        nodes = [step.node for step in block.steps]
        arguments = [TaskRef(self._keys[number]) for number in assignment.reads]
        arguments += [self._place(shared, blob, nodes) for blob in packed.shared]
        record: Any = self._record
        if isinstance(record, bytes):
            record = self._place(shared, record, nodes)
        graph[key] = GraphTask(
            key, self._target, packed.header, packed.inline, record, *arguments
        )

    def let_go(self, keys: Iterable[Key]) -> None:
        """Forget the bytes of large values that only nodes needed that have ended.

        Definitions, and what all blocks share, are for those still to come.
        """
        for key in keys:
            blob = self._blob_of[key]
            if blob is not self._record and self.packer.let_go(blob):
                del self._shared[blob], self._blob_of[key]

    def _place(self, graph: Graph, blob: bytes, nodes: Iterable[int]) -> TaskRef:
        """Key of a large shared part; part of the graph unless the scheduler has it."""
        key = self._shared.get(blob)
        if key is None:
            key = self._shared[blob] = (
                f"payload-{self._suffix}",
                next(self._numbers),
            )
            self._blob_of[key] = blob
        self.needed.setdefault(key, set()).update(nodes)
        if key not in self.there:
            graph[key] = GraphTask(key, load_shared, blob)
        return TaskRef(key)


def _pack_record(packer: Packer, record: RunRecord) -> SmallPart | bytes:
    """Pickle what all blocks of a run share, naming what in it cannot be pickled.

    Bytes are for a key of their own.
    """
    given = record.variables.get("parameters", {})
    parts = {
        **{f"context variable {name!r}": v for name, v in record.variables.items()},
        **{f"parameter {name!r}": value for name, value in given.items()},
    }
    blob = packer.pack_value(record, lambda: "the run", parts)
    return small_part(blob) if len(blob) < OWN_KEY_BYTES else blob


def block_name(names: Sequence[str]) -> str:
    """Name of a block in Dask's dashboard.

    Examples
    --------
    >>> block_name(["read"]), block_name(["read", "parse", "settle", "store"])
    ('read', 'read+..+store')
    """
    if len(names) <= 3:
        return "+".join(names)
    return f"{names[0]}+..+{names[-1]}"


# -- a flow as a collection ----------------------------------------------------------


class FlowCollection(DaskMethodsMixin):
    """A flow and its parameters, as a Dask collection.

    Its methods `compute`, `persist` and `visualize`, the functions of these names in
    `dask`, and `Client.compute` work on it with any Dask scheduler; computing it gives
    the state of the flow run. A node is a key, a fan-out of known length some keys of
    consecutive children, and one whose length is known only at run time a single key.

    Notes
    -----
    Whatever computes it brings all values home. Waits between attempts hold their
    thread. What belongs to a run and not to a task is left out: state handlers of the
    flow, and values cached by earlier runs. Dask annotations of tasks are left out too:
    those of a `dask.annotate` block around the computation hold for all of it.
    """

    def __init__(
        self, plan: Plan, record: RunRecord, target: Callable[..., Any]
    ) -> None:
        self._plan = plan
        self._graph, self._keys = _collection_graph(plan, record, target)
        self._token = tokenize(record.run_id)

    def __dask_graph__(self) -> Graph:
        return self._graph

    def __dask_keys__(self) -> list[Any]:
        return [list(keys) for keys in self._keys]

    def __dask_layers__(self) -> tuple[str, ...]:
        return (f"flow-{self._token}",)

    def __dask_tokenize__(self) -> str:
        return self._token

    @staticmethod
    def __dask_optimize__(graph: Graph, keys: Any, **options: Any) -> Graph:
        return graph

    __dask_scheduler__ = staticmethod(dask.threaded.get)

    def __dask_postcompute__(self) -> tuple[Callable[..., State], tuple[Any, ...]]:
        return _collect, (self._plan,)

    def __dask_postpersist__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._rebuild, ()

    def _rebuild(self, graph: Graph, **options: Any) -> FlowCollection:
        fresh = object.__new__(FlowCollection)
        fresh._plan, fresh._keys = self._plan, self._keys
        fresh._token, fresh._graph = self._token, graph
        return fresh

    def __repr__(self) -> str:
        return f"<FlowCollection {self._plan.flow_name!r}: {len(self._graph)} keys>"


def _collect(outcomes: Sequence[Sequence[Outcome]], plan: Plan) -> State:
    """State of the flow run from what the keys gave."""
    states: list[State] = []
    for node, found in zip(plan.nodes, outcomes, strict=True):
        if node.constant:
            states.append(Completed(data=node.task.value))  # type: ignore[attr-defined]
        else:
            states.append(state_of(found))
    return flow_state(plan, with_causes(plan, states))


class _SharedValue(NamedTuple):
    """Stands for a large constant that is an argument of its own."""

    position: int


class _NodeWork(NamedTuple):
    """What one key of a collection runs."""

    node: Node
    measured: bool
    flattened: bool
    span: tuple[int, int] | None
    above: tuple[tuple[int, int], ...]  # node and number of its outcomes


def _collection_graph(
    plan: Plan, record: RunRecord, target: Callable[..., Any]
) -> tuple[Graph, list[tuple[Key, ...]]]:
    graph: Graph = {}
    packer = Packer()
    suffix = record.run_id[:8]
    own = _pack_record(packer, record)
    spans: dict[int, list[tuple[int, int]]] = {}
    keys: list[tuple[Key, ...]] = []

    def place(part: bytes) -> TaskRef:
        key = f"payload-{suffix}-{tokenize(part)}"
        graph[key] = GraphTask(key, load_shared, part)
        return TaskRef(key)

    for node in plan.nodes:
        if node.constant:
            keys.append(())
            continue
        found = _known_spans(plan, node, spans)
        if found is not None:
            spans[node.index] = found
        mine = []
        pieces: Sequence[tuple[int, int] | None] = found or [None]
        for span in pieces:
            above = _keys_above(plan, node, span, spans, keys)
            work = _NodeWork(
                node,
                node.index in plan.measured,
                node.index in plan.flattened,
                span,
                tuple((index, len(some)) for index, some in above),
            )
            arguments: list[Any] = [TaskRef(key) for _, some in above for key in some]
            packed = _pack_work(packer, work, len(arguments))
            arguments += [place(part) for part in packed.shared]
            key = _node_key(node, suffix, span)
            ours: Any = place(own) if isinstance(own, bytes) else own
            graph[key] = GraphTask(
                key, target, packed.header, packed.inline, ours, *arguments
            )
            mine.append(key)
        keys.append(tuple(mine))
    return graph, keys


def _node_key(node: Node, suffix: str, span: tuple[int, int] | None) -> Key:
    return f"{node.name}-{suffix}", node.index, 0 if span is None else span[0]


def _known_spans(
    plan: Plan, node: Node, spans: Mapping[int, list[tuple[int, int]]]
) -> list[tuple[int, int]] | None:
    """Spans of a fan-out whose length is known beforehand, else `None`."""
    lengths = set()
    aligned: list[tuple[int, int]] | None = None
    for item in node.inputs:
        if not item.mapped:
            continue
        if item.node is None:
            items = items_of(item.value)
            if items is not None:
                lengths.add(len(items))
        elif item.node in spans and not item.flattened:
            aligned = spans[item.node]
            lengths.add(aligned[-1][1])
        else:
            return None
    if len(lengths) != 1 or lengths == {0}:
        return None  # nothing, or a mistake: the node is told so when it runs
    if aligned is not None:
        return aligned
    length = lengths.pop()
    size = -(-length // MOST_SPANS)
    return [(at, min(at + size, length)) for at in range(0, length, size)]


def _keys_above(
    plan: Plan,
    node: Node,
    span: tuple[int, int] | None,
    spans: Mapping[int, list[tuple[int, int]]],
    keys: Sequence[tuple[Key, ...]],
) -> list[tuple[int, tuple[Key, ...]]]:
    """Keys a node reads: of an elementwise input, only those of its own span."""
    above = []
    for index in plan.upstream[node.index]:
        some = keys[index]
        elementwise = all(
            i.mapped and not i.flattened for i in node.inputs if i.node == index
        )
        if span is not None and elementwise and spans.get(index):
            some = tuple(
                key
                for key, other in zip(some, spans[index], strict=True)
                if other[0] < span[1] and span[0] < other[1]
            )
        above.append((index, some))
    return above


def _pack_work(packer: Packer, work: _NodeWork, arguments: int) -> PackedBlock:
    """Pickle a node; its large constants become arguments of their own."""
    shared: dict[bytes, int] = {}
    inputs = []
    for item in work.node.inputs:
        if item.node is None and is_large(item.value):
            told = f"argument {item.key!r} of task {work.node.name!r}"
            part = packer.pack_value(item.value, lambda told=told: told)  # type: ignore[misc]
            position = shared.setdefault(part, arguments + len(shared))
            inputs.append((item, _SharedValue(position)))
        else:
            inputs.append((item, item.value))
    node = _with_inputs(work.node, inputs)
    return packer.pack_object(work._replace(node=node), arguments, shared)


def _with_inputs(node: Node, inputs: Iterable[tuple[Any, Any]]) -> Node:
    fresh = tuple(
        type(item)(item.key, item.node, value, item.mapped, item.flattened, item.edge)
        for item, value in inputs
    )
    return replace(node, inputs=fresh)


def run_work(
    header: bytes,
    inline: Sequence[SmallPart],
    record: Any,
    arguments: Sequence[Any],
    shell: Shell,
) -> Outcome:
    """Run what one key of a collection stands for.

    Parameters
    ----------
    header, inline, record, arguments
        As the graph has them.
    shell : Shell
        Calls user code and waits.
    """
    work: _NodeWork = unpack(header, inline, arguments)
    run = load_small(record) if isinstance(record, SmallPart) else record
    node = _with_inputs(
        work.node,
        [
            (i, arguments[i.value.position])
            if isinstance(i.value, _SharedValue)
            else (i, i.value)
            for i in work.node.inputs
        ],
    )
    above: dict[int, Sequence[Outcome]] = {}
    at = 0
    for index, count in work.above:
        above[index] = arguments[at : at + count]
        at += count
    return run_node(
        node,
        above,
        run.variables,
        shell,
        measured=work.measured,
        flattened=work.flattened,
        span=work.span,
    )
