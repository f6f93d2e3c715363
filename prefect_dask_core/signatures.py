"""Signatures: how the arguments of a call become the named inputs of a body, and back.

Inputs travel by name, because edges have names. A body may still have positional-only
parameters, ``*args`` and ``**kwargs``: `BodySignature.arrange` restores the call.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prefect_dask_core.errors import (
    ParameterBindError,
    ReservedArgumentError,
    SignatureError,
)

#: Names of call options, which a body therefore cannot use for its parameters.
RESERVED: Final = ("return_state", "wait_for", "upstream_tasks", "task_args", "mapped")

_Kind = inspect.Parameter
_BY_PLACE: Final = (
    _Kind.POSITIONAL_ONLY,
    _Kind.POSITIONAL_OR_KEYWORD,
    _Kind.VAR_POSITIONAL,
)


@dataclass(frozen=True, slots=True)
class BodySignature:
    """What is needed of a signature, computed once per function.

    Parameters
    ----------
    signature : inspect.Signature
        The signature.
    names : frozenset of str
        Parameters that take one argument each.
    var_positional, var_keyword : str, optional
        Names of ``*args`` and ``**kwargs``.
    by_keyword : bool
        Whether a plain ``fn(**inputs)`` does.
    fields : tuple of str
        Parameters whose default is a field of pydantic, which stands for its default.

    Examples
    --------
    >>> def body(x, /, y, *rest, **more): ...
    >>> signature = BodySignature.of(body, "body")
    >>> inputs = signature.bind((1, 2, 3), {"z": 4}, "body")
    >>> inputs
    {'x': 1, 'y': 2, 'rest': (3,), 'z': 4}
    >>> signature.arrange(inputs)
    ([1, 2, 3], {'z': 4})
    """

    signature: inspect.Signature
    names: frozenset[str]
    var_positional: str | None
    var_keyword: str | None
    by_keyword: bool
    fields: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, fn: Callable[..., Any], task: str, bound: bool = False, kind: str = "task"
    ) -> BodySignature:
        """Read the signature of a function.

        Parameters
        ----------
        fn : callable
            The function.
        task : str
            Name of the task, for messages.
        bound : bool
            Whether to leave out the first parameter, the ``self`` of a method.
        kind : str
            What has the function, for messages.

        Raises
        ------
        SignatureError
            If the function has no signature to read, as some builtins.
        ReservedArgumentError
            If a parameter has a name that a call needs for itself.
        """
        try:
            signature = inspect.signature(fn)
        except (TypeError, ValueError):
            raise SignatureError(
                f"{kind} {task!r}: the signature of {fn!r} cannot be read; wrap it in "
                "a function of your own."
            ) from None
        parameters = list(signature.parameters.values())
        if bound:
            parameters = parameters[1:]
            signature = signature.replace(parameters=parameters)
        for parameter in parameters:
            if parameter.name in RESERVED:
                raise ReservedArgumentError(
                    f"{kind} {task!r} has a parameter {parameter.name!r}, a name that "
                    "calls of tasks need for themselves; rename it."
                )
        kinds = {parameter.kind: parameter.name for parameter in parameters}
        variadic = (_Kind.VAR_POSITIONAL, _Kind.VAR_KEYWORD)
        fields = tuple(p.name for p in parameters if is_field(p.default))
        by_place = {_Kind.POSITIONAL_ONLY, _Kind.VAR_POSITIONAL} & kinds.keys()
        return cls(
            signature,
            frozenset(p.name for p in parameters if p.kind not in variadic),
            kinds.get(_Kind.VAR_POSITIONAL),
            kinds.get(_Kind.VAR_KEYWORD),
            not (by_place or fields),
            fields,
        )

    def bind(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        task: str,
        kind: str = "task",
    ) -> dict[str, Any]:
        """Arguments of a call by name; defaults are left to the function.

        Raises
        ------
        ParameterBindError
            If the arguments do not fit.
        """
        try:
            inputs: dict[str, Any] = self.signature.bind(*args, **kwargs).arguments
            for name in self.fields:
                if name not in inputs and self.default_of(name) is _Kind.empty:
                    raise TypeError(f"missing a required argument: {name!r}")
        except TypeError as error:
            # Python tells first what is missing, and that may be misspelt.
            unknown = [name for name in kwargs if not self.accepts(name)]
            told = str(error)
            if unknown:
                told = f"got an unexpected keyword argument {unknown[0]!r}"
            raise ParameterBindError(
                f"{kind} {task!r}: {told}; its signature is {task}{self._shown()}."
            ) from None
        if self.var_keyword is None or self.var_keyword not in inputs:
            return inputs
        extra = inputs.pop(self.var_keyword)
        for name in extra:
            if name in self.names or name == self.var_positional:
                raise ParameterBindError(
                    f"{kind} {task!r}: {name!r} was given by keyword, but the "
                    "parameter of this name takes its argument by position only."
                )
        inputs.update(extra)
        return inputs

    @property
    def defaults(self) -> dict[str, Any]:
        """Default values by parameter, of those that have one."""
        return {
            name: default
            for name in self.signature.parameters
            if (default := self.default_of(name)) is not _Kind.empty
        }

    def default_of(self, name: str) -> Any:
        """Default of a parameter; of a field, the one that it stands for."""
        found: Any = self.signature.parameters[name].default
        if name not in self.fields:
            return found
        if found.is_required():
            return _Kind.empty
        return found.get_default(call_default_factory=True)

    @property
    def required(self) -> frozenset[str]:
        """Parameters that take one argument each and have no default."""
        return self.names - self.defaults.keys()

    def accepts(self, name: str) -> bool:
        """Whether an input of this name can be given to the body."""
        return name in self.names or self.var_keyword is not None

    def arrange(self, inputs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments that give the body its inputs."""
        left = dict(inputs)
        for name in self.fields:
            left.setdefault(name, self.default_of(name))
        args: list[Any] = []
        rest = left.pop(self.var_positional, ()) if self.var_positional else ()
        for name, parameter in self.signature.parameters.items():
            by_keyword = parameter.kind is not _Kind.POSITIONAL_ONLY
            if by_keyword and not (
                rest and parameter.kind is _Kind.POSITIONAL_OR_KEYWORD
            ):
                break
            if name not in left and parameter.default is _Kind.empty:
                break  # the call itself will say what is missing
            args.append(left.pop(name, parameter.default))
        return [*args, *rest], left

    def refuse_in_graph(self, task: str) -> None:
        """Raise if the body cannot be part of a graph flow.

        Raises
        ------
        ReservedArgumentError
            If the body has ``*args`` or a parameter called ``flow``.
        """
        if self.var_positional is not None:
            raise ReservedArgumentError(
                f"task {task!r} has a parameter *{self.var_positional}, whose items "
                "have no names for the edges of a flow; take **kwargs, or one "
                "parameter that is a list."
            )
        if "flow" in self.names:
            raise ReservedArgumentError(
                f"task {task!r} has a parameter 'flow', which a call inside `with "
                "Flow(...)` needs for itself; rename it."
            )

    def _shown(self) -> str:
        bare = self.signature.replace(return_annotation=inspect.Signature.empty)
        return str(bare)


def inputs_of(fn: Callable[..., Any], signature: BodySignature) -> dict[str, Any]:
    """Parameters of a body: name -> ``{"type": ..., "required": ..., "default": ...}``.

    Without an annotation the type is `typing.Any`.

    Examples
    --------
    >>> def body(x: int, y=2): ...
    >>> inputs_of(body, BodySignature.of(body, "body"))["y"]
    {'type': typing.Any, 'required': False, 'default': 2}
    """
    hints = _hints(fn)
    described = {}
    for name, parameter in signature.signature.parameters.items():
        if name not in signature.names:
            continue
        default = signature.default_of(name)
        required = default is _Kind.empty
        described[name] = {
            "type": _annotation(hints.get(name, parameter.annotation)),
            "required": required,
            "default": None if required else default,
        }
    return described


def output_of(fn: Callable[..., Any], signature: BodySignature) -> Any:
    """Return annotation of a body, `typing.Any` without one."""
    found = _hints(fn).get("return", signature.signature.return_annotation)
    return _annotation(found)


def number_of_outputs(annotation: Any) -> int | None:
    """Number of values that a return annotation promises, if it is a fixed tuple.

    Examples
    --------
    >>> number_of_outputs(tuple[int, str]), number_of_outputs(tuple[()])
    (2, 0)
    >>> number_of_outputs(tuple[int, ...]) is number_of_outputs(tuple) is None
    True
    """
    if typing.get_origin(annotation) is not tuple:
        return None
    items = typing.get_args(annotation)
    if items == ((),):  # how Python 3.10 gives the items of Tuple[()]
        return 0
    if Ellipsis in items or (not items and annotation is typing.Tuple):  # noqa: UP006
        return None
    return len(items)


def is_annotated_as(fn: Callable[..., Any], place: int | str, kind: type) -> bool:
    """Whether the parameter of a method is annotated with a class or a subclass of it.

    Parameters
    ----------
    fn : callable
        The method, not bound.
    place : int or str
        Number, counted without ``self``, or name of the argument.
    kind : type
        The class; it may stand inside of a union or of a generic type.

    Examples
    --------
    >>> class Shape:
    ...     def __init__(self, size, name: str | None = None, *rest: int): ...
    >>> [is_annotated_as(Shape.__init__, place, str) for place in (0, 1, 2, "name")]
    [False, True, False, True]
    """
    try:
        parameters = list(inspect.signature(fn).parameters.values())[1:]
    except (TypeError, ValueError):
        return False
    if isinstance(place, str):
        found = [p for p in parameters if p.name == place or p.kind is p.VAR_KEYWORD]
    else:
        found = [p for p in parameters[: place + 1] if p.kind in _BY_PLACE]
        found = found[-1:]
    if not found:
        return False
    annotation = _hints(fn).get(found[0].name, found[0].annotation)
    if isinstance(annotation, str):  # of a name that cannot be looked up from here
        return re.search(rf"\b{kind.__name__}\b", annotation) is not None
    return _is_within(annotation, kind)


def _is_within(annotation: Any, kind: type) -> bool:
    parts = (annotation, typing.get_origin(annotation))
    if any(isinstance(part, type) and issubclass(part, kind) for part in parts):
        return True
    return any(_is_within(part, kind) for part in typing.get_args(annotation))


def is_field(default: Any) -> bool:
    """Whether a default is a field of pydantic, which is not loaded for the question.

    Examples
    --------
    >>> is_field(3)
    False
    """
    kind = type(default)
    return kind.__name__ == "FieldInfo" and kind.__module__ == "pydantic.fields"


def annotation_of(fn: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Annotation of one parameter; the names in a string are looked up.

    Raises
    ------
    NameError
        If one is not known where the function was defined.

    Examples
    --------
    >>> def body(x: "list[int]"): ...
    >>> annotation_of(body, inspect.signature(body).parameters["x"])
    list[int]
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = inspect.unwrap(getattr(fn, "__func__", fn))
    # Of this one only: another that cannot be looked up is no reason to fail here.
    holder = type("Annotated", (), {"__annotations__": {"it": parameter.annotation}})
    names = getattr(fn, "__globals__", None) or vars(sys.modules[fn.__module__])
    return typing.get_type_hints(holder, names, include_extras=True)["it"]


def _annotation(found: Any) -> Any:
    return Any if found is inspect.Signature.empty else found


def _hints(fn: Callable[..., Any]) -> dict[str, Any]:
    """Annotations with their names looked up, as far as that works."""
    try:
        return typing.get_type_hints(fn)
    except Exception:  # an annotation may name what does not exist at run time
        return {}
