"""Lineage: which assets a flow run made, of which others, and how that ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from prefect_dask_core.assets import Asset
from prefect_dask_core.materializing import MaterializingTask
from prefect_dask_core.states import Cached, Materialized, State
from prefect_dask_core.tasks import Task

_SHARED: Final = (bool, type(None))
_SMALL_INTS: Final = range(-5, 257)


@dataclass(frozen=True, slots=True)
class AssetRecord:
    """What one run did to one asset.

    Parameters
    ----------
    asset : Asset
        The asset.
    event : str
        ``"succeeded"``, ``"failed"``, or ``"referenced"`` where it was only read.
    run : str
        Name of the run.
    upstream : tuple of Asset
        What the asset was made of; empty of one that was only read.
    by : str or None
        Tool that made it.
    metadata : mapping of str to object
        What the body added.
    """

    asset: Asset
    event: str
    run: str
    upstream: tuple[Asset, ...] = ()
    by: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Lineage:
    """Follows assets from run to run.

    Plain tasks pass on the assets above them. A value that a called task returned is
    followed by its identity, so it is kept while it has assets and the flow runs.
    """

    def __init__(self) -> None:
        self._passed: dict[str, tuple[Asset, ...]] = {}
        self._made: dict[int, tuple[Any, tuple[Asset, ...]]] = {}
        self._open: dict[str, AssetRecord] = {}
        self._own: dict[str, tuple[Asset, ...]] = {}
        self.records: list[AssetRecord] = []

    def add(
        self, task: Task, name: str, above: Iterable[str], values: Sequence[Any] = ()
    ) -> None:
        """Take in a run.

        Parameters
        ----------
        task : Task
            Its task.
        name : str
            Its name.
        above : iterable of str
            Names of the runs whose values it gets.
        values : sequence of object
            Other arguments, which a called run may have returned.
        """
        own = task.assets if isinstance(task, MaterializingTask) else ()
        if not own and not task.asset_deps and not self._passed:
            return
        found = dict.fromkeys(task.asset_deps)
        for other in above:
            found.update(dict.fromkeys(self._passed.get(other, ())))
        for value in values:
            kept = self._made.get(id(value))
            if kept is not None and kept[0] is value:
                found.update(dict.fromkeys(kept[1]))
        upstream = tuple(found)
        passed = own or upstream
        if passed:
            self._passed[name] = passed
        if own:
            by = task.materialized_by if isinstance(task, MaterializingTask) else None
            self._own[name] = own
            self._open[name] = AssetRecord(own[0], "", name, upstream, by)

    def ended(self, name: str, state: State) -> None:
        """Take in how a run ended."""
        passed = self._passed.get(name)
        if passed is None:
            return
        if state.is_successful() and not state.is_mapped():
            self._follow(state.data, passed)
        record = self._open.pop(name, None)
        if record is None or isinstance(state, Cached) or not state.is_final():
            return
        states = list(state.states or ()) if state.is_mapped() else [state]
        good = all(one.is_successful() for one in states)
        notes = [one.asset_metadata for one in states if isinstance(one, Materialized)]
        for asset in self._own[name]:
            metadata: dict[str, Any] = {}
            for note in notes:
                metadata.update(note.get(asset.key, {}))
            event = "succeeded" if good else "failed"
            self.records.append(
                replace(record, asset=asset, event=event, metadata=metadata)
            )
        self.records += [
            AssetRecord(asset, "referenced", name) for asset in record.upstream
        ]

    def _follow(self, value: Any, assets: tuple[Asset, ...]) -> None:
        if not is_shared(value):
            self._made[id(value)] = (value, assets)


def is_shared(value: Any) -> bool:
    """Whether a value is one object everywhere, so that its identity tells nothing.

    Examples
    --------
    >>> is_shared(None), is_shared(7), is_shared([])
    (True, True, False)
    """
    if isinstance(value, _SHARED):
        return True
    return isinstance(value, int) and value in _SMALL_INTS
