"""Sources: a token of what a function does, by its text and by what it carries along.

Functions of one text may do different things: those that a factory makes, partial ones,
methods of objects. So the values count that a function closes over, is bound to, or has
as its defaults. Without a text the bytecode stands for it, with all that decides what
it does: its constants and names, and nested code.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from enum import Enum
from hashlib import md5
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    WrapperDescriptorType,
)
from typing import Any, Final
from weakref import WeakKeyDictionary

from dask.base import normalize_token, tokenize

#: Tokens of functions, without what they are bound to, which may change.
_KNOWN: Final[WeakKeyDictionary[Any, str]] = WeakKeyDictionary()
#: What has a text of its own; `inspect.isroutine` takes whatever binds to an object.
_CODE: Final = (
    type,
    BuiltinFunctionType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    WrapperDescriptorType,
)
_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes})


def source_token(function: Callable[..., Any]) -> str:
    """Token of a function: the same as long as it does the same, in any process.

    Notes
    -----
    What an object is that has no token of its own is told by its class alone: its
    state may differ from process to process, and each key would be another one.

    Examples
    --------
    >>> one, other = eval("lambda x: x + 1"), eval("lambda x: x + 2")
    >>> source_token(one) == source_token(other)
    False
    >>> source_token(one) == source_token(eval("lambda x: x + 1"))
    True
    >>> def adds(n):
    ...     return lambda x: x + n
    >>> source_token(adds(1)) == source_token(adds(2))
    False
    """
    bare = _innermost(function)
    try:
        known = _KNOWN.get(bare)
    except TypeError:  # an object that cannot be hashed, or not be referred to weakly
        return _with_owners(function, _token(bare, _NOBODY), _NOBODY)
    if known is None:
        known = _token(bare, _NOBODY)
        with contextlib.suppress(TypeError):
            _KNOWN[bare] = known
    return _with_owners(function, known, _NOBODY)


#: Ids of the functions whose token is being made: a function may close over itself.
_Seen = frozenset[int]
_NOBODY: Final[_Seen] = frozenset()


def _token(bare: Any, seen: _Seen) -> str:
    """Token of a function itself, with what it closes over."""
    found = source_text(bare)
    parts = list(_parts(bare)) if found is None else [found]
    innermost = inspect.unwrap(bare)
    if isinstance(innermost, FunctionType):
        seen = seen | {id(innermost)}
        parts.append(_told(innermost.__defaults__ or (), seen))
        parts.append(_told(innermost.__kwdefaults__ or {}, seen))
        parts.append(_told(tuple(_closed_over(innermost)), seen))
    return _hash(repr(parts))


def _with_owners(function: Any, known: str, seen: _Seen) -> str:
    """A token with the arguments and the object that the function is bound to."""
    carried = []
    while isinstance(function, functools.partial):
        carried.append(_told((function.args, function.keywords), seen))
        function = function.func
    owner = function.__self__ if inspect.ismethod(function) else function
    if not isinstance(owner, _CODE):
        attributes = getattr(owner, "_attributes_of_user", None)
        own = getattr(owner, "__dict__", {}) if attributes is None else attributes()
        # Two objects may refer to each other.
        carried.append(_told(dict(own), seen | {id(owner)}))
    return _hash("\n".join([known, *carried])) if carried else known


def _told(value: Any, seen: _Seen) -> str:
    """What a value is, as text; of one that has no token, its class."""
    kind = type(value)
    if kind in _PLAIN:
        return f"{kind.__name__}:{value!r}"
    if id(value) in seen:
        return "itself"
    if kind in (tuple, list, set, frozenset, dict):
        inside = seen | {id(value)}
        items = value.items() if kind is dict else value
        told = [_told(item, inside) for item in items]
        return f"{kind.__name__}:{told if kind in (tuple, list) else sorted(told)!r}"
    if hasattr(kind, "call_body"):  # a task or a flow
        value = value.fn
    if isinstance(value, _CODE):
        bare = _innermost(value)
        if id(inspect.unwrap(bare)) in seen:
            return "itself"
        return _with_owners(value, _token(bare, seen), seen)
    if isinstance(value, functools.partial):
        return _with_owners(value, _token(_innermost(value), seen), seen)
    if _has_token(kind):
        with contextlib.suppress(Exception):
            return str(tokenize(value, ensure_deterministic=True))
    return f"{kind.__module__}.{kind.__qualname__}"


def _has_token(kind: type) -> bool:
    """Whether Dask knows what tells the values of a class apart."""
    if (
        is_dataclass(kind)
        or issubclass(kind, Enum)
        or hasattr(kind, "__dask_tokenize__")
    ):
        return True
    find: Any = normalize_token.dispatch
    return find(kind) is not find(object)


def _hash(text: str) -> str:
    return md5(
        text.encode(errors="backslashreplace"), usedforsecurity=False
    ).hexdigest()


def source_text(function: Any) -> str | None:
    """Text of a function, unindented; `None` without one."""
    bare = inspect.unwrap(_innermost(function))
    if not isinstance(bare, _CODE):
        bare = type(bare)
    try:
        return textwrap.dedent(inspect.getsource(bare))
    except (OSError, TypeError):
        return None


def _innermost(function: Any) -> Any:
    """The function itself, without what it is bound to."""
    while isinstance(function, functools.partial):
        function = function.func
    return function.__func__ if inspect.ismethod(function) else function


def _parts(function: Any) -> Iterator[Any]:
    bare = inspect.unwrap(_innermost(function))
    code = getattr(bare, "__code__", None)
    if code is None:
        kind = bare if hasattr(bare, "__qualname__") else type(bare)
        yield getattr(kind, "__module__", ""), kind.__qualname__
        return
    yield from _parts_of_code(code)


def _closed_over(function: Any) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it has no value yet
            yield None


def _parts_of_code(code: CodeType) -> Iterator[Any]:
    yield code.co_code.hex(), code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts_of_code(constant)
        else:
            yield repr(constant)
