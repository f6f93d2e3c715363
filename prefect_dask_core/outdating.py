"""Outdating: what of an earlier run was made of something else than is given now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.plan import Input, Plan
from prefect_dask_core.engine.segments import is_success
from prefect_dask_core.ledger import LedgerRun, NodeRecord
from prefect_dask_core.made_of import NO_CHANGE, Change, MadeOf, change_of, joined
from prefect_dask_core.results.keeping import MadeAnew
from prefect_dask_core.states import State


class Edge(NamedTuple):
    """An input of a node, as two runs compare it."""

    key: str | None
    above: str
    mapped: bool
    flattened: bool


def differences(
    plan: Plan, made_of: Mapping[int, MadeOf], first: LedgerRun
) -> dict[int, Change]:
    """In what nodes differ from what they were when they were made.

    Parameters
    ----------
    plan : Plan
        What will run.
    made_of : mapping of int to MadeOf
        What its nodes are made of, of all but constants.
    first : LedgerRun
        The first run.

    Returns
    -------
    dict of int to Change
        Only for those that the first run had, and that differ.

    Notes
    -----
    Each attempt may have been one of another flow, so children are compared with what
    their node was in the attempt that made them.
    """
    slugs = {number: plan.nodes[number].slug for number in made_of}
    found = {}
    for number, now in made_of.items():
        node = plan.nodes[number]
        versions = first.versions.get(node.slug)
        if versions is None:
            continue
        edges = edges_of(node.inputs, slugs)
        change = NO_CHANGE
        made = first.attempts_of(node.slug) or {max(versions): None}
        for attempt, children in made.items():
            before = versions[attempt]
            told = difference(node.name, node.mapped, edges, before)
            if told is not None:
                change |= Change((told,), None)
            if before.made_of is not None:
                then = MadeOf.decode(before.made_of)
                # A list that has grown has children that no attempt made.
                one = change_of(now, then, node.inputs)
                change |= one if one.resized else one.among(children)
        if change:
            found[number] = change
    return found


class Outdated(NamedTuple):
    """What did not stand any more when earlier attempts began.

    Such an attempt may have died before it came to it: what was stored before is still
    there, and nothing of today tells it from what stands.

    Parameters
    ----------
    anew : MadeAnew
        Stored values that are not taken.
    left : frozenset of int or None
        Children that no attempt has run since then; `None`: the whole node.
    """

    anew: MadeAnew
    left: frozenset[int] | None


def outdated_before(plan: Plan, first: LedgerRun) -> dict[int, Outdated]:
    """What earlier attempts found outdated, by node."""
    found: dict[int, Outdated] = {}
    for node in plan.nodes:
        versions = {} if node.constant else first.versions.get(node.slug, {})
        for attempt, before in versions.items():
            anew = (
                None if before.made_of is None else MadeOf.decode(before.made_of).anew
            )
            if anew is None:
                continue
            known = found.get(node.index)
            left = _left(first, before, attempt, anew.indexes)
            if known is not None:
                anew = anew._replace(before=known.anew)
                left = joined(left, known.left)
            found[node.index] = Outdated(anew, left)
    return found


def _left(
    first: LedgerRun, node: NodeRecord, attempt: int, indexes: frozenset[int] | None
) -> frozenset[int] | None:
    """What of a node no attempt has run, from one attempt on."""
    left = indexes
    for number, children in first.attempts_of(node.slug).items():
        if number < attempt:
            continue
        if children is None:
            return frozenset()
        if left is None:
            length = first.nodes[node.slug].length
            left = frozenset(range(length or 0))
        left = left.difference(children)
    return left


def edges_of(inputs: Iterable[Input], slug_of: Mapping[int, str]) -> frozenset[Edge]:
    """Inputs of a node that other nodes give."""
    return frozenset(
        Edge(item.key, slug_of[item.node], item.mapped, item.flattened)
        for item in inputs
        if item.node is not None and item.node in slug_of
    )


def difference(
    task: str, mapped: bool, edges: frozenset[Edge], before: NodeRecord
) -> str | None:
    """In what a node differs from that of the first run; `None`: in nothing.

    Parameters
    ----------
    task : str
        Name of its task.
    mapped : bool
        Whether it is mapped.
    edges : frozenset of Edge
        Its inputs.
    before : NodeRecord
        What the ledger has.
    """
    if task != before.task:
        return f"it was a run of task {before.task!r} and is one of {task!r}"
    if mapped != before.mapped:
        return "it was mapped and is not" if before.mapped else "it was not mapped"
    earlier = frozenset(
        Edge(i.key, i.above, i.mapped, i.flattened) for i in before.inputs
    )
    gone, new = _told(earlier - edges), _told(edges - earlier)
    told = [f"it read {gone}"] if gone else []
    told += [f"it reads {new} now"] if new else []
    return " and ".join(told) or None


def _told(edges: Iterable[Edge]) -> str:
    return ", ".join(
        sorted(f"{edge.above} as {edge.key or 'what comes first'}" for edge in edges)
    )


def stale_nodes(
    plan: Plan, states: Mapping[int, State], changes: Mapping[int, Change]
) -> dict[int, frozenset[int] | None]:
    """Nodes whose stored values were made of what is different now.

    Parameters
    ----------
    plan : Plan
        What will run.
    states : mapping of int to State
        States of the first run, by node. What did not succeed there gives its readers
        something else now, if they read it at all: a trigger let them.
    changes : mapping of int to Change
        Nodes that differ themselves.

    Returns
    -------
    dict of int to frozenset of int or None
        By node, indices of the children that are stale; `None`: all of it.
    """
    stale: dict[int, frozenset[int] | None] = {}
    # What readers cannot take as it was: `None` the node, else some of its children.
    other: dict[int, frozenset[int] | None] = {}
    for node in plan.nodes:
        change = changes.get(node.index, NO_CHANGE)
        own = change.indexes
        # A list may have more or fewer items though each that it has is as it was.
        differs = bool(change)
        for item in node.inputs:
            if item.node is None or item.node not in other:
                continue
            differs = True
            above = other[item.node]
            if above is None or not item.mapped or item.flattened:
                own = None
                break
            own = own | above if own is not None else None
        if own is None or own:
            stale[node.index] = own
        failed = _failed(states.get(node.index))
        if own is None or failed is None:
            other[node.index] = None
        elif differs or failed:
            other[node.index] = own | failed
    return stale


def _failed(state: State | None) -> frozenset[int] | None:
    """Children that did not succeed; `None`: a plain node that did not."""
    if state is None:
        return frozenset()
    if isinstance(state.states, Children):
        return frozenset(
            segment.start + offset
            for segment in state.states.segments
            for offset in range(len(segment))
            if not is_success(segment, offset)
            and not segment.state(offset).is_skipped()
        )
    known = state.is_successful() or not state.is_final()
    return frozenset() if known else None
