"""Checks of options: what was given for one of a task, as it is kept, or an error.

Each takes the name of the task, the option and the value; it returns what is kept.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from prefect_dask_core.assets import Asset, as_assets
from prefect_dask_core.cache_validators import (
    partial_inputs_only,
    partial_parameters_only,
)
from prefect_dask_core.errors import OptionTypeError, OptionValueError
from prefect_dask_core.hooks import Hook
from prefect_dask_core.naming import check_template
from prefect_dask_core.results.policies import CachePolicy
from prefect_dask_core.results.result import Result
from prefect_dask_core.results.serializers import as_serializer
from prefect_dask_core.results.store import ResultStore, as_store
from prefect_dask_core.results.transactions import TransactionHook
from prefect_dask_core.retries import MOST_DELAYS
from prefect_dask_core.triggers import all_successful, some_failed, some_successful


def wrong_type(task: str, option: str, value: object, expected: str) -> OptionTypeError:
    """Error for an option whose value has the wrong type."""
    return OptionTypeError(
        f"task {task!r}: {option}={value!r}, but expected {expected}."
    )


def seconds(task: str, option: str, value: Any) -> float:
    """Check a duration and give it in seconds.

    Parameters
    ----------
    task, option : str
        Names for the message of an error.
    value : number or timedelta
        The duration; a bare number is in seconds.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(task, option, value, "a number of seconds or a timedelta")
    if not value >= 0 or math.isinf(value):
        raise OptionValueError(
            f"task {task!r}: {option}={value!r}, but a duration is a finite number of "
            "seconds that is not negative."
        )
    return float(value)


def _name(task: str, option: str, value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise OptionTypeError(
        f"the name of a task is a string of at least one character, not {value!r}."
    )


def _optional_text(task: str, option: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise wrong_type(task, option, value, "a string")


def _group(task: str, option: str, value: Any) -> str:
    return _optional_text(task, option, value) or ""


def _tags(task: str, option: str, value: Any) -> frozenset[str]:
    if value is None:
        return frozenset()
    if isinstance(value, str):
        raise wrong_type(
            task, option, value, f"an iterable of strings such as [{value!r}]"
        )
    if not isinstance(value, Iterable):
        raise wrong_type(task, option, value, "an iterable of strings")
    tags = frozenset(value)
    for tag in tags:
        if not isinstance(tag, str):
            raise wrong_type(task, option, value, "an iterable of strings")
    return tags


def _retries(task: str, option: str, value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(
            task,
            option,
            value,
            "an int, the number of attempts after the first",
        )
    if value < 0:
        raise OptionValueError(
            f"task {task!r}: {option}={value!r}, but the number of attempts "
            "after the first cannot be negative; give 0 for none."
        )
    return value


def _delays(task: str, option: str, value: Any) -> float | tuple[float, ...]:
    if value is None:
        return 0.0
    if not isinstance(value, list | tuple):
        return seconds(task, option, value)
    if len(value) > MOST_DELAYS:
        raise OptionValueError(
            f"task {task!r}: {option} has {len(value)} delays, and at most "
            f"{MOST_DELAYS} are possible; the last delay repeats by itself."
        )
    return tuple(seconds(task, option, delay) for delay in value) or 0.0


def _timeout(task: str, option: str, value: Any) -> float | None:
    return None if value is None else seconds(task, option, value) or None


def _trigger(task: str, option: str, value: Any) -> Any:
    if value is None:
        return all_successful
    if not callable(value):
        raise wrong_type(
            task,
            option,
            value,
            "a trigger such as triggers.all_finished, or a callable that takes the "
            "upstream states and returns a bool",
        )
    if value is some_failed or value is some_successful:
        raise wrong_type(
            task,
            option,
            value,
            f"a trigger, which {value.__name__} gives if it is called: "
            f"{value.__name__}(at_least=1)",
        )
    return value


def _switch(task: str, option: str, value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, bool):
        raise wrong_type(task, option, value, "True or False")
    return value


def _state_handlers(task: str, option: str, value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or not all(map(callable, value)):
        raise wrong_type(
            task,
            option,
            value,
            "a list of callables (task, old_state, new_state); put a single one into "
            "a list",
        )
    return tuple(value)


def _nout(task: str, option: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(task, option, value, "an int, the number of outputs")
    if value < 0:
        raise OptionValueError(
            f"task {task!r}: {option}={value!r}, but the number of outputs "
            "cannot be negative."
        )
    return value


def _cache_for(task: str, option: str, value: Any) -> timedelta | None:
    if value is None:
        return None
    length = seconds(task, option, value)
    try:
        return value if isinstance(value, timedelta) else timedelta(seconds=length)
    except OverflowError:
        raise OptionValueError(
            f"task {task!r}: {option}={value!r} is longer than a timedelta can "
            "be; give at most a few thousand years."
        ) from None


def _cache_expiration(task: str, option: str, value: Any) -> timedelta | None:
    length = _cache_for(task, option, value)
    if length is not None and length <= timedelta(0):
        raise OptionValueError(
            f"task {task!r}: {option}={value!r}, but nothing would ever be "
            "taken; give a length above zero, or refresh_cache=True to store values "
            "anew each time, or cache_policy=NO_CACHE to share none."
        )
    return length


def _validator(task: str, option: str, value: Any) -> Any:
    if value is None:
        return None
    if not callable(value):
        raise wrong_type(
            task,
            option,
            value,
            "a validator such as cache_validators.all_inputs, or a callable (state, "
            "inputs, parameters) that returns a bool",
        )
    # Both were curried functions once and could stand here without being called.
    if value is partial_inputs_only or value is partial_parameters_only:
        return value()
    return value


def _optional_switch(task: str, option: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise wrong_type(task, option, value, "True, False or None")


def _result(task: str, option: str, value: Any) -> Result | None:
    if value is None or isinstance(value, Result):
        return value
    raise wrong_type(task, option, value, "a Result, such as results.LocalResult()")


def _template(task: str, option: str, value: Any) -> Any:
    if value is None or (callable(value) and not isinstance(value, type)):
        return value
    if not isinstance(value, str):
        raise wrong_type(task, option, value, "a template string, or a callable")
    try:
        check_template(value)
        if not value:
            raise ValueError("it is empty")
    except ValueError as error:
        raise OptionValueError(
            f"task {task!r}: {option}={value!r} is no template: {error}."
        ) from None
    return value


def _jitter(task: str, option: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(task, option, value, "a number that is not negative")
    if not value >= 0 or math.isinf(value):
        raise OptionValueError(
            f"task {task!r}: {option}={value!r}, but a delay can only grow by "
            "a finite part of itself that is not negative, such as 0.5."
        )
    return float(value)


def _condition(task: str, option: str, value: Any) -> Any:
    if value is None or callable(value):
        return value
    raise wrong_type(task, option, value, "a callable (task, task_run, state) -> bool")


def _hooks(task: str, option: str, value: Any) -> tuple[Hook, ...]:
    return checked_hooks(f"task {task!r}", option, value)


def checked_hooks(owner: str, option: str, value: Any) -> tuple[Hook, ...]:
    """Hooks as a tuple.

    Parameters
    ----------
    owner, option : str
        Whose hooks they are, for the message of an error.
    value : iterable of callables or None
        The hooks.

    Raises
    ------
    OptionTypeError
        If it is something else.
    """
    if value is None:
        return ()
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise OptionTypeError(
            f"{owner}: {option}={value!r}, but expected a list of callables, each "
            "taking its owner, the run and the state; put a single one into a list."
        )
    hooks = tuple(value)
    for hook in hooks:
        if not callable(hook):
            raise OptionTypeError(
                f"{owner}: {option} holds {hook!r}, which cannot be called; each hook "
                "takes its owner, the run and the state."
            )
    return hooks


#: Dask annotations that a run can have.
ANNOTATIONS: Final = (
    "resources",
    "priority",
    "workers",
    "retries",
    "allow_other_workers",
)


def _annotations(task: str, option: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise wrong_type(
            task, option, value, "a mapping such as {'resources': {'GPU': 1}}"
        )
    unknown = sorted(set(value) - set(ANNOTATIONS), key=str)
    if unknown:
        raise OptionValueError(
            f"task {task!r}: {option} has {unknown[0]!r}, which is none of "
            f"{', '.join(ANNOTATIONS)}."
        )
    for name, given in value.items():
        is_right, expected = _ANNOTATION_RULES[name]
        if not (callable(given) or is_right(given)):  # of keys, as in `dask.annotate`
            raise wrong_type(task, f"{option}[{name!r}]", given, expected)
    return dict(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_resources(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and _is_number(amount) and amount >= 0
        for name, amount in value.items()
    )


def _are_workers(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list | tuple | set | frozenset)
        and all(isinstance(name, str) for name in value)
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


#: Whether the value of an annotation is right, and what it should be. Dask's scheduler
#: finds a wrong one when the graph is there, and loses the graph.
_ANNOTATION_RULES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "resources": (_are_resources, "amounts by name such as {'GPU': 1}"),
    "priority": (_is_number, "a number"),
    "workers": (_are_workers, "the address or name of a worker, or a list of them"),
    "retries": (_is_count, "a number of retries, an int that is not negative"),
    "allow_other_workers": (lambda value: isinstance(value, bool), "True or False"),
}


def _assets(task: str, option: str, value: Any) -> tuple[Asset, ...]:
    if value is None:
        return ()
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise wrong_type(task, option, value, "a list of assets or their keys")
    return as_assets(value)


def _policy(task: str, option: str, value: Any) -> CachePolicy | None:
    if value is None or isinstance(value, CachePolicy):
        return value
    raise wrong_type(
        task,
        option,
        value,
        "a cache policy such as results.INPUTS + results.TASK_SOURCE; a function that "
        "gives a key is cache_key_fn=",
    )


def _key_function(task: str, option: str, value: Any) -> Any:
    if value is None or callable(value):
        return value
    raise wrong_type(
        task,
        option,
        value,
        "a callable (task_run_context, parameters) that returns a key or None",
    )


def _storage(task: str, option: str, value: Any) -> ResultStore | None:
    if value is None or isinstance(value, ResultStore):
        return value
    if isinstance(value, Result):
        raise OptionTypeError(
            f"task {task!r}: {option}={value!r}, which is a result of the graph "
            "generations; give it as result=, or give a folder or a URL."
        )
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise OptionTypeError(
            f"task {task!r}: {option}={value!r}, but expected a folder, a URL that "
            'fsspec knows, such as "s3://bucket/results", or a results.ResultStore.'
        )
    return as_store(value)


def _serializer(task: str, option: str, value: Any) -> Any:
    try:
        as_serializer(value)
    except TypeError as error:
        raise OptionTypeError(f"task {task!r}: {option}: {error}") from None
    except ValueError as error:
        raise OptionValueError(f"task {task!r}: {option}: {error}") from None
    return value


def _transaction_hooks(
    task: str, option: str, value: Any
) -> tuple[TransactionHook, ...]:
    if value is None:
        return ()
    if (
        isinstance(value, str | bytes)
        or not isinstance(value, Iterable)
        or not all(map(callable, value := tuple(value)))
    ):
        raise wrong_type(
            task,
            option,
            value,
            "a list of callables, each taking the transaction; put a single one into "
            "a list",
        )
    return tuple(value)


#: How each option is checked, in this order; the check returns the value to keep.
CHECKS: Final[Mapping[str, Callable[[str, str, Any], Any]]] = {
    "name": _name,
    "slug": _optional_text,
    "description": _optional_text,
    "tags": _tags,
    "version": _optional_text,
    "retries": _retries,
    "retry_delay_seconds": _delays,
    "timeout_seconds": _timeout,
    "trigger": _trigger,
    "skip_on_upstream_skip": _switch,
    "state_handlers": _state_handlers,
    "nout": _nout,
    "cache_for": _cache_for,
    "cache_validator": _validator,
    "cache_key": _optional_text,
    "persist_result": _optional_switch,
    "result": _result,
    "target": _template,
    "task_run_name": _template,
    "log_prints": _optional_switch,
    "group": _group,
    "retry_jitter_factor": _jitter,
    "retry_condition_fn": _condition,
    "on_running": _hooks,
    "on_completion": _hooks,
    "on_failure": _hooks,
    "annotations": _annotations,
    "asset_deps": _assets,
    "cache_policy": _policy,
    "cache_key_fn": _key_function,
    "cache_expiration": _cache_expiration,
    "refresh_cache": _optional_switch,
    "result_storage": _storage,
    "result_storage_key": _template,
    "result_serializer": _serializer,
    "cache_result_in_memory": _switch,
    "on_commit": _transaction_hooks,
    "on_rollback": _transaction_hooks,
}
