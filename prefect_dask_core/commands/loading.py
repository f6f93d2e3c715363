"""Loading: the flow that a command names, and the parameters it is given."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import cloudpickle

from prefect_dask_core.flows import Flow
from prefect_dask_core.function_flows import FunctionFlow

AnyFlow = Flow | FunctionFlow


def load_flow(target: str) -> AnyFlow:
    """Flow that is named as ``"etl.py:flow"`` or ``"package.module:flow"``.

    Parameters
    ----------
    target : str
        File or module, and the name of the flow in it; the latter may be left out
        where there is only one flow. An empty or absent ``:`` part means that.

    Raises
    ------
    click.UsageError
        If there is no such file, module or flow.

    Notes
    -----
    What a file defines is sent to workers by value: they need not have the file.
    """
    place, _, name = target.rpartition(":")
    if not place or name.endswith(".py") or "\\" in name:  # a drive's letter
        place, name = target, ""
    module = _file(place) if place.endswith(".py") else _module(place)
    flows = _flows_of(module)
    if not name:
        return _only(flows, place)
    found = vars(module).get(name)
    if isinstance(found, AnyFlow):
        return found
    named = [one for one in flows.values() if one.name == name]
    if len(named) == 1:
        return named[0]
    raise click.UsageError(
        f"{place} has no flow {name!r}; its flows are: {', '.join(flows) or 'none'}."
    )


def _only(flows: Mapping[str, AnyFlow], place: str) -> AnyFlow:
    if len(flows) != 1:
        told = (
            f"has {len(flows)} flows ({', '.join(flows)})" if flows else "has no flow"
        )
        raise click.UsageError(f"{place} {told}; name one as {place}:FLOW.")
    return next(iter(flows.values()))


def _flows_of(module: ModuleType) -> dict[str, AnyFlow]:
    """Flows by the first name that a module has for them."""
    found: dict[str, AnyFlow] = {}
    for name, value in vars(module).items():
        if isinstance(value, AnyFlow) and all(
            value is not one for one in found.values()
        ):
            found[name] = value
    return found


def _file(place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise click.UsageError(
            f"there is no file {place!r}; give the file that has the flow, as "
            "FILE.py:FLOW."
        )
    # As for a script: it may import its neighbours.
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[path.stem]
        raise click.ClickException(
            f"{place} cannot be imported:\n{_told_from(error, str(path))}"
        ) from error
    cloudpickle.register_pickle_by_value(module)
    return module


def _told_from(error: Exception, file: str) -> str:
    """A traceback that begins in a file; without one if the file does not compile."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != file:
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    return "".join(lines).rstrip()


def _module(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not place.startswith(error.name):
            raise
        raise click.UsageError(
            f"there is no module {place!r}; name a file as FILE.py:FLOW."
        ) from error


def parameters_from(given: Iterable[str]) -> dict[str, Any]:
    """Parameters given as ``name=value``, where the value is JSON or plain text.

    Raises
    ------
    click.UsageError
        If there is no ``=``, or a parameter is given twice.

    Examples
    --------
    >>> parameters_from(["n=3", "names=[1, 2]", "url=http://x/?a=b", 'text="3"'])
    {'n': 3, 'names': [1, 2], 'url': 'http://x/?a=b', 'text': '3'}
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(
                f"--param {text!r}: give a parameter as NAME=VALUE, such as n=3."
            )
        if name in found:
            raise click.UsageError(f"--param {name} was given twice.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
