"""Sharing: whether all children of a mapped task would take one another's values."""

from __future__ import annotations

from collections.abc import Collection
from string import Formatter
from typing import Final

from prefect_dask_core.options import TaskOptions
from prefect_dask_core.results.keeping import Keeper
from prefect_dask_core.results.policies import (
    CachePolicy,
    CompoundPolicy,
    FlowParameters,
    Inputs,
    RunId,
    TaskSource,
)

#: Variables of templates that are the same for all children of a task.
_SAME: Final = frozenset(
    {
        "date",
        "flow_id",
        "flow_name",
        "flow_run",
        "flow_run_id",
        "flow_run_name",
        "flow_version",
        "task_name",
        "task_slug",
        "today",
        "tomorrow",
        "yesterday",
    }
)


def shared_by_children(
    options: TaskOptions, keeper: Keeper | None, mapped: Collection[str]
) -> list[str]:
    """What is wrong with a mapped task all of whose children share one value.

    Parameters
    ----------
    options : TaskOptions
        Its options.
    keeper : Keeper or None
        How its values are kept in the flow.
    mapped : collection of str
        The inputs that differ from child to child.

    Returns
    -------
    list of str
        Each follows ``task 'load' is mapped``; empty if children have their own.
    """
    said = []
    if options.cache_for is not None and options.cache_validator is None:
        said.append(
            "with cache_for and no cache_validator, so a later run takes any value "
            "that has not expired for each child, whatever its inputs; give "
            "cache_validator=cache_validators.all_inputs (or duration_only, if all "
            "children have one value)"
        )
    for name in ("target", "result_storage_key"):
        template = getattr(options, name)
        if isinstance(template, str) and _is_same(template, mapped):
            said.append(
                f"with {name}={template!r}, the same for each child, so all take the "
                "value of the first that is written; add what differs, as {map_index} "
                "or the name of an input"
            )
    policy = None if keeper is None else keeper.policy
    if policy is not None and not tells_apart(policy, mapped):
        said.append(
            "with a cache_policy that looks at no mapped input, so each child has the "
            "same key and all take the value of the first that is stored; add INPUTS"
        )
    return said


def _is_same(template: str, mapped: Collection[str]) -> bool:
    try:
        fields = [name for _, name, _, _ in Formatter().parse(template) if name]
    except ValueError:
        return False  # refused elsewhere
    names = {field.partition(".")[0].partition("[")[0] for field in fields}
    return names.isdisjoint(mapped) and names <= _SAME


def tells_apart(policy: CachePolicy, mapped: Collection[str]) -> bool:
    """Whether a policy can give children of one task different keys.

    What a function, a validator or a policy of a user's own looks at is not known.

    Examples
    --------
    >>> from prefect_dask_core.results import INPUTS, RUN_ID, TASK_SOURCE
    >>> tells_apart(INPUTS + RUN_ID, ["x"]), tells_apart(TASK_SOURCE + RUN_ID, ["x"])
    (True, False)
    >>> tells_apart(INPUTS - "x", ["x"])
    False
    """
    if isinstance(policy, CompoundPolicy):
        return any(tells_apart(one, mapped) for one in policy.policies)
    if type(policy) is Inputs:
        return not set(mapped) <= set(policy.exclude)
    return type(policy) not in (TaskSource, RunId, FlowParameters)
