"""The options of a task: one frozen record, checked when it is made.

Only today's spellings are known here; `spellings` translates the older ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Final

from prefect_dask_core.assets import Asset
from prefect_dask_core.cache_validators import (
    CacheValidator,
    ValidatorFunction,
    duration_only,
    never_use,
)
from prefect_dask_core.errors import OptionValueError
from prefect_dask_core.hooks import Hook
from prefect_dask_core.naming import Template
from prefect_dask_core.option_checks import CHECKS
from prefect_dask_core.results.policies import (
    DEFAULT,
    NO_CACHE,
    CacheKeyFnPolicy,
    CachePolicy,
    NoCache,
    ValidatorPolicy,
)
from prefect_dask_core.results.result import Result
from prefect_dask_core.results.store import ResultStore
from prefect_dask_core.results.transactions import TransactionHook
from prefect_dask_core.states import State
from prefect_dask_core.triggers import (
    Trigger,
    all_successful,
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
        for option, check in CHECKS.items():
            value = getattr(self, option)
            if option == "retry_delay_seconds" and callable(value):
                value = value(self.retries)  # which is checked by then
            object.__setattr__(self, option, check(self.name, option, value))
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
