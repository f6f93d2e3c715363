"""Unused: warnings of options that were given and do nothing."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from prefect_dask_core.cache_validators import never_use
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.results.policies import CachePolicy, Inputs, NoCache


def warn_of_unused(changes: Mapping[str, Any], options: TaskOptions) -> None:
    """Warn of options that were just given and do nothing beside the others."""
    said = []
    validator = options.cache_validator
    if (
        not changes.keys().isdisjoint({"cache_validator", "cache_for"})
        and options.cache_for is None
        and validator is not None
        and validator is not never_use
    ):
        said.append(
            f"task {options.name!r}: cache_validator without cache_for, so nothing is "
            "cached; add cache_for=timedelta(...)."
        )
    location = None if options.result is None else options.result.location
    if (
        not changes.keys().isdisjoint({"target", "result"})
        and options.target is not None
        and location is not None
        and location != options.target
    ):
        said.append(
            f"task {options.name!r}: target={options.target!r} is used instead of the "
            f"location {location!r} of its result; give one of them only."
        )
    policy = options.cache_policy
    has_policy = policy is not None and not isinstance(policy, NoCache)
    if (
        not changes.keys().isdisjoint({"cache_policy", "cache_key_fn"})
        and options.cache_key_fn is not None
        and has_policy
    ):
        said.append(
            f"task {options.name!r}: cache_key_fn is used instead of cache_policy; "
            "give one of them only."
        )
    if "persist_result" in changes and options.persist_result is False and has_policy:
        said.append(
            f"task {options.name!r}: persist_result=False, so cache_policy finds and "
            "keeps nothing; give one of them only."
        )
    for text in said:
        warnings.warn(text, UserWarning, stacklevel=level_of_user())


def warn_of_exclusions(options: TaskOptions, arguments: Iterable[str]) -> None:
    """Warn if a cache policy leaves out arguments that a task does not have.

    A warning and no error: tasks may share a policy that leaves out what only some
    of them have. Where it is a slip, as ``INPUTS - "debgu"``, the argument that was
    meant would make keys differ, and nobody would learn why nothing is found again.

    Parameters
    ----------
    options : TaskOptions
        Those of the task.
    arguments : iterable of str
        Names of its arguments.
    """
    known = sorted(arguments)
    for name in sorted(excluded_by(options.cache_policy).difference(known)):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        meant = f"; did you mean {close[0]!r}?" if close else "."
        has = ", ".join(map(repr, known)) or "none"
        warnings.warn(
            f"task {options.name!r}: its cache_policy leaves out the argument "
            f"{name!r}, but the arguments of the task are {has}{meant}",
            UserWarning,
            stacklevel=level_of_user(),
        )


def excluded_by(policy: CachePolicy | None) -> frozenset[str]:
    """Names of arguments that a policy leaves out.

    Examples
    --------
    >>> from prefect_dask_core.results import INPUTS, TASK_SOURCE
    >>> sorted(excluded_by(INPUTS - "a" + TASK_SOURCE - "b"))
    ['a', 'b']
    """
    members = getattr(policy, "policies", (policy,))
    found = [member.exclude for member in members if isinstance(member, Inputs)]
    return frozenset(name for names in found for name in names)


def level_of_user() -> int:
    """The `stacklevel` of the line of the user's that made the task, or ran the flow.

    It is counted, because `@task`, `Task(...)` and a class of the user's own come
    here through different numbers of calls.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__")):
        level, frame = level + 1, frame.f_back
    return level


def _is_ours(module: object) -> bool:
    return str(module).split(".")[0] == __name__.split(".")[0]
