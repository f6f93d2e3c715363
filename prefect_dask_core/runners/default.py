"""The default runner: where flows run that name no runner."""

from __future__ import annotations

from prefect_dask_core.runners._private import client_here
from prefect_dask_core.runners.dask import DaskTaskRunner
from prefect_dask_core.runners.threads import ThreadPoolTaskRunner


def default_runner() -> DaskTaskRunner | ThreadPoolTaskRunner:
    """Runner where none is named: the current Dask client, else threads."""
    try:
        client = client_here()
    except ValueError:
        return ThreadPoolTaskRunner()
    return DaskTaskRunner(cluster=client)
