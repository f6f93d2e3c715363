"""Sources: a token of what a function does, by its text.

Without a text the bytecode stands for it, with all that decides what it does: its
constants and names, nested code, defaults, and the values that it closes over.
"""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from hashlib import md5
from types import CodeType
from typing import Any, Final
from weakref import WeakKeyDictionary

from dask.base import tokenize

_KNOWN: Final[WeakKeyDictionary[Any, str]] = WeakKeyDictionary()


def source_token(function: Callable[..., Any]) -> str:
    """Token of a function: the same as long as its text is.

    Examples
    --------
    >>> one, other = eval("lambda x: x + 1"), eval("lambda x: x + 2")
    >>> source_token(one) == source_token(other)
    False
    >>> source_token(one) == source_token(eval("lambda x: x + 1"))
    True
    """
    try:
        known = _KNOWN.get(function)
    except TypeError:  # an object that cannot be hashed, or not be referred to weakly
        return _token(function)
    if known is None:
        known = _token(function)
        try:
            _KNOWN[function] = known
        except TypeError:
            return known
    return known


def _token(function: Any) -> str:
    found = source_text(function)
    if found is None:
        found = repr(list(_parts(function)))
    return md5(
        found.encode(errors="backslashreplace"), usedforsecurity=False
    ).hexdigest()


def source_text(function: Any) -> str | None:
    """Text of a function, unindented; `None` without one."""
    bare = inspect.unwrap(_innermost(function))
    if not inspect.isroutine(bare) and not isinstance(bare, type):
        bare = type(bare)
    try:
        return textwrap.dedent(inspect.getsource(bare))
    except (OSError, TypeError):
        return None


def _innermost(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _parts(function: Any) -> Iterator[Any]:
    bare = inspect.unwrap(_innermost(function))
    bare = getattr(bare, "__func__", bare)
    code = getattr(bare, "__code__", None)
    if code is None:
        kind = bare if hasattr(bare, "__qualname__") else type(bare)
        yield getattr(kind, "__module__", ""), kind.__qualname__
        return
    yield from _parts_of_code(code)
    yield _values(bare.__defaults__ or ())
    yield _values(sorted((bare.__kwdefaults__ or {}).items()))
    yield _values(_closed_over(bare))


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


def _values(values: Any) -> list[str]:
    """Tokens of the values that have one."""
    found = []
    for value in values:
        try:
            found.append(tokenize(value, ensure_deterministic=True))
        except Exception:
            # What differs from process to process would make each key another one.
            found.append(type(value).__qualname__)
    return found
