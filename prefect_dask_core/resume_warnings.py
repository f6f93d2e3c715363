"""Resume warnings: what a person should know of a run that is resumed."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from prefect_dask_core.engine.plan import Plan
from prefect_dask_core.engine.resume import Earlier
from prefect_dask_core.results.keeping import Keeper
from prefect_dask_core.resumptions import Resumption

_LOGGER: Final = logging.getLogger("prefect_dask_core.resuming")


def log_nothing_found(
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


def log_left_behind(
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


def log_missing(resumption: Resumption, plan: Plan, earlier: Earlier) -> None:
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


def log_differences(
    resumption: Resumption,
    plan: Plan,
    told: Mapping[int, Collection[str]],
    gone: list[str],
) -> None:
    """Warn of the nodes that differ from those of the first run, and of those gone."""
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
