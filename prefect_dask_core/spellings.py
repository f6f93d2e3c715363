"""Spellings: the older names of options, as one table.

No other module knows an older name. To support one more, add a row to `OLDER`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from prefect_dask_core.errors import OptionValueError, UnknownOptionError
from prefect_dask_core.option_checks import seconds, wrong_type
from prefect_dask_core.options import OPTION_NAMES, TaskOptions
from prefect_dask_core.results.policies import NO_CACHE
from prefect_dask_core.results.result import HandlerResult, Result
from prefect_dask_core.retries import RetryOn
from prefect_dask_core.states import State
from prefect_dask_core.unused import warn_of_unused


@dataclass(frozen=True, slots=True)
class Spelling:
    """An older name of an option.

    Parameters
    ----------
    canonical : str
        The name of today.
    convert : callable (task name, value) -> object
        From the older value to today's.
    read : callable (value) -> object, optional
        From today's value to the older one, for reading it as an attribute; `None` if
        tasks never had the attribute.
    """

    canonical: str
    convert: Callable[[str, Any], Any]
    read: Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class OnFailure:
    """A state handler that calls a function at every failed attempt.

    Parameters
    ----------
    callback : callable (task, state) -> object
        What it returns is ignored.
    """

    callback: Callable[[Any, State], object]

    def __call__(self, task: Any, old: State, new: State) -> None:
        """Call the function if the new state is a failure."""
        if new.is_failed():
            self.callback(task, new)


def _same_value(_task: str, value: Any) -> Any:
    return value


def _unchanged(value: Any) -> Any:
    return value


def _delay_from_timedelta(task: str, value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, timedelta):
        raise wrong_type(
            task,
            "retry_delay",
            value,
            "a timedelta; for a number of seconds write retry_delay_seconds",
        )
    return seconds(task, "retry_delay", value)


def _delay_as_timedelta(value: float | tuple[float, ...]) -> Any:
    if isinstance(value, tuple):
        return tuple(timedelta(seconds=delay) for delay in value)
    return timedelta(seconds=value)


def _timeout_from_int(task: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, float | str):
        raise wrong_type(
            task,
            "timeout",
            value,
            "whole seconds or a timedelta; for fractions write timeout_seconds",
        )
    return seconds(task, "timeout", value)


def _timeout_as_int(value: float | None) -> float | None:
    return int(value) if value is not None and value.is_integer() else value


def _condition_from_classes(task: str, value: Any) -> RetryOn | None:
    if value is None:
        return None
    kinds = tuple(value) if isinstance(value, Iterable) else (value,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise wrong_type(
                task,
                "retry_on",
                value,
                "an exception class such as ConnectionError, or a list of them",
            )
    return RetryOn(kinds)


def _classes_of_condition(value: Any) -> Any:
    return value.kinds if isinstance(value, RetryOn) else None


def _result_from_handler(task: str, value: Any) -> Result | None:
    if value is None or isinstance(value, Result):
        return value
    for method in ("read", "write"):
        if not callable(getattr(value, method, None)):
            raise wrong_type(
                task,
                "result_handler",
                value,
                "an object with the methods read(location) and write(value); today "
                "write result=LocalResult()",
            )
    return HandlerResult(value)


def _handler_of_result(value: Result | None) -> Any:
    return value.handler if isinstance(value, HandlerResult) else None


#: Older name of an option -> how it is spelled and converted today.
OLDER: Final[Mapping[str, Spelling]] = {
    "max_retries": Spelling("retries", _same_value, _unchanged),
    "retry_delay": Spelling(
        "retry_delay_seconds", _delay_from_timedelta, _delay_as_timedelta
    ),
    "timeout": Spelling("timeout_seconds", _timeout_from_int, _timeout_as_int),
    "propagate_skip": Spelling("skip_on_upstream_skip", _same_value, _unchanged),
    "retry_on": Spelling(
        "retry_condition_fn", _condition_from_classes, _classes_of_condition
    ),
    "checkpoint": Spelling("persist_result", _same_value, _unchanged),
    "result_handler": Spelling("result", _result_from_handler, _handler_of_result),
    "log_stdout": Spelling("log_prints", _same_value, _unchanged),
}

#: A name of two generations: one callable (task, state) is a state handler, a list of
#: hooks is today's option (decision C6).
_CALLBACK: Final = "on_failure"

#: Options that may be users' objects, unless they are strings.
_COMPARED_BY_IDENTITY: Final = frozenset(
    {
        "trigger",
        "cache_validator",
        "result",
        "target",
        "task_run_name",
        "retry_condition_fn",
        "viz_return_value",
        "on_running",
        "on_completion",
        "on_failure",
    }
)

#: Every name an option can be given by.
ALL_NAMES: Final = (*OPTION_NAMES, *OLDER)


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of some names that looks most like a given one.

    Examples
    --------
    >>> nearest("retry", ["name", "retries", "retry_on", "tags"])
    'retries'
    """
    known = list(names)
    # The plural is meant more often than what has the word as its begin.
    for plural in (f"{name}s", f"{name.removesuffix('y')}ies"):
        if plural in known:
            return plural
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def make_options(given: Mapping[str, Any], task: str) -> TaskOptions:
    """Options of a new task, from options in any spelling.

    Parameters
    ----------
    given : mapping of str to object
        Options as the user wrote them.
    task : str
        Name of the task unless `given` has one.

    Raises
    ------
    UnknownOptionError
        If an option is unknown, or two spellings of one option disagree.
    OptionValueError
        If ``max_retries`` is given without a delay, or ``retry_delay`` or ``retry_on``
        without retries, which was a mistake in the generations that had these names.

    Examples
    --------
    >>> from datetime import timedelta
    >>> older = {"max_retries": 2, "retry_delay": timedelta(seconds=5)}
    >>> make_options(older, "load").retry_delay_seconds
    5.0
    >>> make_options({"retrys": 2}, "load")
    Traceback (most recent call last):
    prefect_dask_core.errors.UnknownOptionError: task 'load' has no option 'retrys'; \
did you mean 'retries'?
    """
    changes = {**_of_checkpoint(given, {}), **canonical(given, task)}
    options = TaskOptions(**{"name": task, **changes})
    _check_older_retries(given, options)
    warn_of_unused(changes, options)
    return options


def change_options(options: TaskOptions, given: Mapping[str, Any]) -> TaskOptions:
    """Options with changes, given in any spelling.

    The very same record is returned if nothing changes.

    Examples
    --------
    >>> options = TaskOptions("load", retries=2)
    >>> change_options(options, {"max_retries": 2}) is options
    True
    """
    values = {name: getattr(options, name) for name in OPTION_NAMES}
    changes = {**_of_checkpoint(given, values), **canonical(given, options.name)}
    if callable(given.get(_CALLBACK)) and "state_handlers" not in given:
        kept = (h for h in options.state_handlers if not isinstance(h, OnFailure))
        changes["state_handlers"] = (*kept, *changes["state_handlers"])
    changed = TaskOptions(**{**values, **changes})
    if _same_options(changed, options):
        return options
    warn_of_unused(changes, changed)
    return changed


def _of_checkpoint(
    given: Mapping[str, Any], known: Mapping[str, Any]
) -> dict[str, Any]:
    """What else the older ``checkpoint=True`` means: values are written, none is taken.

    Unless an option says which are.
    """
    names = ("cache_policy", "cache_key_fn", "result_storage_key", "cache_for")
    if given.get("checkpoint") and all(
        given.get(name) is None and known.get(name) is None for name in names
    ):
        return {"cache_policy": NO_CACHE}
    return {}


def _same_options(left: TaskOptions, right: TaskOptions) -> bool:
    # By attribute: `==` on whole records would also compare what users' callables
    # define as equality, which need not answer with a bool.
    for name in OPTION_NAMES:
        mine, other = getattr(left, name), getattr(right, name)
        if mine is other:
            continue
        if name in _COMPARED_BY_IDENTITY and not isinstance(mine, str):
            return False
        if type(mine) is not type(other) or mine != other:
            return False
    return True


def canonical(given: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Options by their names of today.

    Parameters
    ----------
    given : mapping of str to object
        Options in any spelling.
    task : str
        Name of the task, for messages.
    """
    found: dict[str, Any] = {}
    written: dict[str, str] = {}
    for name, value in given.items():
        older = OLDER.get(name)
        if older is None and name not in OPTION_NAMES:
            raise UnknownOptionError(
                f"task {task!r} has no option {name!r}; did you mean "
                f"{nearest(name, ALL_NAMES)!r}?"
            )
        if name == _CALLBACK and callable(value):
            continue
        key = name if older is None else older.canonical
        converted = value if older is None else older.convert(task, value)
        if key in found and found[key] != converted:
            raise UnknownOptionError(
                f"task {task!r}: {written[key]} and {name} are two spellings of one "
                f"option and disagree ({given[written[key]]!r} and {value!r}); give "
                f"{key} only."
            )
        found[key] = converted
        written[key] = name
    callback = given.get(_CALLBACK)
    if callable(callback):
        _check_callback(task, callback)
        before = found.get("state_handlers") or ()
        # What is not a list of handlers is left as it is, for its own check to refuse.
        if isinstance(before, list | tuple):
            found["state_handlers"] = (*before, OnFailure(callback))
    return found


def _check_callback(task: str, callback: Callable[..., object]) -> None:
    """Refuse a hook where the callback of the graph generations stands (decision C6).

    It would fail at the first failure, and hide that.
    """
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):  # of a callable written in C
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise wrong_type(
            task,
            _CALLBACK,
            callback,
            "a callable (task, state), called at every failed attempt; a hook "
            "(task, task_run, state) stands in a list",
        ) from None


def read_older(options: TaskOptions, name: str) -> Any:
    """Value of an option under its older name.

    Examples
    --------
    >>> read_older(TaskOptions("load", retry_delay_seconds=90), "retry_delay")
    datetime.timedelta(seconds=90)
    """
    spelling = OLDER[name]
    if spelling.read is None:
        raise AttributeError(f"the option {name!r} of a task cannot be read.")
    return spelling.read(getattr(options, spelling.canonical))


def _check_older_retries(given: Mapping[str, Any], options: TaskOptions) -> None:
    """The consistency check of the graph generations, only under their names."""
    older_count = given.get("max_retries") is not None
    older_delay = given.get("retry_delay") is not None
    if older_delay and not options.retries:
        raise OptionValueError(
            f"task {options.name!r}: retry_delay={given['retry_delay']!r} without "
            "retries; add max_retries=1 or more."
        )
    if given.get("retry_on") is not None and not options.retries:
        raise OptionValueError(
            f"task {options.name!r}: retry_on={given['retry_on']!r} without retries; "
            "add retries=1 or more."
        )
    has_delay = older_delay or given.get("retry_delay_seconds") is not None
    if older_count and options.retries and not has_delay:
        raise OptionValueError(
            f"task {options.name!r}: max_retries={options.retries} without a delay; "
            "add retry_delay=timedelta(...), or write retries= to attempt again at "
            "once."
        )
