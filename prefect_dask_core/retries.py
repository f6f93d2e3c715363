"""Retries: whether to attempt again, and after how many seconds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from prefect_dask_core.states import State

#: The largest number of delays; a longer list is a mistake.
MOST_DELAYS: Final = 50


class RetryOptions(Protocol):
    """The options of a task that decide on its retries."""

    @property
    def retries(self) -> int:
        """Number of attempts after the first."""

    @property
    def retry_delay_seconds(self) -> float | tuple[float, ...]:
        """Seconds before an attempt; several are for one attempt each."""


def delay_before_retry(options: RetryOptions, run_count: int) -> float | None:
    """Seconds until the next attempt, or `None` if there is none.

    Parameters
    ----------
    options : TaskOptions
        Options of the task.
    run_count : int
        Attempts made so far, at least 1.

    Notes
    -----
    If there are fewer delays than retries, the last delay repeats.

    Examples
    --------
    >>> from prefect_dask_core.options import TaskOptions
    >>> options = TaskOptions("load", retries=3, retry_delay_seconds=[1, 10])
    >>> [delay_before_retry(options, run_count) for run_count in (1, 2, 3, 4)]
    [1.0, 10.0, 10.0, None]
    """
    if run_count > options.retries:
        return None
    delay = options.retry_delay_seconds
    if isinstance(delay, tuple):
        return delay[min(run_count, len(delay)) - 1]
    return delay


def jittered(delay: float, factor: float | None, fraction: float) -> float:
    """A delay, moved at random so that not all who failed come back at once.

    Parameters
    ----------
    delay : float
        Seconds, and about the mean of what comes out.
    factor : float or None
        By how much of itself a delay may grow; none or 0 leaves it as it is.
    fraction : float
        A number from 0 to 1, drawn at random.

    Notes
    -----
    The draw is of an exponential distribution with mean `delay`, cut off so that as
    much of it lies above its middle as below: between ``c * delay`` and
    ``(1 + factor) * delay`` with ``c = log2(2 ** k / (2 ** k - 1))``, ``k = 1 +
    factor``. Source of the rule: Prefect 2, ``retry_jitter_factor``.

    Examples
    --------
    >>> [round(jittered(10, 0.5, fraction), 1) for fraction in (0, 0.5, 1)]
    [6.3, 9.7, 15.0]
    >>> jittered(10, None, 0.3)
    10
    """
    if not factor or not delay:
        return delay
    k = 1 + factor
    # Beyond 50 the bound is 0 to the last digit, and the power would overflow.
    lowest = 0.0 if k >= 50 else math.log2(2**k / (2**k - 1))
    low, high = 1 - math.exp(-lowest), 1 - math.exp(-k)
    p = low + fraction * (high - low)
    # Where `p` is 1 to the last digits, its logarithm may be out of bounds.
    found = -delay * math.log(max(1 - p, 1e-300))
    return min(max(found, lowest * delay), k * delay)


#: A fraction for `jittered`. Asked for through an effect: the engine draws no lots.
draw_fraction = random.random


@dataclass(frozen=True, slots=True)
class RetryOn:
    """A retry condition: the failure is of one of some classes.

    Parameters
    ----------
    kinds : tuple of classes
        Subclasses of `Exception`.
    """

    kinds: tuple[type[Exception], ...]

    def __call__(self, task: Any, task_run: Any, state: State) -> bool:
        """Whether to attempt again."""
        return isinstance(state.result(raise_on_failure=False), self.kinds)


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Delays that double with each attempt, for ``retry_delay_seconds=``.

    Parameters
    ----------
    backoff_factor : float
        Seconds before the second attempt.

    Examples
    --------
    >>> exponential_backoff(10)(4)
    [10.0, 20.0, 40.0, 80.0]
    """

    def delays(retries: int) -> list[float]:
        return [float(backoff_factor * 2**i) for i in range(min(retries, MOST_DELAYS))]

    return delays
