"""Resuming: what the ledger knows of a run that is to go on under its own id.

Two memories are asked when a run is resumed. The ledger says which task runs ended and
how, so that what nobody needs again is not even submitted. The store has the values,
and each task run looks there for its own: so nothing depends on the last batch that a
client wrote before it died.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import psutil  # type: ignore[import-untyped]

from prefect_dask_core.engine.columns import Children
from prefect_dask_core.engine.feeds import is_success
from prefect_dask_core.engine.plan import Input, Plan
from prefect_dask_core.engine.resume import NOTHING_EARLIER, Earlier, resume_after
from prefect_dask_core.errors import LedgerError, ResumeError
from prefect_dask_core.ledger import Ledger, LedgerRun, NodeRecord, RunRecord
from prefect_dask_core.made_of import NO_CHANGE, Change, MadeOf, change_of, joined
from prefect_dask_core.parameters import Parameter
from prefect_dask_core.recording import SIGN_OF_LIFE
from prefect_dask_core.remembering import state_of
from prefect_dask_core.results.keeping import MADE_ANEW, Keeper, MadeAnew
from prefect_dask_core.results.store import ResultStore
from prefect_dask_core.states import State

_LOGGER: Final = logging.getLogger(__name__)


class Edge(NamedTuple):
    """An input of a node, as two runs compare it."""

    key: str | None
    above: str
    mapped: bool
    flattened: bool


@dataclass(frozen=True, slots=True)
class Resumption:
    """A run that goes on under its id.

    Parameters
    ----------
    run_id : str
        Its id, hexadecimal.
    first : LedgerRun or None
        What the ledger knows; `None` if nothing is recorded: then the store alone
        says what need not run again.
    """

    run_id: str
    first: LedgerRun | None = None

    @property
    def after(self) -> int:
        """The attempt that it goes on after; 0 of one that is not recorded."""
        return 0 if self.first is None else self.first.record.attempt

    @property
    def name(self) -> str | None:
        """Name of the run, as far as it is known."""
        return None if self.first is None else self.first.record.name

    @property
    def places(self) -> tuple[str, ...]:
        """Folders of this machine that its values are stored in, as it is recorded."""
        spans = () if self.first is None else self.first.spans
        found = {span.kept.place for _, span in spans if span.kept is not None}
        return tuple(sorted(filter(os.path.isdir, found)))

    def tell_if_unknown(
        self, flow: str, given: Collection[str], declared: Collection[str]
    ) -> None:
        """Warn of parameters that have their defaults because nothing is recorded.

        Parameters
        ----------
        flow : str
            Name of the flow.
        given, declared : collection of str
            Parameters that are given now, and all that the flow has.
        """
        left = [repr(name) for name in declared if name not in given]
        if self.first is None and left:
            _LOGGER.warning(
                "flow %r resumes run %s without a ledger, so what its parameters were "
                "is not known: %s not given now, and the default stands; give the "
                "parameters that the run had, or the ledger= that it is recorded in",
                flow,
                self.run_id,
                f"{', '.join(left)} {'is' if len(left) == 1 else 'are'}",
            )

    def parameters(
        self, given: Mapping[str, Any], declared: Collection[str]
    ) -> dict[str, Any]:
        """Parameters of the first run, and those that are given now.

        Parameters
        ----------
        given : mapping of str to object
            Those that are given now.
        declared : collection of str
            Those that the flow has now.

        Raises
        ------
        ResumeError
            If one was not kept and is not given.
        """
        if self.first is None:
            return dict(given)
        wanted = [name for name in declared if name not in given]
        known = self._kept(wanted)
        for name, told in self.first.parameters_told.items():
            if name in declared and name not in known and name not in given:
                raise ResumeError(
                    f"run {self.run_id} cannot be resumed without its parameter "
                    f"{name!r}, which the ledger does not have ({told}); give it: "
                    f"{self._giving(name)}."
                )
        return {**known, **given}

    def _kept(self, names: Collection[str]) -> dict[str, Any]:
        """Parameters that the ledger has."""
        assert self.first is not None
        try:
            return self.first.parameters(names)
        except LedgerError as error:
            raise ResumeError(f"{error}; give it to resume the run.") from error

    def before(self) -> dict[str, Any]:
        """Parameters of the first run, as far as they can be compared with others."""
        found: dict[str, Any] = {}
        for name in () if self.first is None else self.first.parameters_told:
            # What cannot be unpickled any more is another value.
            with contextlib.suppress(LedgerError):
                found.update(self.first.parameters([name]))  # type: ignore[union-attr]
        return found

    def _giving(self, name: str) -> str:
        """How a parameter is given to a run that is resumed."""
        if self.first is not None and self.first.record.kind == "function":
            call = f"my_flow.resume(run_id, {{{name!r}: ...}})"
        else:
            call = f"flow.run(resume=run_id, parameters={{{name!r}: ...}})"
        return f"{call}, or dask flow resume ... --param {name}=VALUE"


def find_run(
    ledger: Ledger | None, flow: str, kind: str, asked: str | uuid.UUID
) -> Resumption:
    """Find a run that is to be resumed.

    Parameters
    ----------
    ledger : Ledger or None
        Where it may be recorded.
    flow, kind : str
        Name of the flow that resumes it; ``"graph"`` or ``"function"``.
    asked : str or uuid.UUID
        Its id; in a ledger its first characters will do.

    Raises
    ------
    UnknownRunError
        If the ledger has no such run, or several.
    ResumeError
        If it is of another flow, or still runs; without a ledger, if it is no id.
    """
    if ledger is None:
        try:
            return Resumption(uuid.UUID(str(asked)).hex)
        except ValueError:
            raise ResumeError(
                f"flow {flow!r} cannot resume {asked!r}: without a ledger only a whole "
                "id, 32 hexadecimal digits, says which run is meant."
            ) from None
    first = ledger.run(str(asked))
    record = first.record
    if (record.flow, record.kind) != (flow, kind):
        what = f"flow {record.flow!r}"
        if record.flow == flow:
            what = f"a {record.kind} flow of the same name"
        raise ResumeError(
            f"flow {flow!r} cannot resume run {record.id}, which is one of {what}."
        )
    if is_alive(record, time.time()):
        raise ResumeError(
            f"run {record.id} of flow {flow!r} still runs, in process "
            f"{record.process} on {record.host}; resume it when that has ended. On "
            f"another host it counts as dead {3 * SIGN_OF_LIFE:g} s after its last "
            "sign of life."
        )
    return Resumption(record.id, first)


def is_alive(record: RunRecord, now: float) -> bool:
    """Whether the client of a run that has no end still seems to run it.

    Parameters
    ----------
    record : RunRecord
        The run.
    now : float
        Seconds since the epoch.
    """
    if record.end is not None:
        return False
    if record.host != socket.gethostname() or record.process == os.getpid():
        return now - record.seen < 3 * SIGN_OF_LIFE
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(record.process)
        # Else another process has its number by now.
        older = found.create_time() <= record.attempt_begin + 1.0
        return bool(older and found.status() != psutil.STATUS_ZOMBIE)
    return False


# -- what differs ------------------------------------------------------------------


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


# -- what stands -------------------------------------------------------------------


class Resumed(NamedTuple):
    """What a run that is resumed begins with.

    Parameters
    ----------
    plan : Plan
        In which nodes that read something else now know what not to take.
    earlier : Earlier
        What stands.
    anew : dict of int to MadeAnew
        What does not stand any more, by node; for the ledger.
    """

    plan: Plan
    earlier: Earlier = NOTHING_EARLIER
    anew: Mapping[int, MadeAnew] = {}


def resume_plan(
    resumption: Resumption,
    plan: Plan,
    keepers: Mapping[int, Keeper],
    made_of: Mapping[int, MadeOf],
    changed: frozenset[int],
    now: float,
) -> Resumed:
    """Decide what of the first run stands.

    Parameters
    ----------
    resumption : Resumption
        The run that goes on.
    plan : Plan
        What will run.
    keepers : mapping of int to Keeper
        How the values of nodes are kept in a store, of those that are.
    made_of : mapping of int to MadeOf
        What the nodes are made of, of all but constants.
    changed : frozenset of int
        Parameters that have another value now.
    now : float
        Seconds since the epoch.
    """
    first = resumption.first
    if first is None:
        _log_nothing_found(resumption, plan, keepers)
        return Resumed(plan)
    _log_left_behind(resumption, plan, keepers)
    runs = list(made_of)
    changes = differences(plan, made_of, first)
    parameters = [n for n in runs if isinstance(plan.nodes[n].task, Parameter)]
    # Another value of one is no change of the flow.
    told = {n: c.told for n, c in changes.items() if n not in parameters}
    slugs = {plan.nodes[number].slug for number in runs}
    gone = [slug for slug in first.nodes if slug not in slugs]
    _log_differences(resumption, plan, told, gone)
    changes |= {number: Change((), None) for number in changed}
    states = {
        number: state_of(first, plan.nodes[number].slug, _store(keepers, number))
        for number in runs
        if plan.nodes[number].slug in first.nodes
    }
    stale = stale_nodes(plan, states, changes)
    anew = {number: MadeAnew(now, indexes) for number, indexes in stale.items()}
    outdated = outdated_before(plan, first)
    refused = dict(anew)
    for number, (before, left) in outdated.items():
        known = anew.get(number)
        refused[number] = before if known is None else known._replace(before=before)
        if left is None or left:
            change = changes.get(number, NO_CHANGE)
            changes[number] = change | Change((), left)
    nodes = tuple(
        replace(node, variables={**node.variables, MADE_ANEW: refused[node.index]})
        if node.index in refused
        else node
        for node in plan.nodes
    )
    differs = {n: None if c.resized else c.indexes for n, c in changes.items()}
    earlier = resume_after(plan, states, differs, frozenset(keepers))
    _log_missing(resumption, plan, earlier)
    return Resumed(replace(plan, nodes=nodes), earlier, anew)


def _log_nothing_found(
    resumption: Resumption, plan: Plan, keepers: Mapping[int, Keeper]
) -> None:
    """Warn if it is certain that no value of a run is to be found."""
    stores = {keeper.store for keeper in keepers.values() if keeper.store is not None}
    if any(keeper.store is None for keeper in keepers.values()):
        return  # results of the graph generations do not say whose they are
    if any(store.has_values_of(resumption.run_id) is not False for store in stores):
        return
    told = ", ".join(sorted(store.url for store in stores))
    _LOGGER.warning(
        "flow %r resumes run %s, but nothing of that run was found %s; it runs as if "
        "for the first time. If it is recorded in a ledger, give ledger=",
        plan.flow_name,
        resumption.run_id,
        f"in {told}" if told else "and no task keeps its values",
    )


def _log_left_behind(
    resumption: Resumption, plan: Plan, keepers: Mapping[int, Keeper]
) -> None:
    """Warn, once, of values that are not looked for where they were stored."""
    first = resumption.first
    assert first is not None
    counts: Counter[tuple[str, str]] = Counter()
    for number, keeper in keepers.items():
        slug, store = plan.nodes[number].slug, keeper.store
        if store is None or slug not in first.nodes:
            continue
        gone = store.is_local and not os.path.isdir(store.url)
        columns = first.columns(slug)
        for place, key in zip(columns.stores, columns.keys, strict=True):
            if place is None or key is None:
                continue
            if place != store.url:
                counts[place, f"are looked for in {store.url}"] += 1
            elif gone:
                counts[place, "were not found there"] += 1
    if counts:
        told = [
            f"{n:,} task runs that are stored in {place} {why}"
            for (place, why), n in counts.items()
        ]
        _LOGGER.warning(
            "run %s: the values of %s; what needs them computes them again",
            resumption.run_id,
            "; ".join(told),
        )


def _log_missing(resumption: Resumption, plan: Plan, earlier: Earlier) -> None:
    """Warn if nothing runs, and the run has no value to give."""
    runs = [node.index for node in plan.nodes if not node.constant]
    if not all(n in earlier.kept and earlier.kept[n].is_whole for n in runs):
        return
    missing = [
        plan.nodes[number].slug
        for number in sorted((plan.reference | plan.terminal).intersection(runs))
        if any(part.values is None for part in earlier.kept[number].segments)
    ]
    if missing:
        _LOGGER.warning(
            "run %s had ended well, and nothing of it runs again; the values of %s "
            "were not stored, so they are missing in its state: to have them, let the "
            "tasks keep them with persist_result=True, and run the flow anew",
            resumption.run_id,
            ", ".join(missing),
        )


def _log_differences(
    resumption: Resumption,
    plan: Plan,
    told: Mapping[int, Collection[str]],
    gone: list[str],
) -> None:
    if told or gone:
        lines = [f"{plan.nodes[n].slug}: {'; '.join(t)}" for n, t in told.items()]
        lines += [f"{slug}: it is gone" for slug in gone]
        _LOGGER.warning(
            "run %s is resumed by a flow %r that has changed; what differs runs again, "
            "with all that reads it: %s",
            resumption.run_id,
            plan.flow_name,
            "; ".join(lines),
        )


def _store(keepers: Mapping[int, Keeper], number: int) -> ResultStore | None:
    return keepers[number].store if number in keepers else None


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
