"""Places: under which key the value of one run is kept.

Each run has a key of its own, made of the flow run, its name and its index, so that
nobody has to remember it. A policy or a template gives a key that other runs share.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from itertools import count
from typing import Any, Final
from urllib.parse import quote

from prefect_dask_core.naming import Template, format_location, template_variables
from prefect_dask_core.records import TaskRun, at, task_run_of
from prefect_dask_core.results.policies import CachePolicy, NoCacheKey
from prefect_dask_core.run_ids import current_id
from prefect_dask_core.states import Pending

_LOGGER: Final = logging.getLogger("prefect_dask_core.results")
#: Context variable: where the own keys of the runs inside of a body begin.
KEPT_UNDER: Final = "_kept_under"
#: Characters of the longest name of a folder. File systems take 255 bytes, encrypted
#: ones 143; a letter that is not ASCII takes up to twelve here.
_LONGEST: Final = 120
_OTHERS: Final = " (told once for each task, flow run and process)"


def own_prefix(variables: Mapping[str, Any]) -> str:
    """Where the own keys of the runs of a node begin; its index follows.

    Examples
    --------
    >>> own_prefix({"flow_run_id": "07", "task_slug": "load-1"})
    'runs/07/load-1/'
    """
    under = variables.get(KEPT_UNDER)
    if under is None:
        run = variables.get("flow_run_id") or current_id(variables) or "none"
        under = f"runs/{run}"
    return f"{under}/{folder_name(str(variables.get('task_slug')))}/"


def own_key(variables: Mapping[str, Any]) -> str:
    """Key of a run itself.

    Examples
    --------
    >>> own_key({"flow_run_id": "07", "task_slug": "load-1", "map_index": 3})
    'runs/07/load-1/3'
    >>> own_key({"flow_run_id": "07", "task_slug": "load-1", "map_index": None})
    'runs/07/load-1/value'
    """
    return own_prefix(variables) + own_name(variables.get("map_index"))


def own_name(index: int | None) -> str:
    """Last part of the key of a run itself."""
    return "value" if index is None else str(index)


def kept_under(variables: Mapping[str, Any]) -> str:
    """Where the own keys of the runs begin that the body of a run submits or calls.

    Each attempt, and each pass of a loop, calls them with what it has worked out anew.
    """
    attempt = variables.get("task_run_count", 1)
    loop = variables.get("task_loop_count", 1)
    return f"{own_key(variables)}.runs/{attempt}.{loop}"


@dataclass
class KeyContext:
    """What a policy is told of a task run: the fields of a `TaskRunContext`.

    The record is made when it is read, which most policies do not.

    Parameters
    ----------
    task : Task
        The task.
    variables : mapping of str to object
        Context variables of the run.
    parameters : mapping of str to object
        Arguments of the body, defaults included.
    begin : float
        When the run began, in seconds since the epoch.
    log_prints : bool
        Whether its prints are logged.
    """

    task: Any
    variables: Mapping[str, Any]
    parameters: Mapping[str, Any]
    begin: float
    log_prints: bool = False

    @cached_property
    def task_run(self) -> TaskRun:
        """What is known of the run."""
        return task_run_of(self.task, self.variables, Pending(), self.begin)

    @property
    def start_time(self) -> Any:
        """When it began."""
        return at(self.begin)


def key_of_policy(policy: CachePolicy, run: KeyContext) -> str | None:
    """Key that a policy gives a run; `None`, and a log line, if it raises.

    The first run of a task in a flow run is told, and no other one of this process:
    what raises for one of a million children mostly raises for all of them.

    What cannot be told of one input cannot be left out either: the other parts of the
    key would be those of runs with other inputs.
    """
    try:
        return policy.compute_key(
            run,
            run.parameters,
            run.variables.get("parameters") or {},
            kept_as=run.variables.get("flow_run_id"),
        )
    except NoCacheKey as error:
        if _is_first(run, "no key"):
            _LOGGER.warning(
                "task %r: no cache key, so its value is not shared: %s%s",
                run.task.name,
                error,
                _OTHERS,
            )
        return None
    except Exception as error:
        if _is_first(run, "raised"):
            _LOGGER.error(
                "task %r: its cache policy raised, so its value is not shared%s",
                run.task.name,
                _OTHERS,
                exc_info=error,
            )
        return None


def _is_first(run: KeyContext, what: str) -> bool:
    """Whether nothing of this kind was told of this task in this flow run, so far."""
    told = run.variables
    flow_run = told.get("flow_run_id") or current_id(told)
    slug = told.get("task_slug")
    if flow_run is None or slug is None:
        return True
    return next(_times(flow_run, slug, what)) == 0


@lru_cache(maxsize=512)
def _times(*_: object) -> Iterator[int]:
    """Counts, for each task and flow run that something was told of lately."""
    return count()


def key_of_template(template: Template, run: KeyContext) -> str:
    """Key that a template, or a callable, gives a run."""
    return format_location(template, template_variables(run.variables, run.parameters))


def folder_name(told: str) -> str:
    """A name of anything as that of a folder.

    Examples
    --------
    >>> folder_name("etl/daily run"), folder_name("..")
    ('etl%2Fdaily run', '%2E%2E')
    >>> folder_name("a long name " * 20)[84:]
    'a long name a long +692c76434b0fb93b'
    """
    if told.replace("-", "").isalnum() and told.isascii() and len(told) <= _LONGEST:
        return told
    name = quote(told, safe=" ", errors="backslashreplace")
    if len(name) > _LONGEST:
        digest = sha256(told.encode(errors="backslashreplace")).hexdigest()[:16]
        begin = re.sub("%.?$", "", name[: _LONGEST - 17])
        # No name has a plus in it once it is quoted.
        return f"{begin}+{digest}"
    return name if name.strip(".") else name.replace(".", "%2E")
