"""Validation: arguments of a flow, checked and converted as their annotations say.

That is pydantic's work. Where it is not installed, arguments are only bound to the
signature: a half of its rules, written again, would agree with it sometimes.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
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
    while isinstance(fn, functools.partial):  # a method that was bound
        fn = fn.func
    hints = typing.get_type_hints(fn, include_extras=True)
    found = dict(given)
    for name, value in given.items():
        if name not in hints:
            continue
        config = {"arbitrary_types_allowed": True}
        try:
            adapter = pydantic.TypeAdapter(hints[name], config=config)
        except pydantic.PydanticUserError:  # models and dataclasses bring their own
            adapter = pydantic.TypeAdapter(hints[name])
        try:
            found[name] = adapter.validate_python(value)
        except pydantic.ValidationError as error:
            raise ParameterTypeError(
                f"flow {flow!r}: {name}={value!r} is not what its annotation "
                f"{hints[name]!r} allows: {error}"
            ) from error
    return found
