"""Keeping: find the stored value of a run, and store one.

These functions do I/O and call what users wrote; the pipeline asks for them to be
called, as it does for a body.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_dask_core.errors import MissingResult
from prefect_dask_core.naming import format_run_name, template_variables
from prefect_dask_core.results.result import LocalResult, Result


def run_name(option: Any, variables: Mapping[str, Any], inputs: Any) -> str:
    """Name of a run from its option."""
    return format_run_name(option, template_variables(variables, inputs))


def find_value(
    result: Result | None, target: Any, variables: Mapping[str, Any], inputs: Any
) -> tuple[bool, Any]:
    """Value that is stored at the target of a run, if there is one.

    Returns
    -------
    bool
        Whether it is there. A damaged one is not.
    object
        The value.
    """
    place = _place(result, target, variables, inputs)
    location = place.location
    if not isinstance(location, str) or not place.exists(location):
        return False, None
    try:
        return True, place.read(location).value
    except MissingResult:
        return False, None


def keep_value(
    result: Result | None,
    target: Any,
    variables: Mapping[str, Any],
    inputs: Any,
    value: Any,
) -> None:
    """Store the value of a run."""
    _place(result, target, variables, inputs).write(value)


def _place(
    result: Result | None, target: Any, variables: Mapping[str, Any], inputs: Any
) -> Result:
    """Where the value of one run is stored."""
    place: Result = LocalResult() if result is None else result
    if target is not None:
        place = place.with_location(target)
    if place.location is None and result is None:
        # Nothing names a place: the run's own name in its flow run does.
        place = place.with_location("{flow_run_id}/{task_slug}-{map_index}")
    return place.format(**template_variables(variables, inputs))
