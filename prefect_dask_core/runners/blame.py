"""What Dask says of blocks that were lost."""

from __future__ import annotations

from typing import Any, Final

from distributed import Future, KilledWorker

#: Seconds the scheduler is given to answer before it counts as gone.
PATIENCE: Final = 30.0


def error_of(future: Future[Any]) -> BaseException | None:
    """What an erred future raised; `None` if it did not err.

    Parameters
    ----------
    future : Future
        Of the block.
    """
    if future.status != "error":
        return None
    error: BaseException | None = future.exception(timeout=PATIENCE)
    return error


def reason_of(error: BaseException | None) -> str:
    """Why a block was lost, for people; without an error it was cancelled."""
    if error is None:
        return "its Dask future was cancelled or lost."
    if isinstance(error, KilledWorker):
        return (
            f"{error.allowed_failures + 1} workers died while running it; the last "
            f"was {error.last_worker.address}."
        )
    return f"{type(error).__name__}: {error}"


def last_worker(error: BaseException | None) -> str:
    """Address of the worker that a block died with; empty if none did."""
    return error.last_worker.address if isinstance(error, KilledWorker) else ""
