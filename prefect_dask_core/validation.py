"""Validation: arguments of a flow, checked and converted as their annotations say.

That is pydantic's work. Where it is not installed, arguments are only bound to the
signature: a half of its rules, written again, would agree with it sometimes.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from prefect_dask_core.errors import OptionValueError, ParameterTypeError
from prefect_dask_core.signatures import BodySignature, annotation_of, is_field


def has_pydantic() -> bool:
    """Whether pydantic is installed; it is not loaded."""
    return importlib.util.find_spec("pydantic") is not None


class Validator:
    """Checks and converts the arguments of one flow.

    Parameters
    ----------
    flow : str
        Name of the flow, for messages.
    fn : callable
        Its function.
    signature : BodySignature
        Signature of the function.
    option : bool or None
        The option ``validate_parameters``. With `True` every annotation has to be one
        that can be checked; with `None` those that are not are left alone, and so are
        all where pydantic is not installed.

    Raises
    ------
    OptionValueError
        With `True`, if pydantic is not installed or can make nothing of an annotation.

    Notes
    -----
    Defaults are not checked, as pydantic does not check them: ``x: int = None`` is
    common. Those of ``*args: int`` and ``**kwargs: int`` are checked one by one.
    """

    def __init__(
        self,
        flow: str,
        fn: Callable[..., Any],
        signature: BodySignature,
        option: bool | None,
    ) -> None:
        self._flow = flow
        self._fn = fn
        self._signature = signature
        self._insists = option is True
        self._is_on = option is not False and has_pydantic()
        #: What checks the arguments of a parameter; `None` if nothing can.
        self._adapters: dict[str, Any] = {}
        if self._insists:
            if not self._is_on:
                raise OptionValueError(
                    f"flow {flow!r}: validate_parameters=True needs pydantic, which is "
                    "not installed; install it, or leave the option out."
                )
            for name in signature.signature.parameters:
                self._adapter(name)

    def __call__(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as their annotations want them.

        Parameters
        ----------
        given : mapping of str to object
            Arguments by name, without those that were left to their defaults.

        Raises
        ------
        ParameterTypeError
            If an argument cannot be converted.
        """
        found = dict(given)
        if not self._is_on:
            return found
        for name, value in given.items():
            known = name in self._signature.signature.parameters
            parameter = name if known else self._signature.var_keyword
            adapter = self._adapter(parameter)
            if adapter is not None:
                found[name] = self._checked(name, value, adapter, parameter)
        return found

    def _checked(self, name: str, value: Any, adapter: Any, parameter: Any) -> Any:
        pydantic = importlib.import_module("pydantic")
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            hint = annotation_of(
                self._fn, self._signature.signature.parameters[parameter]
            )
            shown = hint.__name__ if isinstance(hint, type) else repr(hint)
            raise ParameterTypeError(
                f"flow {self._flow!r}: {name}={value!r} is not what its annotation "
                f"{shown} allows: {error}"
            ) from error

    def _adapter(self, name: str | None) -> Any:
        if name is None:
            return None
        if name not in self._adapters:
            try:
                self._adapters[name] = self._made(name)
            except Exception as error:  # pydantic runs code of the annotation's classes
                if self._insists:
                    raise OptionValueError(
                        f"flow {self._flow!r}: validate_parameters=True, but pydantic "
                        f"can make nothing of the annotation of {name}: "
                        f"{type(error).__name__}: {error}; change it, or leave the "
                        "option out."
                    ) from error
                self._adapters[name] = None
        return self._adapters[name]

    def _made(self, name: str) -> Any:
        parameter = self._signature.signature.parameters[name]
        if parameter.annotation is parameter.empty:
            return None
        pydantic = importlib.import_module("pydantic")
        hint: Any = annotation_of(self._fn, parameter)
        if is_field(parameter.default):
            hint = Annotated[hint, parameter.default]
        if parameter.kind is parameter.VAR_POSITIONAL:
            hint = tuple[hint, ...]
        config = {"arbitrary_types_allowed": True}
        try:
            return pydantic.TypeAdapter(hint, config=config)
        except pydantic.PydanticUserError:  # models and dataclasses bring their own
            return pydantic.TypeAdapter(hint)
