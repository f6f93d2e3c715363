"""Materializing tasks: tasks that make assets."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from prefect_dask_core.assets import Asset, as_assets
from prefect_dask_core.context import context
from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.states import Materialized, State
from prefect_dask_core.tasks import Task

P = ParamSpec("P")
R = TypeVar("R")


class MaterializingTask(Task[P, R]):
    """A task that makes assets.

    Parameters
    ----------
    fn : callable
        The function.
    assets : iterable of Asset or str
        What it makes; at least one.
    materialized_by : str, optional
        The tool that does it, such as ``"dbt"``.
    **options
        Options of the task.

    Examples
    --------
    >>> from prefect_dask_core.assets import add_asset_metadata
    >>> @materialize("s3://bucket/sales.csv", retries=2)
    ... def sales():
    ...     add_asset_metadata("s3://bucket/sales.csv", {"rows": 3})
    >>> sales.assets, sales.retries
    ((Asset(key='s3://bucket/sales.csv', properties=None),), 2)
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        assets: Iterable[Asset | str],
        materialized_by: str | None = None,
        **options: Any,
    ) -> None:
        self.assets = as_assets(assets)
        if not self.assets:
            raise OptionTypeError(
                "a materializing task makes at least one asset; name it, as in "
                "@materialize('s3://bucket/sales.csv')."
            )
        self.materialized_by = materialized_by
        super().__init__(fn, **options)

    def with_options(
        self, assets: Iterable[Asset | str] | None = None, **options: Any
    ) -> MaterializingTask[P, R]:
        """Task over the same body with other options, or other assets."""
        twin: MaterializingTask[P, R] = super().with_options(**options)
        if assets:
            twin.assets = as_assets(assets)
        return twin

    def call_body(self, inputs: Mapping[str, Any]) -> Any:
        """Call the body, and give its value with what it said of its assets."""
        notes: dict[str, dict[str, Any]] = {asset.key: {} for asset in self.assets}
        with context(_asset_notes=notes):
            value = super().call_body(inputs)
            if inspect.isgenerator(value):
                value = list(value)
        if inspect.iscoroutine(value):
            return _awaited(value, notes)
        return _materialized(value, notes)


async def _awaited(value: Awaitable[Any], notes: dict[str, dict[str, Any]]) -> Any:
    with context(_asset_notes=notes):
        found = await value
    return _materialized(found, notes)


def _materialized(value: Any, notes: Mapping[str, Mapping[str, Any]]) -> Any:
    if isinstance(value, State) or not any(notes.values()):
        return value
    return Materialized(data=value, asset_metadata=notes)


def materialize(
    *assets: Asset | str, by: str | None = None, **options: Any
) -> Callable[[Callable[P, R]], MaterializingTask[P, R]]:
    """Make a task that makes assets, of a function.

    Parameters
    ----------
    *assets : Asset or str
        What it makes; at least one.
    by : str, optional
        The tool that does it.
    **options
        Options of the task.

    Raises
    ------
    OptionTypeError
        Without an asset.
    """
    if not assets or not all(isinstance(asset, Asset | str) for asset in assets):
        raise OptionTypeError(
            "@materialize needs an asset or its key; write "
            "@materialize('s3://bucket/sales.csv')."
        )

    def decorate(fn: Callable[P, R]) -> MaterializingTask[P, R]:
        return MaterializingTask(fn, assets=assets, materialized_by=by, **options)

    return decorate
