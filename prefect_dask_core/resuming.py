"""Resuming: what the ledger knows of a run that is to go on under its own id.

Two memories are asked when a run is resumed. The ledger says which task runs ended and
how, so that what nobody needs again is not even submitted. The store has the values,
and each task run looks there for its own: so nothing depends on the last batch that a
client wrote before it died.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from prefect_dask_core.engine.plan import Plan
from prefect_dask_core.engine.resume import NOTHING_EARLIER, Earlier, resume_after
from prefect_dask_core.made_of import NO_CHANGE, Change, MadeOf
from prefect_dask_core.outdating import differences, outdated_before, stale_nodes
from prefect_dask_core.parameters import Parameter
from prefect_dask_core.remembering import state_of
from prefect_dask_core.results.keeping import MADE_ANEW, Keeper, MadeAnew
from prefect_dask_core.results.store import ResultStore
from prefect_dask_core.resume_warnings import (
    log_differences,
    log_left_behind,
    log_missing,
    log_nothing_found,
)
from prefect_dask_core.resumptions import Resumption


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
        log_nothing_found(resumption, plan, keepers)
        return Resumed(plan)
    log_left_behind(resumption, plan, keepers)
    runs = list(made_of)
    changes = differences(plan, made_of, first)
    parameters = [n for n in runs if isinstance(plan.nodes[n].task, Parameter)]
    # Another value of one is no change of the flow.
    told = {n: c.told for n, c in changes.items() if n not in parameters}
    slugs = {plan.nodes[number].slug for number in runs}
    gone = [slug for slug in first.nodes if slug not in slugs]
    log_differences(resumption, plan, told, gone)
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
    log_missing(resumption, plan, earlier)
    return Resumed(replace(plan, nodes=nodes), earlier, anew)


def _store(keepers: Mapping[int, Keeper], number: int) -> ResultStore | None:
    return keepers[number].store if number in keepers else None
