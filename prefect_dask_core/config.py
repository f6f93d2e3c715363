"""Settings, under ``prefect-dask-core`` in `dask.config`.

The packaged defaults are registered when the package is imported; nothing is written.
"""

from __future__ import annotations

import os
from pathlib import Path

import dask.config
import yaml
from dask.utils import parse_bytes


def register_defaults() -> None:
    """Make the packaged defaults known to `dask.config`."""
    text = Path(__file__).with_name("prefect-dask-core.yaml").read_text("utf-8")
    dask.config.update_defaults(yaml.safe_load(text))


def results_dir() -> str:
    """Folder in which results are kept where no other is named, as an absolute path."""
    found = str(dask.config.get("prefect-dask-core.results-dir"))
    return os.path.abspath(os.path.expanduser(found))


def default_storage() -> str:
    """Folder or URL of the store where no other is named."""
    found = dask.config.get("prefect-dask-core.result-storage")
    return results_dir() if found is None else str(found)


def names_storage() -> bool:
    """Whether the settings name a store."""
    return dask.config.get("prefect-dask-core.result-storage") is not None


def default_serializer() -> str:
    """Serializer of the store where no other is named."""
    return str(dask.config.get("prefect-dask-core.result-serializer"))


def persists_by_default() -> bool:
    """Whether tasks and flows keep their values that do not say."""
    return bool(dask.config.get("prefect-dask-core.persist-results"))


def refreshes_by_default() -> bool:
    """Whether kept values are never taken by tasks that do not say."""
    return bool(dask.config.get("prefect-dask-core.refresh-cache"))


def most_async_tasks() -> int:
    """Coroutines of bodies that a process runs at a time."""
    return int(dask.config.get("prefect-dask-core.async-tasks"))


def log_dir() -> str | None:
    """Folder of the log files of runs; `None`: runs have none."""
    found = dask.config.get("prefect-dask-core.log-dir")
    return None if found is None else str(found)


def home_bytes() -> int:
    """Size in bytes up to which the values of a block come home unasked."""
    return int(parse_bytes(dask.config.get("prefect-dask-core.home-bytes")))


def ledger_url() -> str | None:
    """Where flow runs are recorded unless a run says otherwise; `None`: nowhere."""
    found = dask.config.get("prefect-dask-core.ledger.url")
    if found is None or found is False:
        return None
    return default_ledger() if found is True else str(found)


def default_ledger() -> str:
    """File of the ledger where somebody asks for one and names none."""
    found = str(dask.config.get("prefect-dask-core.ledger.file"))
    return os.path.abspath(os.path.expanduser(found))


def monitor_enabled() -> bool:
    """Whether runs tell the pages of the dashboard what they do."""
    return bool(dask.config.get("prefect-dask-core.monitor.enabled"))


def kept_runs() -> int:
    """Ended runs that the pages of the dashboard show."""
    return int(dask.config.get("prefect-dask-core.monitor.runs"))


def most_bars() -> int:
    """Bars that the timeline keeps of a run."""
    return int(dask.config.get("prefect-dask-core.monitor.bars"))
