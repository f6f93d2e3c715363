"""Watchers: who watches the runs of this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.monitor.progress import progress_maker
from prefect_dask_core.monitor.watching import Maker

_OF_EVERY_RUN: Final[list[Maker]] = []


@contextlib.contextmanager
def watched_by(make: Maker) -> Iterator[None]:
    """Let somebody watch all flow runs that begin in this process meanwhile.

    Parameters
    ----------
    make : callable (RunView) -> Watcher or None
        Called when a run begins, before it has nodes; `None`: this one is not watched.
    """
    watch_every_run(make)
    try:
        yield
    finally:
        _OF_EVERY_RUN.remove(make)


def watch_every_run(make: Maker) -> None:
    """Let somebody watch all flow runs that begin in this process from now on."""
    _OF_EVERY_RUN.append(make)


def check_progress(flow: str, progress: object) -> None:
    """Refuse what says neither yes nor no.

    Raises
    ------
    OptionTypeError
        If `progress` is not a bool or `None`; also a `TypeError`.
    """
    if progress is not None and not isinstance(progress, bool):
        raise OptionTypeError(
            f"flow {flow!r}: progress={progress!r}, but expected True, False, or None "
            "for what dask.config says under prefect-dask-core.progress."
        )


def makers_of(progress: bool | None) -> list[Maker]:
    """Who is asked whether to watch a run.

    Parameters
    ----------
    progress : bool or None
        What the run was told of its progress.
    """
    return [*_OF_EVERY_RUN, progress_maker(progress)]
