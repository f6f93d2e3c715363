"""The options of a task: one frozen record, checked when it is made.

Only today's spellings are known here; `spellings` translates the older ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Final

from prefect_dask_core.assets import Asset, as_assets
from prefect_dask_core.cache_validators import (
    CacheValidator,
    ValidatorFunction,
    duration_only,
    never_use,
    partial_inputs_only,
    partial_parameters_only,
)
from prefect_dask_core.errors import OptionTypeError, OptionValueError
from prefect_dask_core.hooks import Hook
from prefect_dask_core.naming import Template, check_template
from prefect_dask_core.results.policies import (
    DEFAULT,
    NO_CACHE,
    CacheKeyFnPolicy,
    CachePolicy,
    NoCache,
    ValidatorPolicy,
)
from prefect_dask_core.results.result import Result
from prefect_dask_core.results.serializers import as_serializer
from prefect_dask_core.results.store import ResultStore, as_store
from prefect_dask_core.results.transactions import TransactionHook
from prefect_dask_core.retries import MOST_DELAYS
from prefect_dask_core.states import State
from prefect_dask_core.triggers import (
    Trigger,
    all_successful,
    some_failed,
    some_successful,
)

#: A user's trigger: upstream states by edge, or by edge and index for a child.
TriggerFunction = Callable[[Mapping[Any, State]], bool]
#: Called with the task and its old and new state; may return another new state.
StateHandler = Callable[[Any, State, State], State | None]


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """Options of a task.

    Parameters
    ----------
    name : str
        Name shown to people.
    slug : str, optional
        Name that is unique in a flow; the flow finds one unless given.
    description : str, optional
        What the task does.
    tags : iterable of str
        Labels.
    version : str, optional
        Version of the task, for people.
    group : str
        Label of tasks that belong together, for people; see `context.group`.
    retries : int
        Attempts after the first.
    retry_delay_seconds : number, sequence of numbers, timedelta or callable
        Seconds before each further attempt. The last of several repeats; a callable
        is given the number of retries, once, and returns the delays.
    timeout_seconds : number or timedelta, optional
        Longest time of one attempt; 0 or `None` is no limit.
    trigger : Trigger or callable
        Whether to run, given how the tasks above ended.
    skip_on_upstream_skip : bool
        Whether to skip, without asking the trigger, if a task above was skipped.
    state_handlers : sequence of callables (task, old, new) -> State or None
        Called at each change of state, in order; a returned state replaces the new.
    nout : int, optional
        Number of values the task returns, for unpacking inside a flow.
    cache_for : timedelta or number, optional
        How long, from its end on, a successful run's value may stand for that of a
        later run; a bare number is in seconds. Nothing is cached without it.
    cache_validator : callable (state, inputs, parameters) -> bool, optional
        Whether a `Cached` state may be used. With `cache_for` any that has not
        expired unless given, **whatever its inputs were** (`duration_only`); give
        `cache_validators.all_inputs` for a task whose value depends on its inputs.
    cache_key : str, optional
        Name under which cached states are kept, and which all tasks with one key
        share; the task's name unless given, so tasks of one name share it too, in
        whichever flow of the process they are.
    persist_result : bool, optional
        Whether the value is written. Unless given, if another option says where, how or
        under which key, else as the flow says, else as the settings do. An older
        ``checkpoint=True`` writes it and takes none.
    result : Result, optional
        Where and how the value is kept.
    target : str or callable, optional
        Template of, or callable that gives, the location of the value: if a value is
        there it is taken and the body does not run, else the value is written there.
        Without a `result` it stands in a folder of the flow's name in the default one,
        so that flows do not take one another's values; with one, where that says.
        A mapped task needs what differs in it, as ``{map_index}`` or an input: all
        children share one without.
    task_run_name : str or callable, optional
        Template of, or callable that gives, the name of a run; see `naming`.
    log_prints : bool, optional
        Whether what the body prints goes to the logger of its run, at level INFO; as
        its flow says unless given.
    retry_jitter_factor : float, optional
        By how much of itself a delay may grow at random; see `retries.jittered`.
    retry_condition_fn : callable (task, task_run, state) -> bool, optional
        Asked after a failed attempt, while retries are left, whether to attempt again.
        May be asynchronous. One that raises says no.
    on_running, on_completion, on_failure : iterable of callables
        Hooks (task, task_run, state), called at each attempt, at a success, at the
        final failure; also asynchronous ones. What they raise is logged and changes
        nothing. A single callable (task, state) for `on_failure` is called at every
        failed attempt.
    viz_return_value : object, optional
        Stands for the value of the task while its flow is drawn.
    annotations : mapping of str to object, optional
        Dask annotations of the runs: ``resources``, ``priority``, ``workers``,
        ``retries``, ``allow_other_workers``. They go before those of a surrounding
        `dask.annotate`, and count on a Dask runner only.
    asset_deps : iterable of Asset or str
        Assets that the task reads, besides those of the tasks above it.
    cache_policy : CachePolicy, optional
        What gives the key of a run; a value that is kept under it stands for that of a
        later run. Unless given, one flow run computes the same source with the same
        inputs once: ``INPUTS + TASK_SOURCE + RUN_ID``. With ``NO_CACHE`` a value is
        kept for the run alone.
    cache_key_fn : callable (task_run_context, parameters) -> str or None, optional
        Gives the key instead of a policy; such as `task_input_hash`.
    cache_expiration : timedelta or number, optional
        How long, from its end on, a kept value may stand for that of a later run; a
        bare number is in seconds, and more than none. Always, unless given.
    refresh_cache : bool, optional
        Whether a kept value of an earlier run is never taken, and is written anew.
    result_storage : ResultStore, str or path, optional
        Where values are kept: a folder, or a URL that fsspec knows, such as
        ``"s3://bucket/results"``. Unless given, where the flow says, else the settings.
    result_storage_key : str or callable, optional
        Template of, or callable that gives, the key in the store, instead of a policy.
    result_serializer : str or Serializer, optional
        How values become bytes: ``"pickle"``, ``"json"``, ``"compressed/pickle"``,
        ``"compressed/json"``, or an object with ``dumps`` and ``loads``.
    cache_result_in_memory : bool
        Whether a kept value also stays in memory; `False` reads it from the store
        whenever somebody asks.
    on_commit, on_rollback : iterable of callables (transaction)
        Called when the transaction of a run is committed, before its value is written;
        or, the last first, when it is rolled back. Also asynchronous ones.

    Raises
    ------
    OptionTypeError
        If a value has the wrong type; also a `TypeError`.
    OptionValueError
        If a value makes no sense; also a `ValueError`.

    Notes
    -----
    `None` stands for the default of every option. What depends on other options is
    kept as it was given and worked out by `validator` and `persists`, so that a change
    of the others changes it too.

    Examples
    --------
    >>> options = TaskOptions("load", retries=2, tags=["db"])
    >>> options.retries, options.tags, options.trigger.name
    (2, frozenset({'db'}), 'all_successful')
    >>> TaskOptions("load", retries=-1)
    Traceback (most recent call last):
    prefect_dask_core.errors.OptionValueError: task 'load': retries=-1, but the number \
of attempts after the first cannot be negative; give 0 for none.
    """

    name: str
    slug: str | None = None
    description: str | None = None
    tags: frozenset[str] = frozenset()
    version: str | None = None
    retries: int = 0
    retry_delay_seconds: float | tuple[float, ...] = 0.0
    timeout_seconds: float | None = None
    trigger: Trigger | TriggerFunction = all_successful
    skip_on_upstream_skip: bool = True
    state_handlers: tuple[StateHandler, ...] = ()
    nout: int | None = None
    cache_for: timedelta | None = None
    cache_validator: CacheValidator | ValidatorFunction | None = None
    cache_key: str | None = None
    persist_result: bool | None = None
    result: Result | None = None
    target: Template | None = None
    task_run_name: Template | None = None
    log_prints: bool | None = None
    group: str = ""
    retry_jitter_factor: float | None = None
    retry_condition_fn: Callable[..., Any] | None = None
    on_running: tuple[Hook, ...] = ()
    on_completion: tuple[Hook, ...] = ()
    on_failure: tuple[Hook, ...] = ()
    viz_return_value: Any = None
    annotations: Mapping[str, Any] = field(default_factory=dict)
    asset_deps: tuple[Asset, ...] = ()
    cache_policy: CachePolicy | None = None
    cache_key_fn: Callable[..., Any] | None = None
    cache_expiration: timedelta | None = None
    refresh_cache: bool | None = None
    result_storage: ResultStore | None = None
    result_storage_key: Template | None = None
    result_serializer: Any = None
    cache_result_in_memory: bool = True
    on_commit: tuple[TransactionHook, ...] = ()
    on_rollback: tuple[TransactionHook, ...] = ()

    def __post_init__(self) -> None:
        for option, check in _CHECKS.items():
            value = getattr(self, option)
            object.__setattr__(self, option, check(self, option, value))
        _check_result(self)
        _check_keeping(self)

    @property
    def validator(self) -> CacheValidator | ValidatorFunction:
        """The validator in effect, given or not."""
        if self.cache_validator is not None:
            return self.cache_validator
        return never_use if self.cache_for is None else duration_only

    @property
    def persists(self) -> bool | None:
        """Whether values are written, as given or as the other options imply.

        `None`: as the flow says.
        """
        if self.persist_result is not None:
            return self.persist_result
        by_result = self.result is not None and self.result.is_stored
        if self.target is not None or by_result or self.says_how:
            return True
        return None

    @property
    def says_how(self) -> bool:
        """Whether an option of today says where, how or under which key."""
        policy = self.cache_policy
        return (
            (policy is not None and not isinstance(policy, NoCache))
            or self.cache_key_fn is not None
            or self.result_serializer is not None
            or self.says_where
        )

    @property
    def says_where(self) -> bool:
        """Whether an option of today says where values are kept."""
        return self.result_storage is not None or self.result_storage_key is not None

    @property
    def needs_record(self) -> bool:
        """Whether an option asks for what only a store does."""
        return (
            self.says_how
            or self.cache_expiration is not None
            or not self.cache_result_in_memory
        )

    @property
    def policy(self) -> CachePolicy:
        """The policy in effect, given or not."""
        if self.cache_key_fn is not None:
            found = CacheKeyFnPolicy(cache_key_fn=self.cache_key_fn)
            return _configured(found, self.cache_policy)
        if self.cache_policy is not None:
            return self.cache_policy
        if self.cache_for is not None:
            validator, name = self.validator, self.cache_key or self.name
            if isinstance(validator, CacheValidator) and validator.has_key:
                return ValidatorPolicy(name=name, validator=validator)
            return NO_CACHE
        return DEFAULT

    @property
    def is_cached_in_memory(self) -> bool:
        """Whether the process of the client keeps values for later runs (C21)."""
        if self.cache_for is None:
            return False
        by_target = self.target is not None and not self.needs_record
        by_result = self.result is not None or by_target
        in_store = bool(self.persists) and not by_result
        return not (in_store and isinstance(self.policy, ValidatorPolicy))


#: The canonical names of all options.
OPTION_NAMES: Final = tuple(field.name for field in fields(TaskOptions))


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


def _name(options: TaskOptions, option: str, value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise OptionTypeError(
        f"the name of a task is a string of at least one character, not {value!r}."
    )


def _optional_text(options: TaskOptions, option: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise wrong_type(options.name, option, value, "a string")


def _group(options: TaskOptions, option: str, value: Any) -> str:
    return _optional_text(options, option, value) or ""


def _tags(options: TaskOptions, option: str, value: Any) -> frozenset[str]:
    if value is None:
        return frozenset()
    if isinstance(value, str):
        raise wrong_type(
            options.name, option, value, f"an iterable of strings such as [{value!r}]"
        )
    if not isinstance(value, Iterable):
        raise wrong_type(options.name, option, value, "an iterable of strings")
    tags = frozenset(value)
    for tag in tags:
        if not isinstance(tag, str):
            raise wrong_type(options.name, option, value, "an iterable of strings")
    return tags


def _retries(options: TaskOptions, option: str, value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(
            options.name,
            option,
            value,
            "an int, the number of attempts after the first",
        )
    if value < 0:
        raise OptionValueError(
            f"task {options.name!r}: {option}={value!r}, but the number of attempts "
            "after the first cannot be negative; give 0 for none."
        )
    return value


def _delays(options: TaskOptions, option: str, value: Any) -> float | tuple[float, ...]:
    if value is None:
        return 0.0
    if callable(value):
        value = value(options.retries)
    if not isinstance(value, list | tuple):
        return seconds(options.name, option, value)
    if len(value) > MOST_DELAYS:
        raise OptionValueError(
            f"task {options.name!r}: {option} has {len(value)} delays, and at most "
            f"{MOST_DELAYS} are possible; the last delay repeats by itself."
        )
    return tuple(seconds(options.name, option, delay) for delay in value) or 0.0


def _timeout(options: TaskOptions, option: str, value: Any) -> float | None:
    return None if value is None else seconds(options.name, option, value) or None


def _trigger(options: TaskOptions, option: str, value: Any) -> Any:
    if value is None:
        return all_successful
    if not callable(value):
        raise wrong_type(
            options.name,
            option,
            value,
            "a trigger such as triggers.all_finished, or a callable that takes the "
            "upstream states and returns a bool",
        )
    if value is some_failed or value is some_successful:
        raise wrong_type(
            options.name,
            option,
            value,
            f"a trigger, which {value.__name__} gives if it is called: "
            f"{value.__name__}(at_least=1)",
        )
    return value


def _switch(options: TaskOptions, option: str, value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, bool):
        raise wrong_type(options.name, option, value, "True or False")
    return value


def _handlers(options: TaskOptions, option: str, value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or not all(map(callable, value)):
        raise wrong_type(
            options.name,
            option,
            value,
            "a list of callables (task, old_state, new_state); put a single one into "
            "a list",
        )
    return tuple(value)


def _nout(options: TaskOptions, option: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(options.name, option, value, "an int, the number of outputs")
    if value < 0:
        raise OptionValueError(
            f"task {options.name!r}: {option}={value!r}, but the number of outputs "
            "cannot be negative."
        )
    return value


def _cache_for(options: TaskOptions, option: str, value: Any) -> timedelta | None:
    if value is None:
        return None
    length = seconds(options.name, option, value)
    try:
        return value if isinstance(value, timedelta) else timedelta(seconds=length)
    except OverflowError:
        raise OptionValueError(
            f"task {options.name!r}: {option}={value!r} is longer than a timedelta can "
            "be; give at most a few thousand years."
        ) from None


def _cache_expiration(
    options: TaskOptions, option: str, value: Any
) -> timedelta | None:
    length = _cache_for(options, option, value)
    if length is not None and length <= timedelta(0):
        raise OptionValueError(
            f"task {options.name!r}: {option}={value!r}, but nothing would ever be "
            "taken; give a length above zero, or refresh_cache=True to store values "
            "anew each time, or cache_policy=NO_CACHE to share none."
        )
    return length


def _validator(options: TaskOptions, option: str, value: Any) -> Any:
    if value is None:
        return None
    if not callable(value):
        raise wrong_type(
            options.name,
            option,
            value,
            "a validator such as cache_validators.all_inputs, or a callable (state, "
            "inputs, parameters) that returns a bool",
        )
    # Both were curried functions once and could stand here without being called.
    if value is partial_inputs_only or value is partial_parameters_only:
        return value()
    return value


def _optional_switch(options: TaskOptions, option: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise wrong_type(options.name, option, value, "True, False or None")


def _result(options: TaskOptions, option: str, value: Any) -> Result | None:
    if value is None or isinstance(value, Result):
        return value
    raise wrong_type(
        options.name, option, value, "a Result, such as results.LocalResult()"
    )


def _template(options: TaskOptions, option: str, value: Any) -> Any:
    if value is None or (callable(value) and not isinstance(value, type)):
        return value
    if not isinstance(value, str):
        raise wrong_type(
            options.name, option, value, "a template string, or a callable"
        )
    try:
        check_template(value)
        if not value:
            raise ValueError("it is empty")
    except ValueError as error:
        raise OptionValueError(
            f"task {options.name!r}: {option}={value!r} is no template: {error}."
        ) from None
    return value


def _jitter(options: TaskOptions, option: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(options.name, option, value, "a number that is not negative")
    if not value >= 0 or math.isinf(value):
        raise OptionValueError(
            f"task {options.name!r}: {option}={value!r}, but a delay can only grow by "
            "a finite part of itself that is not negative, such as 0.5."
        )
    return float(value)


def _condition(options: TaskOptions, option: str, value: Any) -> Any:
    if value is None or callable(value):
        return value
    raise wrong_type(
        options.name, option, value, "a callable (task, task_run, state) -> bool"
    )


def _hooks(options: TaskOptions, option: str, value: Any) -> tuple[Hook, ...]:
    return checked_hooks(f"task {options.name!r}", option, value)


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


def _annotations(options: TaskOptions, option: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise wrong_type(
            options.name, option, value, "a mapping such as {'resources': {'GPU': 1}}"
        )
    unknown = sorted(set(value) - set(ANNOTATIONS), key=str)
    if unknown:
        raise OptionValueError(
            f"task {options.name!r}: {option} has {unknown[0]!r}, which is none of "
            f"{', '.join(ANNOTATIONS)}."
        )
    for name, given in value.items():
        is_right, expected = _ANNOTATION_RULES[name]
        if not (callable(given) or is_right(given)):  # of keys, as in `dask.annotate`
            raise wrong_type(options.name, f"{option}[{name!r}]", given, expected)
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


def _assets(options: TaskOptions, option: str, value: Any) -> tuple[Asset, ...]:
    if value is None:
        return ()
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise wrong_type(options.name, option, value, "a list of assets or their keys")
    return as_assets(value)


def _policy(options: TaskOptions, option: str, value: Any) -> CachePolicy | None:
    if value is None or isinstance(value, CachePolicy):
        return value
    raise wrong_type(
        options.name,
        option,
        value,
        "a cache policy such as results.INPUTS + results.TASK_SOURCE; a function that "
        "gives a key is cache_key_fn=",
    )


def _key_function(options: TaskOptions, option: str, value: Any) -> Any:
    if value is None or callable(value):
        return value
    raise wrong_type(
        options.name,
        option,
        value,
        "a callable (task_run_context, parameters) that returns a key or None",
    )


def checked_storage(owner: str, option: str, value: Any) -> ResultStore | None:
    """Where values are kept, as a store.

    Parameters
    ----------
    owner, option : str
        Who says it and how, for the message of an error.
    value : ResultStore, str, path or None
        What was said.

    Raises
    ------
    OptionTypeError
        If it is something else.
    """
    if value is None or isinstance(value, ResultStore):
        return value
    if isinstance(value, Result):
        raise OptionTypeError(
            f"{owner}: {option}={value!r}, which is a result of the graph generations; "
            "give it as result=, or give a folder or a URL."
        )
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise OptionTypeError(
            f"{owner}: {option}={value!r}, but expected a folder, a URL that fsspec "
            'knows, such as "s3://bucket/results", or a results.ResultStore.'
        )
    return as_store(value)


def _storage(options: TaskOptions, option: str, value: Any) -> ResultStore | None:
    return checked_storage(f"task {options.name!r}", option, value)


def _serializer(options: TaskOptions, option: str, value: Any) -> Any:
    return checked_serializer(f"task {options.name!r}", option, value)


def checked_serializer(owner: str, option: str, value: Any) -> Any:
    """How values become bytes, as it was given.

    Raises
    ------
    OptionTypeError, OptionValueError
        If nothing can serialize in that way.
    """
    try:
        as_serializer(value)
    except TypeError as error:
        raise OptionTypeError(f"{owner}: {option}: {error}") from None
    except ValueError as error:
        raise OptionValueError(f"{owner}: {option}: {error}") from None
    return value


def _transaction_hooks(
    options: TaskOptions, option: str, value: Any
) -> tuple[TransactionHook, ...]:
    if value is None:
        return ()
    if (
        isinstance(value, str | bytes)
        or not isinstance(value, Iterable)
        or not all(map(callable, value := tuple(value)))
    ):
        raise wrong_type(
            options.name,
            option,
            value,
            "a list of callables, each taking the transaction; put a single one into "
            "a list",
        )
    return tuple(value)


def _configured(policy: CachePolicy, like: CachePolicy | None) -> CachePolicy:
    """A policy with the settings of another one."""
    if like is None:
        return policy
    return policy.configure(like.key_storage, like.lock_manager, like.isolation_level)


def _check_keeping(options: TaskOptions) -> None:
    """Options that say two things about one value."""
    if options.target is not None and options.result_storage_key is not None:
        raise OptionValueError(
            f"task {options.name!r}: target={options.target!r} and "
            f"result_storage_key={options.result_storage_key!r} both say under which "
            "name the value is kept; give one of them."
        )
    if options.result is not None and options.needs_record:
        said = [
            name
            for name in (
                "cache_expiration",
                "result_storage",
                "result_storage_key",
                "result_serializer",
                "cache_key_fn",
                "cache_policy",
            )
            if getattr(options, name) is not None
        ] or ["cache_result_in_memory"]
        raise OptionValueError(
            f"task {options.name!r}: result={options.result!r} with {said[0]}=, which "
            "says how a store keeps the value; give result_storage= (and target= or "
            "result_storage_key=) instead of result=."
        )


def _check_result(options: TaskOptions) -> None:
    """What is asked of a result that it cannot do."""
    result = options.result
    if result is None:
        return
    if options.target is not None and not result.takes_location:
        raise OptionValueError(
            f"task {options.name!r}: target={options.target!r} with {result!r}, whose "
            "values are not kept where one says; give a result such as LocalResult()."
        )
    if options.persist_result and not result.is_stored:
        raise OptionValueError(
            f"task {options.name!r}: persist_result=True with {result!r}, which does "
            "not store values; give a result such as LocalResult()."
        )


#: How each option is checked, in this order; the check returns the value to keep.
_CHECKS: Final[Mapping[str, Callable[[TaskOptions, str, Any], Any]]] = {
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
    "state_handlers": _handlers,
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
