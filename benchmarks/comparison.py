"""Comparison: two ways to do the same work, measured in turns, and a bar to hold.

Times on a shared machine drift by tens of percent within minutes, so one side is never
measured after the other but in turns, and what counts is the median of the ratios of
neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, NamedTuple


class Pair(NamedTuple):
    """What both sides gave when they were measured one right after the other.

    Parameters
    ----------
    ours : float
        What this package gave.
    peer : float or None
        What the other side gave; `None` where there is none.
    """

    ours: float
    peer: float | None = None


class Bar(NamedTuple):
    """What a measurement has to keep to.

    Parameters
    ----------
    of : {"ratio", "difference", "ours"}
        What is held against the limit: ours by peer, ours less peer, or ours alone.
    limit : float
        The limit; it may be touched.
    at_least : bool
        Whether more is better.
    binding : bool
        Whether missing it is an error; otherwise it is a goal.

    Examples
    --------
    >>> str(Bar("ratio", 1.15)), str(Bar("ours", 10, binding=False))
    ('ratio ≤ 1.15', 'ours ≤ 10 (goal)')
    """

    of: Literal["ratio", "difference", "ours"]
    limit: float
    at_least: bool = False
    binding: bool = True

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        goal = "" if self.binding else " (goal)"
        return f"{self.of} {sign} {self.limit:g}{goal}"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One line of the table.

    Parameters
    ----------
    what : str
        What was measured, against what.
    unit : str
        Unit of both sides.
    pairs : tuple of Pair
        At least one; all with a peer, or none.
    bar : Bar, optional
        What it has to keep to.

    Examples
    --------
    >>> line = Measurement("chain", "s", (Pair(2.0, 1.0), Pair(3.0, 2.0)))
    >>> line.ours, line.peer, line.ratio, line.difference
    (2.5, 1.5, 1.75, 1.0)
    """

    what: str
    unit: str
    pairs: tuple[Pair, ...]
    bar: Bar | None = None

    @property
    def ours(self) -> float:
        """Median of our side."""
        return median(pair.ours for pair in self.pairs)

    @property
    def peer(self) -> float | None:
        """Median of the other side, `None` if there is none."""
        found = [pair.peer for pair in self.pairs if pair.peer is not None]
        return median(found) if found else None

    @property
    def ratio(self) -> float | None:
        """Median of the ratios of the pairs; not the ratio of the medians."""
        found = [p.ours / p.peer for p in self.pairs if p.peer is not None]
        return median(found) if found else None

    @property
    def difference(self) -> float | None:
        """Median of ours less peer, in `unit`."""
        found = [p.ours - p.peer for p in self.pairs if p.peer is not None]
        return median(found) if found else None

    @property
    def verdict(self) -> str:
        """Whether the bar is held, in a word; empty if there is none.

        Examples
        --------
        >>> Measurement("wait", "s", (Pair(13.0),), Bar("ours", 12)).verdict
        'missed'
        """
        if self.bar is None:
            return ""
        value: float | None = getattr(self, self.bar.of)
        if value is None:
            raise ValueError(
                f"{self.what!r} has a bar of {self.bar.of}, but no peer was measured; "
                "measure one, or hold a bar of 'ours'."
            )
        limit = self.bar.limit
        held = value >= limit if self.bar.at_least else value <= limit
        if self.bar.binding:
            return "holds" if held else "missed"
        return "met" if held else "open"

    @property
    def is_missed(self) -> bool:
        """Whether it has a bar that binds, and misses it."""
        return self.verdict == "missed"

    def without_obligation(self) -> Measurement:
        """The same, its bar a goal only."""
        bar = self.bar and self.bar._replace(binding=False)
        return Measurement(self.what, self.unit, self.pairs, bar)

    def as_record(self) -> dict[str, Any]:
        """The measurement as JSON has it."""
        return {
            "what": self.what,
            "unit": self.unit,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio,
            "difference": self.difference,
            "bar": None if self.bar is None else str(self.bar),
            "verdict": self.verdict,
            "pairs": [list(pair) for pair in self.pairs],
        }


def in_turns(
    ours: Callable[[], float],
    peer: Callable[[], float],
    rounds: int,
    warm_up: int = 1,
) -> tuple[Pair, ...]:
    """Measure two sides in turns.

    Parameters
    ----------
    ours, peer : callable
        Each does its work once and returns its measurement.
    rounds : int
        Number of pairs.
    warm_up : int
        Pairs that are measured first and thrown away.

    Notes
    -----
    Who goes first changes from round to round, so a machine that becomes steadily
    slower favours nobody.

    Examples
    --------
    >>> clock = iter(range(10, 100))
    >>> pairs = in_turns(lambda: next(clock), lambda: next(clock), rounds=2)
    >>> [tuple(pair) for pair in pairs]
    [(12, 13), (15, 14)]
    """
    pairs = []
    for number in range(-warm_up, rounds):
        if number % 2:
            theirs = peer()
            pair = Pair(ours(), theirs)
        else:
            pair = Pair(ours(), peer())
        if number >= 0:
            pairs.append(pair)
    return tuple(pairs)


def seconds(work: Callable[[], object]) -> float:
    """Seconds a piece of work takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
