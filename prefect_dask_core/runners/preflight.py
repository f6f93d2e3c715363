"""Pre-flight: whether the workers can run what they will be sent.

A worker that cannot import the package fails on every message, is restarted, and fails
again; the run would seem to hang. So each worker is asked once, before it gets work.
"""

from __future__ import annotations

import builtins
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, Final
from weakref import WeakKeyDictionary

from distributed import Client

from prefect_dask_core._version import __version__
from prefect_dask_core.errors import ClusterMismatchError, StoreError
from prefect_dask_core.results.storage import is_memory

_asked: Final[WeakKeyDictionary[Client, set[str]]] = WeakKeyDictionary()


def check_workers(client: Client, addresses: Iterable[str]) -> None:
    """Ask workers that were not asked before.

    Parameters
    ----------
    client : Client
        Client of the cluster.
    addresses : iterable of str
        Workers that are there now.

    Raises
    ------
    ClusterMismatchError
        If one cannot import the package, or runs another Python or another version of
        the package.
    """
    asked = _asked.setdefault(client, set())
    fresh = sorted(set(addresses) - asked)
    if not fresh:
        return
    answers = client.run(by_value(_tell), workers=fresh, on_error="return")
    for address, answer in sorted(answers.items()):
        problem = _problem(answer)
        if problem is not None:
            raise ClusterMismatchError(
                f"worker {address} {problem}. Install the same packages on the client, "
                "the scheduler and all workers."
            )
    # A worker that went away while it was asked is asked again when it comes back.
    asked.update(answers)


_seen: Final[WeakKeyDictionary[Client, set[tuple[str, str]]]] = WeakKeyDictionary()


def check_place(client: Client, addresses: Iterable[str], place: str) -> None:
    """Ask workers whether they see a place of this machine that values are kept in.

    A file is put into a folder, and they look for that: whether a host is another one,
    and whether it shares the folder, no address tells. The memory of this process is
    seen by workers that are threads of it.

    Parameters
    ----------
    client : Client
        Client of the cluster.
    addresses : iterable of str
        Workers that are there now.
    place : str
        An absolute path, or a ``"memory://"`` URL.

    Raises
    ------
    StoreError
        If one does not see it.
    """
    seen = _seen.setdefault(client, set())
    fresh = [
        address
        for address in sorted(addresses)
        # They are in this process.
        if not address.startswith("inproc://") and (address, place) not in seen
    ]
    if not fresh:
        return
    for address, answer in sorted(_ask(client, fresh, place).items()):
        if answer is False:
            what = f"see the folder {place!r} of this machine"
            if is_memory(place):
                what = f"share the memory of this process, where {place!r} is"
            raise StoreError(
                f"worker {address} does not {what}, "
                "so values kept there would be lost to the others; set "
                'result_storage= of the flow or of its tasks to a URL such as "s3://'
                'bucket/results", or the setting prefect-dask-core.result-storage, or '
                "to a folder that all hosts share."
            )
        if answer is True:
            seen.add((address, place))


def _ask(client: Client, addresses: list[str], place: str) -> dict[str, Any]:
    """What each worker says: whether it sees a place, or the error of asking."""
    asking: dict[str, Any] = {"workers": addresses, "on_error": "return"}
    if is_memory(place):
        here = socket.gethostname(), os.getpid()
        return dict(client.run(by_value(_is_process), *here, **asking))
    os.makedirs(place, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place, prefix=".seen-") as probe:
        return dict(client.run(by_value(_sees), probe.name, **asking))


def _is_process(host: str, number: int) -> bool:
    """Run on a worker: whether it is in a process."""
    import os
    import socket

    return (socket.gethostname(), os.getpid()) == (host, number)


def _sees(path: str) -> bool:
    """Run on a worker: whether it sees a file."""
    import os

    return os.path.exists(path)


def _tell() -> Any:
    """Run on a worker: what it has."""
    # It brings no names along, so what it needs is imported here.
    import importlib
    import sys

    try:
        importlib.import_module("prefect_dask_core.runners.worker")
        package = importlib.import_module("prefect_dask_core")
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
    return sys.version_info[:2], package.__version__


def _problem(answer: Any) -> str | None:
    """What is wrong with a worker, `None` if nothing is."""
    if isinstance(answer, BaseException):
        # It died or left while it was asked, which Dask deals with.
        return None
    python, version = answer
    if python is None:
        return f"cannot import prefect_dask_core ({version})"
    if tuple(python) != sys.version_info[:2]:
        theirs, ours = (".".join(map(str, v)) for v in (python, sys.version_info[:2]))
        return f"runs Python {theirs}, and the client Python {ours}"
    if version != __version__:
        return f"has prefect_dask_core {version}, and the client has {__version__}"
    return None


def by_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as if it stood in a script, so that it travels as its code.

    By its name it would ask for the very package that may be missing.
    """
    names = {"__name__": "__main__", "__builtins__": builtins}
    copy = FunctionType(function.__code__, names, function.__name__)
    copy.__module__ = "__main__"
    return copy
