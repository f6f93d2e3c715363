"""Annotations of values: what a call says about one of its arguments.

``unmapped`` stands in `edges`; it may be put around the two of this module, or inside
of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefect_dask_core.edges import Annotation


@dataclass(frozen=True, slots=True)
class AllowFailure:
    """An argument whose run may have ended in any way; see `allow_failure`."""

    value: Any


@dataclass(frozen=True, slots=True)
class Quote:
    """An argument that is not looked into; see `quote`."""

    value: Any


def allow_failure(value: Any) -> Any:
    """Let a task run although the run that gives this argument did not succeed.

    The task then gets the exception as the value. In ``wait_for`` only the order is
    kept.

    Notes
    -----
    Source of the rule: ``allow_failure`` of the function generations, and decision
    F13: a run that crashed or was cancelled is tolerated like one that failed.

    Examples
    --------
    >>> from prefect_dask_core.edges import unmapped
    >>> allow_failure(unmapped([1])) == unmapped(allow_failure([1]))
    True
    """
    return _inside(AllowFailure, value)


def quote(value: Any) -> Any:
    """Give an argument as it is: futures inside it stay futures.

    It is not searched for futures either, which a large collection is quicker without.

    Examples
    --------
    >>> quote([1, 2])
    Quote(value=[1, 2])
    """
    return _inside(Quote, value)


def _inside(kind: type[AllowFailure] | type[Quote], value: Any) -> Any:
    """Put an annotation around a value, inside of the flags for mapping."""
    if isinstance(value, Annotation):
        return Annotation(kind(value.value), value.mapped, value.flattened)
    return kind(value)
