"""Hooks: which are called at which state, and that what they raise changes nothing."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from prefect_dask_core.context import context
from prefect_dask_core.signals import PrefectStateSignal
from prefect_dask_core.states import Cached, Completed, Failed, Running, State

#: Called with the task or flow, the record of its run, and the new state.
Hook = Callable[[Any, Any, State], Any]
_LOGGER: Final = logging.getLogger("prefect_dask_core.hooks")


class HookOptions(Protocol):
    """The hooks of a task."""

    @property
    def on_running(self) -> tuple[Hook, ...]:
        """Called at each attempt."""

    @property
    def on_completion(self) -> tuple[Hook, ...]:
        """Called at a success."""

    @property
    def on_failure(self) -> tuple[Hook, ...]:
        """Called at the final failure."""


def hooks_at(options: HookOptions, state: State, started: bool) -> tuple[Hook, ...]:
    """Hooks to be called when a task run enters a state for good.

    Parameters
    ----------
    options : TaskOptions
        The hooks.
    state : State
        A running state, or the final one.
    started : bool
        Whether the body has started.

    Notes
    -----
    Source of the rules: hooks of the function generations. Those of failures stay
    silent at a crash; decision F20: all do where the body never started, but for a
    value that was found.

    Examples
    --------
    >>> from prefect_dask_core.options import TaskOptions
    >>> options = TaskOptions("load", on_completion=[print], on_failure=[repr])
    >>> hooks_at(options, Failed(), started=True) == (repr,)
    True
    >>> hooks_at(options, Failed(), started=False)
    ()
    >>> hooks_at(options, Cached(data=1), started=False) == (print,)
    True
    """
    if isinstance(state, Running):
        return options.on_running
    if isinstance(state, Completed):
        return options.on_completion if started or isinstance(state, Cached) else ()
    return options.on_failure if started and isinstance(state, Failed) else ()


def name_of(function: Callable[..., Any]) -> str:
    """Name of a hook for messages: of the function inside a partial, else its type.

    Examples
    --------
    >>> import functools
    >>> name_of(functools.partial(print, end="")), name_of(print)
    ('print', 'print')
    """
    function = getattr(function, "func", function)
    return getattr(function, "__name__", None) or type(function).__name__


def call_hook(hook: Hook, *args: Any) -> Awaitable[None] | None:
    """Call a hook, and log what it raises.

    Returns
    -------
    awaitable or None
        What is left to await of an asynchronous one.
    """
    told = "hook {name} raised {error!r}; nothing changes."
    found: Awaitable[None] | None = _ask(hook, args, None, told)
    return found if inspect.isawaitable(found) else None


def ask_condition(
    condition: Callable[..., Any], *args: Any
) -> Awaitable[bool] | bool | None:
    """Ask a retry condition; one that raises has said no."""
    told = "retry condition {name} raised {error!r}; there is no further attempt."
    found: Awaitable[bool] | bool | None = _ask(condition, args, False, told)
    return found


def _ask(function: Any, args: tuple[Any, ...], otherwise: Any, told: str) -> Any:
    try:
        value = function(*args)
    except (Exception, PrefectStateSignal) as error:
        return _failed(function, error, otherwise, told)
    if inspect.isawaitable(value):
        return _awaited(function, value, otherwise, told)
    return value


async def _awaited(
    function: Any, value: Awaitable[Any], otherwise: Any, told: str
) -> Any:
    try:
        return await value
    except (Exception, PrefectStateSignal) as error:
        return _failed(function, error, otherwise, told)


def _failed(function: Any, error: BaseException, otherwise: Any, told: str) -> Any:
    logger = context.get("logger") or _LOGGER
    logger.error(told.format(name=name_of(function), error=error), exc_info=error)
    return otherwise
