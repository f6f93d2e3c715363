"""Serialization: tasks, edges and flows as plain data that JSON can hold.

A description is for people and for telling whether two flows differ; no flow can be
made of it again. `Flow.save` writes one that can be loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from types import UnionType
from typing import Any, get_origin

#: Types that JSON knows.
_PLAIN = (str, int, float, bool, type(None))


def describe_task(task: Any, slug: str | None = None) -> dict[str, Any]:
    """Description of a task.

    Parameters
    ----------
    task : Task
        The task.
    slug : str, optional
        Its slug in a flow; its own unless given.

    Examples
    --------
    >>> from prefect_dask_core.tasks import Task
    >>> found = describe_task(Task("load", retries=2, tags=["db"]), "load-1")
    >>> found["slug"], found["max_retries"], found["tags"], found["trigger"]
    ('load-1', 2, ['db'], 'prefect_dask_core.triggers.all_successful')
    """
    return {
        **_common(task, slug),
        "description": task.description,
        "group": task.group,
        "version": task.version,
        "max_retries": task.retries,
        "retry_delay": plain(task.retry_delay_seconds),
        "retry_on": plain(task.retry_on),
        "timeout": task.timeout_seconds,
        "trigger": name_of(task.trigger),
        "skip_on_upstream_skip": task.skip_on_upstream_skip,
        "cache_for": plain(task.cache_for),
        "cache_key": task.cache_key,
        "cache_validator": name_of(task.cache_validator),
        "inputs": {
            name: {"type": name_of(found["type"]), "required": found["required"]}
            for name, found in task.inputs().items()
        },
        "auto_generated": task.auto_generated,
    }


def describe_parameter(parameter: Any, no_default: object) -> dict[str, Any]:
    """Description of a parameter.

    Parameters
    ----------
    parameter : Parameter
        The parameter.
    no_default : object
        What stands for no default; described as `None`.
    """
    default = None if parameter.default is no_default else parameter.default
    return {
        **_common(parameter, None),
        "default": plain(default),
        "required": parameter.required,
    }


def _common(task: Any, slug: str | None) -> dict[str, Any]:
    return {
        "name": task.name,
        "slug": slug or task.slug,
        "type": name_of(type(task)),
        "tags": sorted(task.tags),
        "outputs": name_of(task.outputs()),
    }


def describe_flow(flow: Any) -> dict[str, Any]:
    """Description of a flow, the same for flows that were built alike.

    Parameters
    ----------
    flow : Flow
        The flow; a cycle in it is an error.
    """
    flow.validate()
    slugs = flow.slugs
    return {
        "name": flow.name,
        "type": name_of(type(flow)),
        "version": flow.version,
        "description": flow.description,
        "schedule": None,
        "run_config": None,
        "storage": None,
        "parameters": _by("slug", (p.serialize() for p in flow.parameters())),
        "tasks": _by("slug", ({**t.serialize(), "slug": slugs[t]} for t in flow.tasks)),
        "edges": _by(
            ("upstream_task", "downstream_task", "key"),
            (edge.serialize(slugs) for edge in flow.edges),
        ),
        "reference_tasks": sorted(slugs[task] for task in flow.reference_tasks()),
    }


def _by(
    keys: str | tuple[str, ...], described: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Descriptions in the order of some of their values."""
    names = (keys,) if isinstance(keys, str) else keys
    return sorted(described, key=lambda found: [str(found[name]) for name in names])


def hash_of(description: Mapping[str, Any]) -> str:
    """SHA-256 of a description, in hexadecimal.

    Examples
    --------
    >>> hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})
    True
    """
    text = json.dumps(description, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON can hold it: a duration in seconds, what is unknown as text.

    Examples
    --------
    >>> plain({"a": (1, timedelta(minutes=1)), 2: date(2024, 3, 1)})
    {'a': [1, 60.0], '2': '2024-03-01'}
    >>> plain({3}), plain(float("nan"))
    ('{3}', 'nan')
    """
    if isinstance(value, float) and value - value != 0.0:
        return repr(value)  # JSON has neither infinity nor "not a number"
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if callable(value) or _has_no_repr(value):
        return name_of(value)  # the repr would name its place in memory
    return repr(value)


def _has_no_repr(value: Any) -> bool:
    # Looked up with getattr: the checker sees two kinds of callables here.
    return getattr(type(value), "__repr__", None) is object.__repr__


def name_of(thing: Any) -> str:
    """Dotted name of a type, function or trigger, else that of its class.

    Examples
    --------
    >>> from prefect_dask_core.triggers import all_failed, some_failed
    >>> name_of(all_failed), name_of(json.dumps), name_of(list[int])
    ('prefect_dask_core.triggers.all_failed', 'json.dumps', 'list[int]')
    >>> name_of(some_failed(at_least=2))
    'prefect_dask_core.triggers.some_failed(at_least=2)'
    """
    if isinstance(thing, str):
        return thing  # an annotation that was not looked up
    if get_origin(thing) is not None or isinstance(thing, UnionType):
        return repr(thing)
    kind = type(thing)
    # A trigger or a validator has a name of its own.
    name = getattr(thing, "__qualname__", None) or getattr(thing, "name", None)
    if not isinstance(name, str):
        return f"{kind.__module__}.{kind.__qualname__}"
    module = getattr(thing, "__module__", None) or kind.__module__
    return name if module == "builtins" else f"{module}.{name}"
