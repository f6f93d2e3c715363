"""Keeping: find the stored value of a run, and store one.

These functions do I/O and call what users wrote; the pipeline asks for them to be
called, as it does for a body.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

from prefect_dask_core.config import results_dir
from prefect_dask_core.errors import MissingResult
from prefect_dask_core.naming import format_run_name, template_variables
from prefect_dask_core.results.result import PLACE_OF_RUN, LocalResult, Result

#: Characters of the longest name of a folder. File systems take 255 bytes, encrypted
#: ones 143; a letter that is not ASCII takes up to twelve here.
_LONGEST: Final = 120


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
    if result is not None:
        place = result if target is None else result.with_location(target)
    elif target is None:
        place = LocalResult(location=PLACE_OF_RUN)
    else:
        # All flows of a person share the default folder; values of another flow must
        # not be taken for those of this one only because their targets are called
        # alike.
        folder = os.path.join(results_dir(), _folder_of(variables))
        place = LocalResult(folder, location=target)
    return place.format(**template_variables(variables, inputs))


def _folder_of(variables: Mapping[str, Any]) -> str:
    """Name of a flow as that of a folder.

    Examples
    --------
    >>> _folder_of({"flow_name": "etl/daily run"}), _folder_of({"flow_name": ".."})
    ('etl%2Fdaily run', '%2E%2E')
    >>> _folder_of({"flow_name": "a long name " * 20})[84:]
    'a long name a long +692c76434b0fb93b'
    """
    told = str(variables.get("flow_name"))
    name = quote(told, safe=" ", errors="backslashreplace")
    if len(name) > _LONGEST:
        digest = sha256(told.encode(errors="backslashreplace")).hexdigest()[:16]
        begin = re.sub("%.?$", "", name[: _LONGEST - 17])
        # No name has a plus in it once it is quoted.
        return f"{begin}+{digest}"
    return name if name.strip(".") else name.replace(".", "%2E")
