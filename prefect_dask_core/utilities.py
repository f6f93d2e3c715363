"""Utilities for code that uses the package."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.states import State

RunT = TypeVar("RunT", bound=Callable[..., Any])


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


def defaults_from_attrs(*attr_names: str) -> Callable[[RunT], RunT]:
    """Let a method ``run`` take what a call leaves out from the attributes of its task.

    Parameters
    ----------
    *attr_names : str
        Names of parameters of ``run`` and of attributes of the task. One that is not
        given, or is `None`, has the value of the attribute.

    Returns
    -------
    callable
        The decorator.

    Raises
    ------
    OptionTypeError
        If a name is no parameter of ``run``; also a `TypeError`.

    Examples
    --------
    >>> from prefect_dask_core import Task
    >>> class Scale(Task):
    ...     def __init__(self, factor=None, **options):
    ...         super().__init__(**options)
    ...         self.factor = factor
    ...
    ...     @defaults_from_attrs("factor")
    ...     def run(self, x, factor=None):
    ...         return factor * x
    >>> scale = Scale(factor=10)
    >>> scale(4), scale(4, factor=2)
    (40, 8)
    """
    for name in attr_names:
        if not isinstance(name, str):
            raise OptionTypeError(
                f"defaults_from_attrs({name!r}): it takes names of attributes, as "
                '@defaults_from_attrs("path").'
            )

    def decorate(run: RunT) -> RunT:
        signature = inspect.signature(run)
        for name in attr_names:
            if name not in signature.parameters:
                known = ", ".join([*signature.parameters][1:]) or "none"
                raise OptionTypeError(
                    f"defaults_from_attrs({name!r}): run() has no parameter {name!r}; "
                    f"its parameters: {known}."
                )
        made: Any = functools.wraps(run)(_with_defaults(run, signature, attr_names))
        return made  # type: ignore[no-any-return]

    return decorate


def _with_defaults(
    run: Callable[..., Any], signature: inspect.Signature, names: tuple[str, ...]
) -> Callable[..., Any]:
    """A function of the same kind, as tasks treat coroutines and generators apart."""

    def filled(
        task: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> inspect.BoundArguments:
        bound = signature.bind_partial(task, *args, **kwargs)
        for name in names:
            if bound.arguments.get(name) is None:
                bound.arguments[name] = getattr(task, name)
        return bound

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = filled(self, args, kwargs)
        return run(*bound.args, **bound.kwargs)

    async def await_it(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await call(self, *args, **kwargs)

    def iterate(self: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from call(self, *args, **kwargs))

    async def iterate_async(self: Any, *args: Any, **kwargs: Any) -> Any:
        async for item in call(self, *args, **kwargs):
            yield item

    if inspect.isasyncgenfunction(run):
        return iterate_async
    if inspect.iscoroutinefunction(run):
        return await_it
    return iterate if inspect.isgeneratorfunction(run) else call
