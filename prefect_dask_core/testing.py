"""Testing: scripted tasks, and a shell with a clock that only moves when told to.

For tests of one's own flows as for those of the package: failure is a script ("fails
twice, then succeeds"), and no test waits.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from prefect_dask_core.context import context
from prefect_dask_core.engine.effects import Answer, Call, Overran, Raised, Returned
from prefect_dask_core.tasks import Task


class Script:
    """Body that does what a script says, one outcome per attempt.

    Parameters
    ----------
    *outcomes : object
        An exception or signal (or a class of one) is raised, a function is called with
        the input, anything else is returned. The last outcome repeats.

    Notes
    -----
    It keeps no count of its own but reads ``context.task_run_count``, so it behaves
    the same in any thread, on any worker and for each child.
    """

    __name__ = "script"

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = outcomes or (None,)

    def __call__(self, x: Any = None) -> Any:
        """Act out the outcome of this attempt."""
        attempt = context.get("task_run_count", 1)
        outcome = self.outcomes[min(attempt, len(self.outcomes)) - 1]
        if isinstance(outcome, BaseException):
            # It is raised anew by each attempt of each run, and its traceback would
            # grow with every one until it can no longer be pickled.
            raise outcome.with_traceback(None)
        if isinstance(outcome, type) and issubclass(outcome, BaseException):
            raise outcome
        return outcome(x) if callable(outcome) else outcome


class ScriptByIndex:
    """Body of a mapped task that follows one script per child.

    Parameters
    ----------
    scripts : mapping of int to sequence
        Outcomes by the index of the child, see `Script`.
    otherwise : object
        Outcome of the children that have no script.
    """

    __name__ = "script"

    def __init__(self, scripts: Mapping[int, Any], otherwise: Any) -> None:
        self.scripts = scripts
        self.otherwise = otherwise

    def __call__(self, x: Any = None) -> Any:
        """Act out the outcome of this child's attempt."""
        outcomes = self.scripts.get(context.get("map_index"), (self.otherwise,))
        return Script(*outcomes)(x)


def scripted(*outcomes: Any, **options: Any) -> Task:
    """Task that does what a script says, one outcome per attempt.

    Parameters
    ----------
    *outcomes : object
        See `Script`.
    **options
        Options of the task.

    Examples
    --------
    >>> from prefect_dask_core import Flow, SequentialTaskRunner
    >>> with Flow("second attempt") as flow:
    ...     load = scripted(OSError("busy"), "data", name="load", retries=1)()
    >>> flow.run(task_runner=SequentialTaskRunner())[load].result()
    'data'
    """
    return Task(Script(*outcomes), **{"name": "scripted", **options})


def scripted_children(
    scripts: Mapping[int, Any], otherwise: Any = None, **options: Any
) -> Task:
    """Task to be mapped, whose children follow one script each.

    Parameters
    ----------
    scripts : mapping of int to sequence
        Outcomes by the index of the child.
    otherwise : object
        Outcome of the children that have no script.
    **options
        Options of the task.

    Examples
    --------
    >>> from prefect_dask_core import Flow, SequentialTaskRunner
    >>> with Flow("one bad child") as flow:
    ...     parse = scripted_children({1: [ValueError("bad")]}, otherwise=str)
    ...     parsed = parse.map([5, 6, 7])
    >>> list(flow.run(task_runner=SequentialTaskRunner())[parsed])
    [Completed(), Failed('ValueError: bad'), Completed()]
    """
    body = ScriptByIndex(scripts, otherwise)
    return Task(body, **{"name": "scripted", **options})


def fails(times: int, then: Any = None, **options: Any) -> Task:
    """Task whose first attempts fail with a `RuntimeError`.

    Parameters
    ----------
    times : int
        Number of attempts that fail.
    then : object
        Outcome of the attempts after these, see `Script`.
    **options
        Options of the task; it needs ``retries=`` to get over its failures.

    Examples
    --------
    >>> from prefect_dask_core import Flow, SequentialTaskRunner
    >>> with Flow("third attempt") as flow:
    ...     load = fails(2, then="data", retries=2)()
    >>> flow.run(task_runner=SequentialTaskRunner())[load]
    Completed()
    """
    failures = [RuntimeError(f"attempt {n} fails") for n in range(1, times + 1)]
    return scripted(*failures, then, **{"name": "fails", **options})


class FakeShell:
    """A shell for `run_block` whose clock moves only by waits and `spend`.

    Parameters
    ----------
    start : float
        Seconds since the epoch at which the clock begins.

    Attributes
    ----------
    calls : list of Call
        What was called, in order: bodies, triggers, handlers.
    waits : list of float
        Seconds of each wait.

    Examples
    --------
    >>> from prefect_dask_core.engine.effects import Call
    >>> shell = FakeShell(start=100.0)
    >>> shell.wait(160.0)
    >>> shell.now(), shell.waits
    (160.0, [60.0])
    >>> shell.call(Call(lambda: shell.spend(5.0), timeout=2.0))
    Overran(timeout=2.0, left_behind=False)
    >>> shell.now()
    162.0
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self.calls: list[Call] = []
        self.waits: list[float] = []

    def now(self) -> float:
        """Seconds since the epoch, as far as this shell knows."""
        return self._now

    def spend(self, seconds: float) -> None:
        """Let time pass; for a body that takes a while."""
        self._now += seconds

    def wait(self, until: float) -> None:
        """Move the clock."""
        self.waits.append(until - self._now)
        self._now = max(self._now, until)

    def async_calls(self) -> None:
        """None: coroutines take turns, so that the order of `calls` is certain."""

    def quick_calls(
        self, task: Task, variables: Mapping[str, Any], mapped: bool
    ) -> None:
        """None: every call is an effect here, so that `calls` has them all."""

    def call(self, call: Call) -> Answer:
        """Call user code; if the clock passed its limit meanwhile, it was ended."""
        self.calls.append(call)
        begin = self._now
        answer = _answer_of(call)
        if call.timeout is not None and self._now - begin > call.timeout:
            self._now = begin + call.timeout
            return Overran(call.timeout)
        return answer


def _answer_of(call: Call) -> Answer:
    function: Callable[..., Any] = call.function
    try:
        with context(**call.variables):
            value = function(*call.args, **call.kwargs)
            return Returned(asyncio.run(value) if inspect.iscoroutine(value) else value)
    except BaseException as error:
        return Raised(error)
