"""Ids of task runs: worked out from the flow run and the name, wherever they are asked.

So no id travels with a child, and client and worker agree on it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any


def task_run_id(flow_run_id: str, slug: str, map_index: int | None = None) -> uuid.UUID:
    """Id of a task run.

    Parameters
    ----------
    flow_run_id : str
        Hexadecimal id of the flow run.
    slug : str
        What names the node in the run.
    map_index : int, optional
        Index of a child.

    Examples
    --------
    >>> flow_run = "00000000000000000000000000000001"
    >>> task_run_id(flow_run, "load-3") == task_run_id(flow_run, "load-3")
    True
    >>> task_run_id(flow_run, "load-3") == task_run_id(flow_run, "load-3", 0)
    False
    """
    name = slug if map_index is None else f"{slug}[{map_index}]"
    return uuid.uuid5(uuid.UUID(flow_run_id), name)


def run_name(
    variables: Mapping[str, Any], task_name: str, index: int | None = None
) -> str:
    """Name of a run in messages and logs, a child as ``"load-1[3]"``.

    Parameters
    ----------
    variables : mapping of str to object
        Context variables of the runs of its node.
    task_name : str
        Name of its task.
    index : int, optional
        Index of a child.

    Notes
    -----
    In a function flow one task runs often, so its runs are told apart by what names the
    node (decision F10). In a graph flow they have the name of the task, as
    ``task_full_name`` of Prefect 1.

    Examples
    --------
    >>> of_a_graph_flow = {"task_slug": "load-1"}
    >>> of_a_function_flow = {**of_a_graph_flow, "_id_base": "0" * 32}
    >>> run_name(of_a_function_flow, "load", 3), run_name(of_a_graph_flow, "load", 3)
    ('load-1[3]', 'load[3]')
    """
    name: str = variables["task_slug"] if "_id_base" in variables else task_name
    return name if index is None else f"{name}[{index}]"


def current_id(variables: Mapping[str, Any]) -> uuid.UUID | None:
    """Id of the task run that some context variables are of; `None` without one."""
    given: uuid.UUID | None = variables.get("task_run_id")
    if given is not None:
        return given
    slug = variables.get("task_slug")
    base = variables.get("_id_base") or variables.get("flow_run_id")
    if slug is None or base is None:
        return None
    return task_run_id(base, slug, variables.get("map_index"))
