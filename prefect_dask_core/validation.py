"""Validation: arguments of a flow, checked and converted as their annotations say.

That is pydantic's work. Where it is not installed, arguments are only bound to the
signature: a half of its rules, written again, would agree with it sometimes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from prefect_dask_core.errors import OptionValueError, ParameterTypeError


def has_pydantic() -> bool:
    """Whether pydantic is installed; it is not loaded."""
    return importlib.util.find_spec("pydantic") is not None


def wants_validation(flow: str, option: bool | None) -> bool:
    """Whether the arguments of a flow are validated.

    Parameters
    ----------
    flow : str
        Name of the flow, for the message.
    option : bool or None
        Its option ``validate_parameters``.

    Raises
    ------
    OptionValueError
        If it was asked for, and pydantic is not installed.
    """
    if option is None:
        return has_pydantic()
    if option and not has_pydantic():
        raise OptionValueError(
            f"flow {flow!r}: validate_parameters=True needs pydantic, which is not "
            "installed; install it, or leave the option out."
        )
    return option


def validate(
    flow: str, fn: Callable[..., Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments as their annotations want them.

    Parameters
    ----------
    flow : str
        Name of the flow, for messages.
    fn : callable
        Its function.
    given : mapping of str to object
        Arguments by name.

    Raises
    ------
    ParameterTypeError
        If an argument cannot be converted.
    """
    pydantic = importlib.import_module("pydantic")
    found = dict(given)
    hints = _hints(fn)
    defaults = _defaults(fn) if hints else {}
    for name, hint in hints.items():
        # Its own default is as it wants it: `x: int = None` is often written.
        if name not in given or given[name] is defaults.get(name, found):
            continue
        value = given[name]
        config = {"arbitrary_types_allowed": True}
        try:
            adapter = pydantic.TypeAdapter(hint, config=config)
        except pydantic.PydanticUserError:  # models and dataclasses bring their own
            adapter = pydantic.TypeAdapter(hint)
        try:
            found[name] = adapter.validate_python(value)
        except pydantic.ValidationError as error:
            shown = hint.__name__ if isinstance(hint, type) else repr(hint)
            raise ParameterTypeError(
                f"flow {flow!r}: {name}={value!r} is not what its annotation "
                f"{shown} allows: {error}"
            ) from error
    return found


def _hints(fn: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of parameters by name.

    One that cannot be read where the function stands, such as a name that is imported
    for type checkers only, checks nothing: the function runs without it as well.
    """
    while isinstance(fn, functools.partial):  # a method that is bound
        fn = fn.func
    if not inspect.isroutine(fn):
        fn = type(fn).__call__
    annotations = getattr(fn, "__annotations__", {})
    found: dict[str, Any] = {}
    for name, annotation in annotations.items():
        with contextlib.suppress(Exception):  # evaluating it runs user code
            found[name] = _read(annotation, fn)
    found.pop("return", None)
    for parameter in inspect.signature(fn).parameters.values() if found else ():
        if parameter.kind is parameter.VAR_POSITIONAL and parameter.name in found:
            hint = found[parameter.name]
            found[parameter.name] = types.GenericAlias(tuple, (hint, ...))
    return found


def _defaults(fn: Callable[..., Any]) -> dict[str, Any]:
    found = inspect.signature(fn).parameters.values()
    return {p.name: p.default for p in found if p.default is not p.empty}


def _read(annotation: Any, fn: Callable[..., Any]) -> Any:
    def of_one() -> None: ...

    of_one.__annotations__ = {"it": annotation}
    names = getattr(inspect.unwrap(fn), "__globals__", {})
    return typing.get_type_hints(of_one, names, include_extras=True)["it"]
