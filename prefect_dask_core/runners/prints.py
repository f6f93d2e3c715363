"""Prints: what a body prints goes to its logger, if it asks for that."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TextIO, TypeAlias

#: A string, because Python 3.10 cannot subscript the class.
Logger: TypeAlias = "logging.Logger | logging.LoggerAdapter[logging.Logger]"


class _Lines:
    """Collects what is printed, and logs it line by line."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._rest = ""

    def add(self, text: str) -> None:
        """Take in text; a `print` comes in several pieces."""
        *lines, self._rest = (self._rest + text).split("\n")
        self._log(lines)

    def close(self) -> None:
        """Log what has no end of line yet."""
        self._log([self._rest] if self._rest else [])
        self._rest = ""

    def _log(self, lines: list[str]) -> None:
        # A handler that writes to the captured stream would log without an end.
        token = _lines.set(None)
        try:
            for line in lines:
                self._logger.info("%s", line)
        finally:
            _lines.reset(token)


_lines: ContextVar[_Lines | None] = ContextVar("prefect_dask_core.prints", default=None)
_lock = threading.Lock()
_open = 0


class _Split(io.TextIOBase):
    """A stream that hands lines to the logger of whoever writes, if there is one."""

    def __init__(self, original: TextIO) -> None:
        self.original = original

    def write(self, text: str) -> int:
        lines = _lines.get()
        if lines is None:
            return self.original.write(text)
        lines.add(text)
        return len(text)

    def flush(self) -> None:
        self.original.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


def redirect(name: str, wrap: Callable[[TextIO], Any]) -> Callable[[], None]:
    """Put something between the program and `sys.stdout` or `sys.stderr`.

    Below what captures prints, so that these stay captured.

    Parameters
    ----------
    name : str
        ``"stdout"`` or ``"stderr"``.
    wrap : callable
        Given the stream, gives what stands in its place.

    Returns
    -------
    callable
        Puts the stream back, unless somebody has put another one there meanwhile.
    """
    with _lock:
        stream: Any = getattr(sys, name)
        if isinstance(stream, _Split):
            original = stream.original
            stream.original = wrapped = wrap(original)
        else:
            original = stream
            wrapped = wrap(original)
            setattr(sys, name, wrapped)

    def undo() -> None:
        with _lock:
            found: Any = getattr(sys, name)
            if found is wrapped:
                setattr(sys, name, original)
            elif isinstance(found, _Split) and found.original is wrapped:
                found.original = original

    return undo


def real_stderr() -> TextIO | None:
    """The stderr of the process, also while what is written to it is captured."""
    stream: Any = sys.stderr
    return stream.original if isinstance(stream, _Split) else stream


@contextlib.contextmanager
def captured(logger: Logger) -> Iterator[None]:
    """Send what this thread or asyncio task prints to a logger.

    Notes
    -----
    The process has one `sys.stdout`, and other threads keep printing to it.
    """
    global _open
    with _lock:
        _open += 1
        if not isinstance(sys.stdout, _Split):
            sys.stdout = _Split(sys.stdout)
        if not isinstance(sys.stderr, _Split):
            sys.stderr = _Split(sys.stderr)
    lines = _Lines(logger)
    token = _lines.set(lines)
    try:
        yield
    finally:
        lines.close()
        _lines.reset(token)
        with _lock:
            _open -= 1
            if not _open:
                if isinstance(sys.stdout, _Split):
                    sys.stdout = sys.stdout.original
                if isinstance(sys.stderr, _Split):
                    sys.stderr = sys.stderr.original


def are_captured() -> bool:
    """Whether what the caller prints goes to a logger."""
    return _lines.get() is not None


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Let what is printed go where it goes without a logger around."""
    token = _lines.set(None)
    try:
        yield
    finally:
        _lines.reset(token)
