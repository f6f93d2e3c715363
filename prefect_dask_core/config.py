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


def most_async_tasks() -> int:
    """Coroutines of bodies that a process runs at a time."""
    return int(dask.config.get("prefect-dask-core.async-tasks"))


def home_bytes() -> int:
    """Size in bytes up to which the values of a block come home unasked."""
    return int(parse_bytes(dask.config.get("prefect-dask-core.home-bytes")))


def monitor_enabled() -> bool:
    """Whether runs tell the pages of the dashboard what they do."""
    return bool(dask.config.get("prefect-dask-core.monitor.enabled"))


def kept_runs() -> int:
    """Ended runs that the pages of the dashboard show."""
    return int(dask.config.get("prefect-dask-core.monitor.runs"))


def most_bars() -> int:
    """Bars that the timeline keeps of a run."""
    return int(dask.config.get("prefect-dask-core.monitor.bars"))
