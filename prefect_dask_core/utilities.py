"""Utilities for code that uses the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.states import State


@dataclass(frozen=True, slots=True)
class CallbackHandler:
    """A state handler that calls a function if a check of the new state is true.

    Parameters
    ----------
    fn : callable (object, state) -> object
        Called with the task or flow and its new state; what it returns is ignored.
    check : callable (state) -> bool
        Asked before; only `True` itself counts.
    """

    fn: Callable[[Any, State], object]
    check: Callable[[State], bool]

    def __call__(self, obj: Any, old: State, new: State) -> None:
        """Call the function if the check says so."""
        if self.check(new) is True:
            self.fn(obj, new)


def callback_factory(
    fn: Callable[[Any, State], object], check: Callable[[State], bool]
) -> CallbackHandler:
    """Make a state handler of a function and a check.

    Parameters
    ----------
    fn : callable (object, state) -> object
        Called with the task or flow and its new state; what it returns is ignored.
    check : callable (state) -> bool
        Whether to call it. Only `True` itself counts.

    Examples
    --------
    >>> from prefect_dask_core import Flow, SequentialTaskRunner, task
    >>> def report(task, state):
    ...     print(task.name, "is", state.name)
    >>> skipped = callback_factory(report, check=lambda state: state.is_skipped())
    >>> done = callback_factory(report, check=lambda state: state.is_successful())
    >>> @task(state_handlers=[skipped, done])
    ... def load():
    ...     return 1
    >>> with Flow("f") as flow:
    ...     loaded = load()
    >>> state = flow.run(task_runner=SequentialTaskRunner())
    load is Completed
    """
    for name, given in (("fn", fn), ("check", check)):
        if not callable(given):
            raise OptionTypeError(f"callback_factory({name}={given!r}): not callable.")
    return CallbackHandler(fn, check)
