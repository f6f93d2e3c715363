"""Redaction: short texts of values and errors that give no secret away.

What pages show of a failure leaves the worker as plain text, made here. Nothing that is
larger than a few lines is read, and no `__repr__` of the user's is called: it may be
slow, may fail, and may tell what nobody should read.
"""

from __future__ import annotations

import contextlib
import os
import re
import sysconfig
import traceback
from collections.abc import Mapping
from datetime import date, time, timedelta
from enum import Enum
from functools import lru_cache
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Final

from prefect_dask_core.diagnostics import is_secret

#: Characters of one value, of a message, and of a traceback.
VALUE_LENGTH, MESSAGE_LENGTH, TRACEBACK_LENGTH = 80, 400, 4_000
#: Items that are shown of a collection, and levels that are shown of nested ones.
MOST_ITEMS, MOST_LEVELS = 4, 2
#: What stands in the place of a secret.
HIDDEN: Final = "<hidden>"

_PACKAGE: Final = "prefect_dask_core"
#: The password in ``scheme://user:password@host``.
_IN_ADDRESS: Final = re.compile(r"(?<=://)([^\s/:@]*):[^\s/@]+@")
#: What follows the name of a secret, as in ``password=...`` or ``"token": "..."``. No
#: part of it may match a long word from each of its letters: texts may be long.
_AFTER_NAME: Final = re.compile(
    r"""(?ix)
    ( (?: secret | token | password | passwd | passphrase | credential | api_?key )
      \w{0,40} ["']? \s{0,4} [=:] \s{0,4} )
    ( "[^"\n]*"? | '[^'\n]*'? | (?:bearer\s+)? [^\s,;&)}\]"']+ )
    """
)
_BEARER: Final = re.compile(r"(?i)\b(authorization\s{0,4}[=:]\s{0,4}\w{1,40}\s+)\S+")
_PLAIN: Final = (bool, int, float, complex, type(None), date, time, timedelta, PurePath)


def without_secrets(text: str) -> str:
    """A text without what looks like a password or a token.

    Examples
    --------
    >>> without_secrets("cannot open postgresql://ann:pa55@db/prices")
    'cannot open postgresql://ann:<hidden>@db/prices'
    >>> without_secrets("refused: token=abc123, region='eu'")
    "refused: token=<hidden>, region='eu'"
    """
    text = _IN_ADDRESS.sub(rf"\1:{HIDDEN}@", text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    return _AFTER_NAME.sub(rf"\1{HIDDEN}", text)


def cut(text: str, length: int) -> str:
    """A text of at most so many characters.

    Examples
    --------
    >>> cut("a long story", 8), cut("short", 8)
    ('a long …', 'short')
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def short_text(name: str, value: Any) -> str:
    """A value in a few words; hidden if its name is that of a secret.

    Parameters
    ----------
    name : str
        Name of the parameter.
    value : object
        Its value. Numbers, texts and the built-in collections are shown, of all else
        the type and how large it is.

    Examples
    --------
    >>> short_text("path", "data/2024.csv"), short_text("api_token", "abc")
    ("'data/2024.csv'", '<hidden>')
    >>> short_text("rows", [1, 2, 3, 4, 5, 6]), short_text("row", {"password": 1})
    ('[1, 2, 3, 4, … 2 more]', "{'password': <hidden>}")
    """
    if is_secret(name):
        return HIDDEN
    return cut(without_secrets(_shown(value, MOST_LEVELS)), VALUE_LENGTH)


def _shown(value: Any, levels: int) -> str:
    kind = type(value)
    if kind in (str, bytes):
        # Cut twice: the text of a long one would be made in full.
        return cut(repr(value[:VALUE_LENGTH]), VALUE_LENGTH)
    if isinstance(value, Enum):
        return f"{kind.__name__}.{value.name}"
    if kind is int and value.bit_length() > 256:
        return f"<int of {value.bit_length():,} bits>"
    if kind in _PLAIN or isinstance(value, PurePath):
        return repr(value)
    if kind is dict:
        return _collected(
            [
                f"{_shown(key, 0)}: {_shown_unless_secret(key, item, levels)}"
                for key, item in _first(value.items())
            ]
            if levels
            else [],
            len(value),
            "{}",
        )
    if kind in (list, tuple, set, frozenset):
        ends = "[]" if kind is list else "()" if kind is tuple else "{}"
        found = [_shown(item, levels - 1) for item in _first(value)] if levels else []
        return _collected(found, len(value), ends)
    return _described(value)


def _shown_unless_secret(key: Any, item: Any, levels: int) -> str:
    if isinstance(key, str) and is_secret(key):
        return HIDDEN
    return _shown(item, levels - 1)


def _first(items: Any) -> list[Any]:
    return [item for item, _ in zip(items, range(MOST_ITEMS), strict=False)]


def _collected(found: list[str], length: int, ends: str) -> str:
    more = length - len(found)
    if more:
        found = [*found, f"… {more:,} more" if found else f"… {more:,}"]
    return f"{ends[0]}{', '.join(found)}{ends[1]}"


def _described(value: Any) -> str:
    """Type of a value, and its size where that is known without computing."""
    name = type(value).__qualname__
    try:
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape):
            return f"<{name} {' x '.join(map(str, shape))}>"
    except Exception:
        return f"<{name}>"  # an attribute of the user's that fails
    return f"<{name} of {len(value):,}>" if isinstance(value, Mapping) else f"<{name}>"


# -- errors ------------------------------------------------------------------------


def message_of(text: str | None) -> str:
    """The message of a state, short and without secrets."""
    return cut(without_secrets((text or "")[: 4 * MESSAGE_LENGTH]), MESSAGE_LENGTH)


def traceback_of(error: BaseException) -> str:
    """Where an error was raised, from the user's code on, without secrets.

    Returns
    -------
    str
        As Python prints it, but for the frames of this package at its begin; the end is
        kept if it is too long. Only the error's text if it was raised nowhere.
    """
    try:
        lines = traceback.format_exception(
            type(error), error, _of_the_user(error.__traceback__), limit=-12
        )
        # Twice what is kept: what a secret was cut from its name by is left out, too.
        text = "".join(lines).strip()[-2 * TRACEBACK_LENGTH :]
        text = without_secrets(_with_short_paths(text))
    except Exception as broken:  # the error's own `__str__`
        return f"{type(error).__name__}: its text cannot be read ({broken!r})"
    if len(text) <= TRACEBACK_LENGTH:
        return text
    return "…" + text[1 - TRACEBACK_LENGTH :]


def _with_short_paths(text: str) -> str:
    """A traceback in which files are told by the part of their path that says most."""
    for folder, name in _folders():
        text = text.replace(f'File "{folder}{os.sep}', f'File "{name}')
    return text


@lru_cache
def _folders() -> tuple[tuple[str, str], ...]:
    """Folders that are told short: packages, the standard library, where we are, home.

    The longer ones first, as they lie in one another.
    """
    paths = sysconfig.get_paths()
    found = {
        paths["purelib"]: "",
        paths["platlib"]: "",
        paths["stdlib"]: "",
        str(Path.home()): f"~{os.sep}",
    }
    with contextlib.suppress(OSError):  # it may be gone by now
        found[os.getcwd()] = ""
    found.pop(os.sep, None)
    return tuple(sorted(found.items(), key=lambda item: -len(item[0])))


def _of_the_user(trace: TracebackType | None) -> TracebackType | None:
    """A traceback from its first frame that is not of this package."""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.split(".")[0] != _PACKAGE:
            return trace
        trace = trace.tb_next
    return None
