"""Lazy: what Dask has yet to compute, told apart from values and refused.

Whether a task would get a lazy object itself or the value that it stands for is not
for this package to guess, so neither a flow nor a run of it takes one.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any, Final

from dask.base import is_dask_collection

from prefect_dask_core.errors import OptionTypeError

_COLLECTIONS: Final[tuple[type[Collection[Any]], ...]] = (
    list,
    tuple,
    set,
    frozenset,
    dict,
    deque,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)


def lazy_among(value: Any) -> Any:
    """The Dask collection, delayed value or future that a value is or holds, or `None`.

    Notes
    -----
    Found by their types, so that a long list of plain values costs one pass over the
    types, and nothing lazy is asked anything.

    Examples
    --------
    >>> import dask
    >>> lazy_among([1, {"a": dask.delayed(1)}]), lazy_among([1, [2]])
    (Delayed('int-...'), None)
    """
    if _may_be_lazy(type(value)):
        # An array of xarray has the methods of a collection, and may be none.
        is_future = not hasattr(value, "__dask_graph__")
        return value if is_future or is_dask_collection(value) else None
    if not isinstance(value, _COLLECTIONS):
        return None
    items: Iterable[Any] = value
    kinds = set(map(type, value))
    if isinstance(value, dict):
        items = itertools.chain(value, value.values())
        kinds.update(map(type, value.values()))
    if not any(_may_be_lazy(kind) or issubclass(kind, _COLLECTIONS) for kind in kinds):
        return None
    return next((f for item in items if (f := lazy_among(item)) is not None), None)


def _may_be_lazy(kind: type) -> bool:
    """Whether values of a type may stand for what Dask has yet to compute."""
    if kind.__module__ == "builtins":
        return False  # most arguments are
    # Futures are told by their names: this layer does not talk to distributed.
    return hasattr(kind, "__dask_graph__") or any(
        base.__module__ == "distributed.client" and base.__name__ == "Future"
        for base in kind.__mro__
    )


def refuse_lazy(value: Any, told: str) -> None:
    """Raise if a value is, or holds, what Dask has yet to compute.

    Parameters
    ----------
    value : object
        The value.
    told : str
        What was done with it, for the message.

    Raises
    ------
    OptionTypeError
        Always then; also a `TypeError`.

    Examples
    --------
    >>> import dask
    >>> refuse_lazy([dask.delayed(1)], "was given")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    prefect_dask_core.errors.OptionTypeError: a dask.delayed.DelayedLeaf was given; ...
    """
    found = lazy_among(value)
    if found is None:
        return
    kind = type(found)
    advice = (
        "give its value, future.result()"
        if not hasattr(kind, "__dask_graph__")
        else "give its value, x.compute(), or make it in a task, whose body may compute"
        " it on the same cluster"
    )
    raise OptionTypeError(
        f"a {kind.__module__}.{kind.__qualname__} {told}; its value is not computed "
        f"for the task: {advice}."
    )
