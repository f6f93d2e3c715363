"""What people see of a run: progress, reports and the pages of the dashboard.

As a preload module, ``dask scheduler --preload prefect_dask_core.monitor``, it puts the
pages on a scheduler when that starts, so that none has to be put there by a run.
"""

from __future__ import annotations

from distributed import Scheduler


def dask_setup(scheduler: Scheduler) -> None:
    """Add the pages; called by ``dask scheduler --preload``."""
    # Here, because Bokeh takes long to import and a flow needs none of it.
    from prefect_dask_core.monitor.dashboard import register

    register(scheduler)
