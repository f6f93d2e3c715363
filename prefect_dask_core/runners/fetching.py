"""Fetching: brings values home that have stayed on the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distributed import Client, Future

from prefect_dask_core.engine.feeds import segment_in
from prefect_dask_core.errors import MissingResult


class Fetch:
    """Brings the values of a segment home; keeps them alive on the cluster."""

    def __init__(self, future: Future[Any], node: int) -> None:
        self._future = future
        self._node = node

    def __call__(self) -> Sequence[Any]:
        """The values; `MissingResult` if they are gone."""
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


def fetch_child(client: Client, future: Future[Any], node: int, offset: int) -> Any:
    """Value of one child, and no more than that.

    Parameters
    ----------
    client : Client
        Client of the future.
    future : Future
        Of the block that the child was in.
    node, offset : int
        The mapped node, and the place of the child among those of the block.
    """
    return client.submit(_pick, future, node, offset, pure=False).result()


def _pick(result: Any, node: int, offset: int) -> Any:
    """Value of one child; runs where the block's result is."""
    return segment_in(result, node).value(offset)
