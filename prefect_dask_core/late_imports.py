"""Late imports: modules that are loaded when something of them is first used.

The one place in which the package does that; everything else is imported at the top.
The import of `distributed` takes 0.2 s beyond that of `dask`, more than that of all
modules of this package together, and flows are declared, drawn and run on threads or in
sequence without it. So what talks to a cluster is loaded when a runner connects to one.

A module names what it loads late where its imports stand, and once more for those who
read types::

    if TYPE_CHECKING:
        from prefect_dask_core.runners import dask_run
    else:
        dask_run = import_late("prefect_dask_core.runners.dask_run")

There is one rule: what is loaded late is used in functions only, never while the module
that names it is loaded.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


class LateModule:
    """Stands for a module until something of it is used.

    Parameters
    ----------
    name : str
        Its dotted name.

    Notes
    -----
    Not `importlib.util.LazyLoader`: two threads that use such a module for the first
    time see it half loaded (CPython issue 114763, mended in 3.12.3). Here Python's own
    locks of imports let the second one wait for the first. The package that a module is
    in is loaded first, as the modules of `distributed` import each other in circles:
    whoever begins in the middle while another thread begins at the top may meet a name
    that is not there yet.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # Tools that look through the names of a module ask for such; that is no use.
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        importlib.import_module(self._name.partition(".")[0])
        return getattr(importlib.import_module(self._name), attribute)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._name,)

    def __repr__(self) -> str:
        return f"<module {self._name!r}, loaded when it is used>"


def import_late(name: str) -> Any:
    """A module that is loaded when something of it is first used.

    Parameters
    ----------
    name : str
        Its dotted name.

    Examples
    --------
    >>> fractions = import_late("fractions")
    >>> fractions
    <module 'fractions', loaded when it is used>
    >>> fractions.Fraction(1, 2) + 1
    Fraction(3, 2)
    """
    return LateModule(name)


def is_distributed_loaded() -> bool:
    """Whether `distributed` was loaded, by whomever.

    Where it was not, there is neither a client in this process nor a worker.
    """
    return "distributed" in sys.modules
