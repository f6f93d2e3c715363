"""Diagnostics: what to put into a report of a problem, without any secret."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import dask.config

from prefect_dask_core.flow_graph import FlowGraph
from prefect_dask_core.late_imports import import_late

if TYPE_CHECKING:
    from importlib import metadata
else:
    metadata = import_late("importlib.metadata")

#: Section of `dask.config` that holds the settings.
_SECTION: Final = "prefect-dask-core"
#: Prefixes of environment variables that Dask reads as settings.
_PREFIXES: Final = ("DASK_", "PREFECT_")
#: What the name of a secret may contain.
_SECRET: Final = re.compile("secret|token|password|passphrase|credential|key", re.I)
#: Packages whose versions matter.
_PACKAGES: Final = (
    "prefect_dask_core",
    "dask",
    "distributed",
    "cloudpickle",
    "fsspec",
    "bokeh",
)


def diagnostics(
    flow: FlowGraph | None = None, include_secret_names: bool = False
) -> str:
    """Facts on a flow and the system it is on, as JSON text.

    Parameters
    ----------
    flow : FlowGraph, optional
        The flow.
    include_secret_names : bool
        Whether names of settings and environment variables that look like those of
        secrets are included.

    Notes
    -----
    Values of settings and environment variables are never included.

    Examples
    --------
    >>> from prefect_dask_core.tasks import Task
    >>> facts = json.loads(diagnostics(FlowGraph("f", tasks=[Task("t")])))
    >>> facts["flow_information"]["task_count"], sorted(facts)
    (1, ['config_overrides', 'env_vars', 'flow_information', 'system_information'])
    """
    facts = {
        "config_overrides": [
            name for name in _overrides() if include_secret_names or not is_secret(name)
        ],
        "env_vars": [
            name
            for name in sorted(os.environ)
            if name.startswith(_PREFIXES)
            and (include_secret_names or not is_secret(name))
        ],
        "system_information": {
            "platform": platform.platform(),
            "python_version": platform.python_version(),
            "package_versions": {name: _version(name) for name in _PACKAGES},
        },
    }
    if flow is not None:
        facts["flow_information"] = {
            "task_count": len(flow.tasks),
            "edge_count": len(flow.edges),
            "mapped": any(edge.mapped for edge in flow.edges),
            "task_runner": _kind(getattr(flow, "task_runner", None)),
            "result": getattr(flow, "result", None) is not None,
            "schedule": False,
            "storage": False,
        }
    return json.dumps(facts, sort_keys=True, indent=2)


def is_secret(name: str) -> bool:
    """Whether a name looks like that of a secret.

    Examples
    --------
    >>> is_secret("DASK_GATEWAY__AUTH__TOKEN"), is_secret("DASK_TEMPORARY_DIRECTORY")
    (True, False)
    """
    return _SECRET.search(name) is not None


def _overrides() -> Iterator[str]:
    """Names of the settings that differ from what the package ships."""
    shipped = dask.config.merge(*dask.config.defaults).get(_SECTION, {})
    current = dask.config.get(_SECTION, {})
    defaults = dict(_leaves(shipped))
    for name, value in sorted(_leaves(current)):
        if name not in defaults or defaults[name] != value:
            yield name


def _leaves(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(settings, Mapping):
        yield prefix, settings
        return
    for name, value in settings.items():
        yield from _leaves(value, f"{prefix}.{name}" if prefix else str(name))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _kind(thing: object) -> str | None:
    return None if thing is None else type(thing).__name__
