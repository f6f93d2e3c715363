"""Whole nodes: run all of one node at once, its length found on the way.

This is the plainest reading of a plan: node after node, each with all its children.
The sequential runner is nothing else, and a graph compiled for any Dask scheduler
runs a fan-out of unknown length this way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from prefect_dask_core.engine.block import NOT_PAUSED, Block, Step
from prefect_dask_core.engine.block_results import BlockResult, result_of
from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.effects import Shell
from prefect_dask_core.engine.fanout import (
    elements_in,
    mapped_length,
    nothing_to_map,
)
from prefect_dask_core.engine.flattening import count_elements
from prefect_dask_core.engine.plan import Input, Node, flattened, items_of
from prefect_dask_core.engine.resume import Kept
from prefect_dask_core.engine.running import run_block
from prefect_dask_core.engine.segments import Segment, is_success
from prefect_dask_core.engine.sources import (
    Each,
    Filled,
    Fixed,
    Items,
    Source,
    StepInput,
    Whole,
)
from prefect_dask_core.engine.templates import PART, has_template, nodes_of
from prefect_dask_core.states import Mapped, State


class Outcome(NamedTuple):
    """What became of a node, or of a span of its children.

    Parameters
    ----------
    node : int
        The node.
    name : str
        Name of its task.
    fanout : bool
        Whether it has children; a mapped node with nothing to map over has none.
    length : int
        Number of children of the whole node.
    result : BlockResult
        States and values.
    """

    node: int
    name: str
    fanout: bool
    length: int
    result: BlockResult


Outcomes = Mapping[int, Sequence[Outcome]]


def run_node(
    node: Node,
    above: Outcomes,
    variables: Mapping[str, Any],
    shell: Shell,
    *,
    measured: bool,
    flattened: bool = False,
    paused: Mapping[int, str] = NOT_PAUSED,
    span: tuple[int, int] | None = None,
    tolerated: Collection[int] = (),
) -> Outcome:
    """Run a node.

    Parameters
    ----------
    node : Node
        The node.
    above : mapping of int to sequence of Outcome
        By node above: one outcome, or one per span of its children in index order.
    variables : mapping
        Context variables of the flow run.
    shell : Shell
        Calls user code and waits.
    measured : bool
        Whether other nodes map over its value.
    flattened : bool
        Whether other nodes map over its flattened value or children.
    paused : mapping of int to str
        Runs that are resumed from a pause, by index: the name of the pause.
    span : tuple of int, optional
        Children to run, where the caller knows the length; all of them otherwise.
    tolerated : collection of int
        Nodes above that may have ended in any way.
    """
    refusal: Exception | None = None
    length = 1
    if node.mapped:
        found = mapped_length(
            node, partial(_length_above, node, above), partial(_skipped_above, above)
        )
        if isinstance(found, Exception):
            refusal = found
        else:
            length = found
    fanout = node.mapped and refusal is None
    start, stop = span if fanout and span is not None else (0, length)
    arguments: list[BlockResult] = []
    parts = {item.node for item in node.inputs if item.value is PART}
    inputs = tuple(
        StepInput(
            item.key,
            "" if item.node is None else above[item.node][0].name,
            _source(item, above, arguments, (start, stop) if fanout else None, parts),
            item.edge,
            item.node in tolerated,
        )
        for item in node.inputs
        if item.value is not PART
    )
    step = Step(
        node.index,
        node.task,
        node.slug,
        inputs,
        mapped=fanout,
        measured=measured and not fanout,
        flattened=flattened,
        refusal=refusal,
        paused=paused,
        variables=node.variables,
    )
    block = Block(node.index, (step,), start, stop, 0.0, frozenset({node.index}))
    result, _ = run_block(block, arguments, variables, shell)
    return Outcome(node.index, node.name, fanout, length, result)


def _length_above(node: Node, above: Outcomes, item: Input) -> int | Exception | None:
    """Items a node above has to map over, `None` if its value stands for itself."""
    assert item.node is not None
    outcomes = above[item.node]
    first = outcomes[0]
    segments = [outcome.result.segments[item.node] for outcome in outcomes]
    if first.fanout:
        if item.flattened:
            counts = [segment.flat_length for segment in segments]
            return elements_in(node.name, first.name, counts)
        return first.length
    if not is_success(segments[0]):
        return nothing_to_map(node.name, first.name, segments[0].state(0))
    return segments[0].flat_length if item.flattened else segments[0].length


def _skipped_above(above: Outcomes, item: Input) -> str | None:
    """Name of the task above, if it was skipped for all children at once."""
    assert item.node is not None
    outcomes = above[item.node]
    segments = [outcome.result.segments[item.node] for outcome in outcomes]
    first = outcomes[0]
    if not first.fanout:
        return first.name if segments[0].state(0).is_skipped() else None
    whole = not item.mapped
    skipped = Children(first.length, segments).any_skipped()
    return first.name if whole and skipped else None


def _source(
    item: Input,
    above: Outcomes,
    arguments: list[BlockResult],
    span: tuple[int, int] | None,
    parts: Collection[int | None] = (),
) -> Source:
    if item.node is None:
        items = items_of(item.value) if item.mapped and span is not None else None
        constant: Fixed | Items = Fixed(item.value)
        if items is not None and span is not None:
            constant = Items(items[span[0] : span[1]], span[0])
        if not parts and not has_template(item.value):
            return constant
        return _filled(constant, item.value, above, arguments)
    outcomes = above[item.node]
    fanout = outcomes[0].fanout
    if not fanout:
        outcomes = outcomes[:1]  # spans that could not be mapped all say the same
    positions = tuple(range(len(arguments), len(arguments) + len(outcomes)))
    arguments.extend(outcome.result for outcome in outcomes)
    each = item.mapped and span is not None
    if each and not fanout and item.node not in outcomes[0].result.items:
        each = False  # it cannot be iterated, so it is the same for every child
    kind = Each if each else Whole
    return kind(item.node, positions, fanout, item.flattened)


def _filled(
    constant: Fixed | Items,
    value: Any,
    above: Outcomes,
    arguments: list[BlockResult],
) -> Source:
    """A constant with templates, and where what fills them is."""
    places = []
    for number in dict.fromkeys(nodes_of(value)):
        outcomes = above[number]
        positions = tuple(range(len(arguments), len(arguments) + len(outcomes)))
        arguments.extend(outcome.result for outcome in outcomes)
        whole = Whole(number, positions, outcomes[0].fanout)
        places.append((outcomes[0].name, whole))
    return Filled(constant, tuple(places))


def measure(outcome: Outcome) -> None:
    """Count what the value of a plain node has to map over, if that was not done yet.

    A function flow says only after a run that another maps over its value.
    """
    node, result = outcome.node, outcome.result
    segment = result.segments[node]
    if outcome.fanout:
        if segment.flat_length is None:
            segment.flat_length = count_elements(segment)
    elif node not in result.items and segment.values is not None:
        if not is_success(segment):
            return
        found = items_of(segment.values[0])
        if found is not None:
            result.items[node] = found
            segment.length = len(found)
            segment.flat_length = len(flattened(found))


def kept_outcomes(node: Node, kept: Kept) -> list[Outcome]:
    """What stands of a node from an earlier run."""
    fanout = kept.length is not None
    length = kept.length if kept.length is not None else 1
    segments = kept.segments or (Segment(0),)
    return [
        Outcome(node.index, node.name, fanout, length, result_of({node.index: segment}))
        for segment in segments
    ]


def state_of(outcomes: Sequence[Outcome]) -> State:
    """State of a node from the outcomes of its spans."""
    first = outcomes[0]
    if not first.fanout:
        return first.result.segments[first.node].state(0)
    segments = [outcome.result.segments[first.node] for outcome in outcomes]
    return Mapped(states=Children(first.length, segments))
