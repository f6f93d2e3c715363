"""Options of the Dask runner: what they may be, and what goes together."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.late_imports import import_late, is_distributed_loaded

if TYPE_CHECKING:
    import distributed
else:
    distributed = import_late("distributed")

#: Names of the options, in the order in which they are shown.
OPTIONS: Final = (
    "cluster",
    "address",
    "cluster_class",
    "cluster_kwargs",
    "adapt_kwargs",
    "client_kwargs",
    "performance_report_path",
)


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that name no place to run, or several.

    Parameters
    ----------
    options : mapping of str to object
        All of `OPTIONS`; `None` or empty is what was not given.

    Raises
    ------
    ValueError
        If two places to run are named, the name of a class has no module, or a client
        is asked to be asynchronous.
    OptionTypeError
        If a str or a class is given as the cluster; also a `TypeError`.
    """
    _check_cluster(options["cluster"])
    _check_class(options["cluster_class"])
    _check_place(options)
    for name in ("cluster_kwargs", "client_kwargs"):
        if "asynchronous" in options[name]:
            raise ValueError(
                f"{name} holds 'asynchronous', which the runner decides itself; "
                "leave it out."
            )


def is_client(found: object) -> bool:
    """Whether an object is a client; `distributed` is not loaded to know that.

    Examples
    --------
    >>> is_client("tcp://10.0.0.1:8786")
    False
    """
    return is_distributed_loaded() and isinstance(found, distributed.Client)


def imported(name: str) -> Callable[..., Any]:
    """What a dotted name stands for.

    Raises
    ------
    ValueError
        If there is no such thing.
    """
    module, _, attribute = name.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"cluster_class={name!r} cannot be imported ({error}); give a class, or "
            "its dotted name as 'package.module.Class'."
        ) from error
    return found


def _check_place(options: Mapping[str, Any]) -> None:
    """Refuse what makes a cluster beside one that is there."""
    for first in ("address", "cluster"):
        for other in ("cluster", "cluster_class", "cluster_kwargs", "adapt_kwargs"):
            clash = {first, other} != {"cluster", "adapt_kwargs"}
            if first == other or not clash:
                continue
            if options[first] is not None and options[other]:
                raise ValueError(
                    f"DaskTaskRunner was given {first}= and {other}=: a scheduler "
                    "that runs already is not made; give one of them."
                )
    for other in ("adapt_kwargs", "client_kwargs"):
        if options[other] and is_client(options["cluster"]):
            raise ValueError(
                f"DaskTaskRunner was given a Client and {other}=: a client that "
                "is open already is used as it is; give one of them."
            )


def _check_cluster(cluster: Any) -> None:
    """Refuse what is no cluster, and say by which argument it is meant to be given."""
    if isinstance(cluster, str):
        raise OptionTypeError(
            f"DaskTaskRunner(cluster={cluster!r}): a str is no cluster; write "
            f"address={cluster!r} for a scheduler that runs already, as "
            "'tcp://10.0.0.1:8786', or cluster_class= for the dotted name of a class, "
            "as 'dask_jobqueue.SLURMCluster'."
        )
    if isinstance(cluster, type):
        raise OptionTypeError(
            f"DaskTaskRunner(cluster={cluster.__name__}): a class is no cluster; write "
            f"cluster_class={cluster.__name__}, or give an object of it."
        )


def _check_class(cluster_class: Any) -> None:
    """Refuse a name that nothing can be imported by."""
    if isinstance(cluster_class, str):
        parts = cluster_class.split(".")
        if len(parts) < 2 or not all(parts):
            raise ValueError(
                f"DaskTaskRunner(cluster_class={cluster_class!r}): the name of a class "
                "needs its module before a dot, as 'dask_jobqueue.SLURMCluster'; or "
                "give the class itself."
            )
    elif cluster_class is not None and not callable(cluster_class):
        raise OptionTypeError(
            f"DaskTaskRunner(cluster_class={cluster_class!r}), but expected a class or "
            "its dotted name; a cluster that runs already is given as cluster=."
        )
