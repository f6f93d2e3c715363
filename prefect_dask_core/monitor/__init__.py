"""What people see of a run: progress, reports and the pages of the dashboard.

As a preload module, ``dask scheduler --preload prefect_dask_core.monitor``, it puts the
pages on a scheduler when that starts, so that none has to be put there by a run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Scheduler


def dask_setup(scheduler: Scheduler) -> None:
    """Add the pages; called by ``dask scheduler --preload``."""
    # By its name and not above: a flow shows progress and needs no Bokeh, which the
    # pages are made of.
    import_module("prefect_dask_core.monitor.dashboard").register(scheduler)
