"""Ledgers: the ledger that a command reads, and what it tells of a run in a line."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from prefect_dask_core.config import default_ledger, ledger_url
from prefect_dask_core.errors import LedgerError, ResumeError
from prefect_dask_core.ledger import Ledger, RunRecord
from prefect_dask_core.resumptions import is_alive

#: Characters of an id that are shown.
SHOWN = 8


def ledger_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that names a ledger."""
    return click.option(
        "--ledger",
        metavar="URL",
        help="Ledger: a file, or a URL such as postgresql://user@host/database. Unless "
        "given, that of the settings, else the default file.",
    )(function)


@contextlib.contextmanager
def opened(url: str | None) -> Iterator[Ledger]:
    """The ledger of a command; what is wrong with it is told without a traceback.

    Parameters
    ----------
    url : str or None
        What the command was given.
    """
    try:
        yield Ledger(url or ledger_url() or default_ledger(), must_exist=True)
    except (LedgerError, ResumeError, ImportError) as error:
        told = str(error)
        if told.startswith("there is no ledger"):
            told += " Name another one with --ledger."
        raise click.ClickException(told) from error


def told_state(record: RunRecord, now: float | None = None) -> str:
    """State of a run; ``"Lost"`` if its client seems to have died."""
    return "Lost" if is_lost(record, now) else record.state


def is_lost(record: RunRecord, now: float | None = None) -> bool:
    """Whether a run has no end, and its client seems to have died."""
    return record.end is None and not is_alive(record, now or time.time())


def told_time(seconds: float) -> str:
    """A moment in local time.

    Examples
    --------
    >>> len(told_time(0.0))
    19
    """
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose columns are as wide as they have to be.

    Examples
    --------
    >>> table(["RUN", "STATE"], [["1", "Failed"], ["12", ""]])
    ['RUN  STATE', '1    Failed', '12']
    """
    every = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in every
    ]
