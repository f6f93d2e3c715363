"""Retries: whether to attempt again, and after how many seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

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

    @property
    def retry_on(self) -> tuple[type[Exception], ...] | None:
        """Exceptions after which another attempt is made; `None` is all."""


def delay_before_retry(
    options: RetryOptions, run_count: int, error: object = None
) -> float | None:
    """Seconds until the next attempt, or `None` if there is none.

    Parameters
    ----------
    options : TaskOptions
        Options of the task.
    run_count : int
        Attempts made so far, at least 1.
    error : object, optional
        Data of the failure, as a rule its exception. A failure without an exception
        is attempted again whatever `retry_on` names.

    Notes
    -----
    Source of `retry_on`: Prefect 1.x.

    If there are fewer delays than retries, the last delay repeats.

    Examples
    --------
    >>> from prefect_dask_core.options import TaskOptions
    >>> options = TaskOptions("load", retries=3, retry_delay_seconds=[1, 10])
    >>> [delay_before_retry(options, run_count) for run_count in (1, 2, 3, 4)]
    [1.0, 10.0, 10.0, None]
    >>> options = TaskOptions("load", retries=1, retry_on=OSError)
    >>> delay_before_retry(options, 1, TimeoutError()) is not None
    True
    >>> delay_before_retry(options, 1, KeyError()) is None
    True
    """
    if (
        options.retry_on is not None
        and isinstance(error, BaseException)
        and not isinstance(error, options.retry_on)
    ):
        return None
    if run_count > options.retries:
        return None
    delay = options.retry_delay_seconds
    if isinstance(delay, tuple):
        return delay[min(run_count, len(delay)) - 1]
    return delay


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
