"""Travelling: exceptions and states as bytes that whoever reads them can open.

What cannot travel, or cannot be imported where it is read, is told in words instead,
and spoils nothing beside it.
"""

from __future__ import annotations

import functools
import io
import pickle
from types import TracebackType
from typing import Any, Final

import cloudpickle
from tblib import pickling_support  # type: ignore[import-untyped]

from prefect_dask_core.engine.codes import STATE_BY_CODE, code_of
from prefect_dask_core.errors import RemoteTaskError
from prefect_dask_core.states import NO_DATA, Missing, State

#: Types that pickle and unpickle wherever Python is.
_PRIMITIVES: Final = frozenset({type(None), bool, int, float, str, bytes})
#: Module of the states that whoever has this package can read.
_KNOWN: Final = State.__module__


def portable(state: State) -> Any:
    """A state as something that travels, and unpickles as a state wherever it arrives.

    Data that cannot be unpickled there becomes a `RemoteTaskError` or `Missing` that
    tells of it, and a state of a class that cannot be imported one of the nearest class
    of this package.

    Notes
    -----
    An exception that pickles can still fail to unpickle (its `__init__` wants other
    arguments than its `args`), so both ways are tried, here where it happened.
    """
    data = state.data
    if type(data) not in _PRIMITIVES and data is not NO_DATA:
        data = _portable_data(data)
    if _is_known(state):
        return state if data is state.data else state.replace(data=data)
    fallback = STATE_BY_CODE[code_of(state)](
        None if state.message is None else str(state.message),
        data=data,
        name=str(state.name),
        timestamp=state.timestamp,
    )
    try:
        blob = dumped(state.replace(data=NO_DATA))
    except Exception:
        return fallback
    return _PortableState(blob, fallback)


def _is_known(state: State) -> bool:
    """Whether a state is readable wherever its data is."""
    kind: Any = type(state)
    if kind.__module__ != _KNOWN:
        return False
    return all(type(getattr(state, field)) in _PRIMITIVES for field in _told(kind))


@functools.cache
def _told(kind: Any) -> tuple[str, ...]:
    """Fields of a class of states that may hold anything; `run` is ours."""
    return tuple(field for field in kind._fields() if field not in ("data", "run"))


class _PortableState:
    """A state, and what is said instead where it cannot be read."""

    __slots__ = ("blob", "fallback")

    def __init__(self, blob: bytes, fallback: State) -> None:
        self.blob = blob
        self.fallback = fallback

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_state, (self.blob, self.fallback)


def _opened_state(blob: bytes, fallback: State) -> State:
    try:
        state: State = pickle.loads(blob)
        return state.replace(data=fallback.data)
    except Exception:
        return fallback


class _PortableData:
    """Data of a state, unpickled by itself: a failure spoils no other state."""

    __slots__ = ("blob", "is_error", "text")

    def __init__(self, blob: bytes, text: str, is_error: bool) -> None:
        self.blob = blob
        self.text = text
        self.is_error = is_error

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self.blob, self.text, self.is_error)


def _opened(blob: bytes, text: str, is_error: bool) -> Any:
    """The data, or what was said of it where its class cannot be imported."""
    try:
        return pickle.loads(blob)
    except Exception as error:
        if is_error:
            return RemoteTaskError(text)
        return Missing(
            f"the state's data, of type {text}, cannot be unpickled here "
            f"({type(error).__name__}: {error})."
        )


def _portable_data(data: Any) -> Any:
    is_error = isinstance(data, BaseException)
    text = _told_of(data) if is_error else _kind_of(data)
    try:
        if _is_simple(data):
            blob = pickle.dumps(data, protocol=5)
        else:
            blob = dumped(data)
            pickle.loads(blob)
    except Exception as error:
        if not is_error:
            return Missing(
                f"the state's data, of type {text}, cannot be pickled "
                f"({type(error).__name__}: {error}), so it did not travel."
            )
        found = _dumped_in_part(data)
        if found is None:
            return RemoteTaskError(text)
        blob = found
    return _PortableData(blob, text, is_error)


def _is_simple(data: Any) -> bool:
    """Whether data is an exception of Python's own that nothing hangs on.

    Most are, and need no trial: half of what a failure costs its worker.
    """
    return (
        isinstance(data, BaseException)
        and type(data).__module__ == "builtins"
        and data.__cause__ is None
        and data.__context__ is None
        and not data.__dict__
        and _PRIMITIVES.issuperset(map(type, data.args))
    )


def dumped(data: Any) -> bytes:
    """Data as bytes that another process can read."""
    if isinstance(data, BaseException):
        # As `distributed` does: else classes that others wrote lose their tracebacks.
        pickling_support.install(data)
    try:
        blob = pickle.dumps(data, protocol=5)
        if b"__main__" not in blob:  # names of a script mean nothing on a worker
            return blob
    except Exception:
        pass  # a class that only cloudpickle can take along
    return bytes(cloudpickle.dumps(data))


def _dumped_in_part(error: BaseException) -> bytes | None:
    """What of an exception can travel: as much of what hangs on it as possible.

    Returns
    -------
    bytes or None
        `None` if not even its class and arguments can.
    """
    # For tracebacks. With an instance it goes down all that hangs on it.
    pickling_support.install(type(error))
    try:
        pickler = _Careful(error, alone=False, traced=_travels(error, traced=True))
        pickler.dump(error)
        blob = pickler.file.getvalue()
        pickle.loads(blob)
        return blob
    except Exception:
        return None


class _Careful(cloudpickle.Pickler):  # type: ignore[misc]
    """Leaves out what cannot travel of the exceptions that hang on one.

    Of each it finds it tries whether it travels, with words for all that hang on it;
    if not, whether it does without its traceback, which may be too deep. Else the
    words take its place. So they do for the end of a chain that is too long.

    Parameters
    ----------
    root : BaseException
        The exception.
    alone : bool
        Whether words stand for all that hang on it.
    traced : bool
        Whether it is pickled with its traceback.
    """

    def __init__(self, root: BaseException, alone: bool, traced: bool) -> None:
        self.file = io.BytesIO()
        super().__init__(self.file, protocol=5)
        self._root = root
        self._alone = alone
        self._untraced: set[int] = set()
        if not traced:
            self._untraced.add(id(root.__traceback__))

    def reducer_override(self, obj: Any) -> Any:
        """How to pickle an object; called for each that is no primitive."""
        if isinstance(obj, TracebackType) and id(obj) in self._untraced:
            return _nothing, ()
        if isinstance(obj, BaseException):
            if obj is not self._root and not self._takes(obj):
                return RemoteTaskError, (_told_of(obj),)
            return pickling_support.pickle_exception(obj)
        return super().reducer_override(obj)

    def _takes(self, error: BaseException) -> bool:
        if self._alone:
            return False
        if _travels(error, traced=True):
            return True
        self._untraced.add(id(error.__traceback__))
        return _travels(error, traced=False)


def _travels(error: BaseException, traced: bool) -> bool:
    """Whether an exception travels, but for what hangs on it."""
    try:
        pickler = _Careful(error, alone=True, traced=traced)
        pickler.dump(error)
        pickle.loads(pickler.file.getvalue())
    except Exception:
        return False
    return True


def _nothing() -> None:
    """What is left of a traceback that is too deep."""


def _told_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "its text cannot be read"
    return f"{_kind_of(error)}: {text}"


def _kind_of(data: Any) -> str:
    return f"{type(data).__module__}.{type(data).__qualname__}"
