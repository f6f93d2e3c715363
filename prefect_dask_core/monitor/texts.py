"""Texts: numbers and names as people read them, the same wherever they are shown."""

from __future__ import annotations

from datetime import datetime, timezone

from prefect_dask_core.runners.redaction import cut

__all__ = [
    "Told",
    "clock_text",
    "cut",
    "cut_label",
    "duration",
    "first_line",
    "rate_text",
    "short_address",
]


class Told(str):
    """A value that is text for people already, as the ledger keeps it."""

    __slots__ = ()


def duration(seconds: float) -> str:
    """A length of time for people.

    Examples
    --------
    >>> [duration(seconds) for seconds in (0.00012, 0.0123, 4.2, 75, 3723, 187200)]
    ['120 µs', '12.3 ms', '4.20 s', '1 min 15 s', '1 h 02 min', '2 d 04 h']
    """
    if seconds < 0.001:
        return f"{seconds * 1_000_000:.3g} µs"
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def rate_text(per_second: float | None) -> str:
    """A rate for people, in whichever unit is readable.

    Examples
    --------
    >>> [rate_text(rate) for rate in (None, 0.0, 12345.6, 3.21, 0.5, 0.001)]
    ['', '', '12,346/s', '3.2/s', '30/min', '3.6/h']
    """
    if not per_second:
        return ""
    for factor, unit in ((1, "s"), (60, "min"), (3600, "h")):
        rate = per_second * factor
        if rate >= 1 or unit == "h":
            break
    return f"{rate:,.0f}/{unit}" if rate >= 10 else f"{rate:.1f}/{unit}"


def clock_text(when: float) -> str:
    """A time of the day, as UTC: the scheduler does not know where its reader is."""
    return datetime.fromtimestamp(when, timezone.utc).strftime("%H:%M:%S")


def first_line(text: str, most: int = 160) -> str:
    """First line of a text that says something, cut to a length."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return cut(line, most)


def cut_label(name: str, index: str, most: int) -> str:
    """A name of at most so many characters, and the index of a child, which is whole.

    Examples
    --------
    >>> cut_label("transform_everything", "[5]", 10), cut_label("load", "", 10)
    ('transf…[5]', 'load')
    """
    return f"{cut(name, max(4, most - len(index)))}{index}"


def short_address(address: str) -> str:
    """An address without its protocol.

    Examples
    --------
    >>> short_address("tcp://10.0.0.1:4567"), short_address("inproc://10.0.0.1/9/4")
    ('10.0.0.1:4567', '10.0.0.1/9/4')
    """
    return address.rpartition("://")[2]
