"""Dates: the context variables that tell a flow run its day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, timezone
from typing import Any


def date_variables(now: float, given: Mapping[str, Any]) -> dict[str, Any]:
    """The date of a flow run and the days around it.

    Parameters
    ----------
    now : float
        Seconds since the epoch; the date where none is given.
    given : mapping of str to object
        Context variables given by the user. A ``date`` among them (a datetime, a date
        or a text in ISO format; UTC unless it has a zone) is used for all days; a day
        given by itself stays as it is.

    Returns
    -------
    dict of str to object
        ``date``, a datetime with its zone; ``today``, ``yesterday`` and ``tomorrow``
        as ``YYYY-MM-DD``; and with the suffix ``_nodash`` as ``YYYYMMDD``.

    Raises
    ------
    ValueError, TypeError
        If the given date is none.

    Notes
    -----
    Source of the names: context variables of the graph generations.

    Examples
    --------
    >>> days = date_variables(0.0, {"date": "2024-03-01"})
    >>> days["today"], days["yesterday"], days["tomorrow_nodash"]
    ('2024-03-01', '2024-02-29', '20240302')
    >>> date_variables(0.0, {})["date"].isoformat()
    '1970-01-01T00:00:00+00:00'
    """
    moment = (
        datetime.fromtimestamp(now, timezone.utc)
        if given.get("date") is None
        else as_moment(given["date"])
    )
    variables: dict[str, Any] = {"date": moment}
    for name, days in (("yesterday", -1), ("today", 0), ("tomorrow", 1)):
        day = moment.date() + timedelta(days=days)
        variables[name] = given.get(name, day.isoformat())
        nodash = f"{name}_nodash"
        variables[nodash] = given.get(nodash, day.isoformat().replace("-", ""))
    return variables


def as_moment(value: Any) -> datetime:
    """A datetime with a zone, from a datetime, a date or a text in ISO format.

    Examples
    --------
    >>> as_moment("2024-03-01T12:00:00Z").isoformat()
    '2024-03-01T12:00:00+00:00'
    >>> as_moment(date(2024, 3, 1)).isoformat()
    '2024-03-01T00:00:00+00:00'
    """
    moment = _parsed(value) if isinstance(value, str) else value
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if not isinstance(moment, datetime):
        raise TypeError(
            f"a date is a datetime, a date or a text such as '2024-03-01', not "
            f"{value!r}."
        )
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment


def _parsed(text: str) -> datetime:
    # Python 3.10 knows neither the Z for UTC nor a date without dashes.
    iso = f"{text[:-1]}+00:00" if text.endswith(("Z", "z")) else text
    if len(iso) == 8 and iso.isdecimal():
        iso = f"{iso[:4]}-{iso[4:6]}-{iso[6:]}"
    try:
        return datetime.fromisoformat(iso)
    except ValueError:
        raise ValueError(
            f"the date {text!r} cannot be read; write it as '2024-03-01' or "
            "'2024-03-01T12:00:00+00:00'."
        ) from None
