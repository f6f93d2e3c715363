"""Triggers: whether a task may run, given how the tasks above it ended.

A shipped trigger looks only at counts (`Tally`), never at single states. A fan-out of
a million children is therefore judged by adding up what its blocks report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prefect_dask_core.states import (
    Paused,
    Skipped,
    State,
    TriggerFailed,
    counts_as_failure,
)

#: How many failed tasks a message names.
NAMED_FAILURES: Final = 3

#: Messages of runs that were skipped because of runs above them.
UPSTREAM_SKIPPED: Final = (
    "an upstream task was skipped; skip_on_upstream_skip=False lets the trigger decide "
    "instead."
)
ALL_SKIPPED: Final = "every task above was skipped"


@dataclass(frozen=True, slots=True)
class Tally:
    """How many upstream runs ended how. Tallies of parts add up with ``+``.

    Parameters
    ----------
    total : int
        Number of upstream runs; each child of a fan-out is one.
    successful : int
        Those that completed, the skipped among them.
    failed : int
        Those that failed or crashed.
    skipped : int
        Those that were skipped.
    finished : int
        Those that ended for good, in whatever way.
    failed_names : tuple of str
        Names of the first failed runs, at most `NAMED_FAILURES`.

    Examples
    --------
    >>> from prefect_dask_core.states import Completed, Failed
    >>> upstream = Tally.of({"extract": Completed(), "load[3]": Failed()})
    >>> upstream.successful, upstream.failed, upstream.failed_names
    (1, 1, ('load[3]',))
    >>> (upstream + upstream).total
    4
    """

    total: int = 0
    successful: int = 0
    failed: int = 0
    skipped: int = 0
    finished: int = 0
    failed_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, states: Mapping[Any, State]) -> Tally:
        """Count states, given by the name of their run. Other keys are named by `str`.

        A mapped parent counts as the one state it is; give its children instead.
        """
        return cls.of_pairs(states.items())

    @classmethod
    def of_pairs(cls, pairs: Iterable[tuple[Any, State]]) -> Tally:
        """Count states given as pairs of name and state."""
        total = successful = failed = skipped = finished = 0
        names: list[str] = []
        for name, state in pairs:
            total += 1
            successful += state.is_successful()
            skipped += state.is_skipped()
            finished += state.is_final()
            if counts_as_failure(state):
                failed += 1
                if failed <= NAMED_FAILURES:
                    names.append(str(name))
        return cls(total, successful, failed, skipped, finished, tuple(names))

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.total + other.total,
            self.successful + other.successful,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.finished + other.finished,
            (self.failed_names + other.failed_names)[:NAMED_FAILURES],
        )


#: Whether to run: `None`, or the state the task takes instead of running. The second
#: argument says whether the run was resumed after a pause.
Rule = Callable[[Tally, bool], State | None]


@dataclass(frozen=True, slots=True)
class Trigger:
    """A named rule on a tally.

    Parameters
    ----------
    name : str
        Name used in messages.
    rule : callable (Tally, bool) -> State or None
        `None` lets the task run; a state is what the task takes instead. The bool
        says whether the run was resumed after a pause.

    Examples
    --------
    >>> from prefect_dask_core.states import Failed
    >>> all_successful.rule(Tally.of({"extract": Failed()}), False)
    TriggerFailed("trigger 'all_successful' refused: extract failed")
    >>> any_failed({"extract": Failed()})
    True
    """

    name: str
    rule: Rule

    def __call__(self, upstream: Mapping[Any, State]) -> bool:
        """Whether the task may run, for use inside a trigger of one's own.

        Parameters
        ----------
        upstream : mapping of object to State
            Final states above the task. Only the values matter.
        """
        return self.rule(Tally.of(upstream), False) is None

    def __reduce__(self) -> str | tuple[Any, ...]:
        # A shipped trigger travels as its name, and is one object everywhere.
        if _SHIPPED.get(self.name) is self:
            return self.name
        return Trigger, (self.name, self.rule)


def _refused(trigger: str, reason: str) -> TriggerFailed:
    return TriggerFailed(f"trigger {trigger!r} refused: {reason}")


def _failures(tally: Tally) -> str:
    """Names of the failed runs, as the beginning of a sentence."""
    named = ", ".join(tally.failed_names)
    further = tally.failed - len(tally.failed_names)
    return f"{named} and {further} more failed" if further else f"{named} failed"


def _require_all_successful(tally: Tally, resumed: bool) -> State | None:
    if tally.successful == tally.total:
        return None
    reason = f"{tally.total - tally.successful} of {tally.total} did not succeed"
    return _refused("all_successful", _failures(tally) if tally.failed else reason)


def _require_all_failed(tally: Tally, resumed: bool) -> State | None:
    if tally.failed == tally.total:
        return None
    reason = f"{tally.total - tally.failed} of {tally.total} did not fail"
    return _refused("all_failed", reason)


def _require_any_successful(tally: Tally, resumed: bool) -> State | None:
    if tally.successful or not tally.total:
        return None
    reason = f"none of {tally.total} succeeded"
    if tally.failed:
        reason = f"{reason}; {_failures(tally)}"
    return _refused("any_successful", reason)


def _require_any_failed(tally: Tally, resumed: bool) -> State | None:
    if tally.failed or not tally.total:
        return None
    return _refused("any_failed", f"none of {tally.total} failed")


def _require_all_finished(tally: Tally, resumed: bool) -> State | None:
    if tally.finished == tally.total:
        return None
    unfinished = tally.total - tally.finished
    return _refused("all_finished", f"{unfinished} of {tally.total} did not finish")


def _require_resumption(tally: Tally, resumed: bool) -> State | None:
    if resumed:
        return None
    return Paused("trigger 'manual_only' waits for somebody to resume the run")


def _require_not_all_skipped(tally: Tally, resumed: bool) -> State | None:
    if tally.skipped == tally.total:
        return Skipped(ALL_SKIPPED)
    if tally.successful == tally.total:
        return None
    reason = f"{tally.total - tally.successful} of {tally.total} did not succeed"
    return _refused("not_all_skipped", _failures(tally) if tally.failed else reason)


@dataclass(frozen=True, slots=True)
class NumberRule:
    """Rule of `some_failed` and `some_successful`: a count lies between bounds.

    Parameters
    ----------
    trigger : str
        Name of the trigger, for messages.
    count : str
        Which count of the tally.
    at_least, at_most : int or float, optional
        The bounds.
    """

    trigger: str
    count: str
    at_least: float | None
    at_most: float | None

    def __call__(self, tally: Tally, resumed: bool) -> State | None:
        """State the task takes if the count is out of bounds."""
        found: int = getattr(tally, self.count)
        lowest = 0 if self.at_least is None else _absolute(self.at_least, tally.total)
        highest = (
            found if self.at_most is None else _absolute(self.at_most, tally.total)
        )
        if lowest <= found <= highest or not tally.total:
            return None
        reason = f"{found} of {tally.total} {self.count}"
        if tally.failed:
            reason = f"{reason}; {_failures(tally)}"
        return _refused(self.trigger, reason)


def _absolute(number: float, total: int) -> float:
    """A number below one is a fraction of the total."""
    return number * total if number < 1 else number


#: Every run above succeeded; a skipped one did. What tasks have unless told otherwise.
all_successful = Trigger("all_successful", _require_all_successful)
#: Every run above failed.
all_failed = Trigger("all_failed", _require_all_failed)
#: At least one run above succeeded.
any_successful = Trigger("any_successful", _require_any_successful)
#: At least one run above failed.
any_failed = Trigger("any_failed", _require_any_failed)
#: Every run above ended, in whatever way.
all_finished = Trigger("all_finished", _require_all_finished)
#: Another word for `all_finished`.
always_run = all_finished
#: Pause until somebody resumes the run.
manual_only = Trigger("manual_only", _require_resumption)
#: Every run above succeeded and not all were skipped; if all were, the task skips.
not_all_skipped = Trigger("not_all_skipped", _require_not_all_skipped)

_SHIPPED: Final[Mapping[str, Trigger]] = {
    trigger.name: trigger
    for trigger in (
        all_successful,
        all_failed,
        any_successful,
        any_failed,
        all_finished,
        manual_only,
        not_all_skipped,
    )
}


def some_failed(at_least: float | None = None, at_most: float | None = None) -> Trigger:
    """Trigger on how many runs above failed.

    Parameters
    ----------
    at_least, at_most : int or float, optional
        Bounds, both included. A number below one is a fraction of all runs above;
        from one on it is a number of runs, so ``1.0`` means one run, not all.

    Examples
    --------
    >>> from prefect_dask_core.states import Completed, Failed
    >>> some_failed(at_least=0.5)({"a": Failed(), "b": Completed()})
    True
    >>> some_failed(at_most=1).name
    'some_failed(at_most=1)'
    """
    return _number_trigger("some_failed", "failed", at_least, at_most)


def some_successful(
    at_least: float | None = None, at_most: float | None = None
) -> Trigger:
    """Trigger on how many runs above succeeded; bounds as in `some_failed`."""
    return _number_trigger("some_successful", "successful", at_least, at_most)


def _number_trigger(
    kind: str, count: str, at_least: float | None, at_most: float | None
) -> Trigger:
    bounds = {"at_least": at_least, "at_most": at_most}
    given = {bound: number for bound, number in bounds.items() if number is not None}
    for bound, number in given.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(
                f"{kind}({bound}={number!r}): the bound is a number of tasks, or a "
                "fraction of them below one."
            )
        if not number >= 0:
            raise ValueError(f"{kind}({bound}={number!r}): the bound is negative.")
    name = f"{kind}({', '.join(f'{key}={value!r}' for key, value in given.items())})"
    return Trigger(name, NumberRule(name, count, at_least, at_most))
