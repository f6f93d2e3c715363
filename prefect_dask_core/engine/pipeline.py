"""Pipeline: the order of the steps of one task run.

Upstream states in, final state out. The rules are functions of `triggers`, `retries`
and `signals`; this module only says which comes first:

skip propagation → trigger → inputs → name → stored or cached value → Running, with its
hooks → body under its timeout → transaction: committed, which stores the value, or
rolled back → signal or exception → retry decision → wait → again → loop → cached →
final state, with its hooks; state handlers see every transition.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prefect_dask_core.cache_validators import CacheValidator
from prefect_dask_core.engine.caching import Caches, cache_name, to_cache
from prefect_dask_core.engine.columns import FROM_STORE, Waits
from prefect_dask_core.engine.effects import (
    Answer,
    Call,
    Effect,
    Overran,
    Raised,
    Returned,
    Wait,
)
from prefect_dask_core.errors import InputError, MissingResult, TaskTimeoutError
from prefect_dask_core.hooks import Hook, ask_condition, call_hook, hooks_at
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.records import TaskRun as TaskRunRecord
from prefect_dask_core.records import task_run_of
from prefect_dask_core.results.keeping import (
    STAGED_IN,
    Keeper,
    Place,
    give_back,
    locked_by,
    look,
    origin_of,
    run_name,
    settle,
    store_value,
)
from prefect_dask_core.results.locks import FIRST_LOOK, LAST_LOOK, LOCKED, Held
from prefect_dask_core.results.places import KeyContext
from prefect_dask_core.results.transactions import TRANSACTION, Transaction
from prefect_dask_core.retries import delay_before_retry, draw_fraction, jittered
from prefect_dask_core.signals import ENDRUN, PAUSE, PrefectStateSignal
from prefect_dask_core.states import (
    NO_DATA,
    AwaitingRetry,
    Cached,
    Completed,
    Crashed,
    Failed,
    Looped,
    Paused,
    Pending,
    Retrying,
    Running,
    Skipped,
    State,
    TimedOut,
    TriggerFailed,
)
from prefect_dask_core.tasks import Task
from prefect_dask_core.triggers import UPSTREAM_SKIPPED, Tally, Trigger

Steps = Generator[Effect, Answer, State]
Transition = Generator[Effect, Answer, "tuple[State, bool]"]


@dataclass(slots=True)
class TaskRun:
    """One task run, and what came of it so far.

    Parameters
    ----------
    task : Task
        The definition.
    name : str
        Name for messages, a child as ``"load[3]"``.
    tally : Tally
        How the runs above ended.
    upstream : callable
        Gives the states above, for a user's trigger; called only for one.
    inputs : callable
        Gives the arguments of the body; called once the run may start.
    variables : mapping
        Context variables of the run.
    now : callable
        Gives seconds since the epoch.
    refusal : Exception, optional
        A reason why the body cannot run at all (nothing to map over): the run is
        judged by its trigger and, if it passes, fails with this error.
    resumed : bool
        Whether the run was resumed after a pause.
    attempts, begin, end : int, float, float
        Filled while the run goes on; a begin that is given stands.
    waits : tuple of (float, float)
        When each wait for a further attempt began and ended; filled as well.
    started : bool
        Whether the body has started.
    called : bool
        Whether the body was called, or had been when the value was stored.
    given : mapping of str to object
        The arguments of the body, once they are known.
    settings : TaskOptions, optional
        Options that hold in this run; those of the task unless given.
    keeper : Keeper, optional
        How the value is kept; it is not unless given.
    around : Transaction, optional
        The transaction in which the run was called.
    place : Place, optional
        What was found out about the stored value, before the body.
    kept : str, optional
        Key under which the value is in the store.
    """

    task: Task
    name: str
    tally: Tally
    upstream: Callable[[], Mapping[Any, State]]
    inputs: Callable[[], Mapping[str, Any]]
    variables: Mapping[str, Any]
    now: Callable[[], float]
    refusal: Exception | None = None
    resumed: bool = False
    attempts: int = 1
    begin: float = 0.0
    end: float = 0.0
    waits: Waits = ()
    loop: dict[str, Any] = field(default_factory=dict)
    started: bool = False
    called: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)
    settings: TaskOptions | None = None
    keeper: Keeper | None = None
    around: Transaction | None = None
    place: Place | None = None
    kept: str | None = None

    @property
    def attempts_made(self) -> int:
        """Attempts so far; a run that is looked at and not tried makes none."""
        return self.attempts if self.called else 0

    def all_inputs(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Inputs with the defaults of the body."""
        return {**self.task.body_signature.defaults, **inputs}

    @property
    def options(self) -> TaskOptions:
        """Options that hold in this run."""
        return self.task.options if self.settings is None else self.settings


def run_task(run: TaskRun) -> Steps:
    """Run one task to its final state.

    Yields
    ------
    Call or Wait
        Each `Call` is answered by `Returned`, `Raised` or `Overran`, each `Wait` by
        `None`.

    Returns
    -------
    State
        The final state, or a `Paused` or `Pending` one that ends this pass.
    """
    run.begin = run.begin or run.now()
    state: State = yield from _run(run)
    run.end = run.now()
    if state.timestamp is None:
        state = state.replace(timestamp=run.end)
    hooks = hooks_at(run.options, state, run.started)
    if hooks and not state.is_running():
        yield from _call_hooks(run, hooks, state)
    return state


def _run(run: TaskRun) -> Steps:
    pending = Pending(timestamp=run.begin)
    refused = yield from _refuse(run)
    if refused is not None:
        state, _ = yield from _enter(run, pending, refused)
        return state
    if run.refusal is not None:
        failed = Failed(str(run.refusal), data=run.refusal)
        state, _ = yield from _enter(run, pending, failed)
        return state
    try:
        inputs = run.given = run.inputs()
    except (InputError, MissingResult) as error:
        state, _ = yield from _enter(run, pending, Failed(str(error), data=error))
        return state
    found = yield from _prepare(run, inputs)
    if found is not None:
        state, _ = yield from _enter(run, pending, found)
        return state
    if run.keeper is None:
        return (yield from _body(run, inputs, pending))
    found = yield from _look(run, run.keeper, inputs)
    assert run.place is not None or found is not None
    if found is not None:
        state, _ = yield from _enter(run, pending, found)
    else:
        try:
            state = yield from _body(run, inputs, pending)
        except BaseException:
            # Whoever drives this has given up, so nothing can be asked of it.
            _free_now(run)
            raise
    if run.place is not None and run.place.holder is not None:
        yield Call(give_back, (run.keeper, run.place))
    return state


def _body(run: TaskRun, inputs: Mapping[str, Any], pending: State) -> Steps:
    """From Running to the final state."""
    state, stop = yield from _enter(run, pending, Running(timestamp=run.now()))
    while not stop and state.is_running():
        transaction = _transaction(run)
        run.called = True
        answer = yield Call(
            call_body,
            (run.task, inputs),
            timeout=run.options.timeout_seconds,
            variables=_variables(run, transaction),
            log_prints=_logs_prints(run),
            isasync=run.task.isasync,
        )
        ended = yield from _settled(run, transaction, _outcome(run, answer))
        state, stop = yield from _enter(run, state, ended)
        if stop or _ends_the_run(answer):
            break
        state, stop = yield from _again(run, state)
    if run.options.is_cached_in_memory and type(state) is Completed:
        cached = to_cache(
            run.options, state, inputs, run.variables.get("parameters", {}), run.now()
        )
        state, _ = yield from _enter(run, state, cached)
    return state


# -- before the body ---------------------------------------------------------------


def _refuse(run: TaskRun) -> Generator[Effect, Answer, State | None]:
    """State the run takes without its body, `None` if it may start."""
    tally = run.tally
    if tally.skipped and run.options.skip_on_upstream_skip:
        return Skipped(UPSTREAM_SKIPPED)
    trigger = run.options.trigger
    waiting = tally.finished < tally.total
    if isinstance(trigger, Trigger):
        refused = trigger.rule(tally, run.resumed)
    else:
        answer = yield Call(trigger, (run.upstream(),), variables=dict(run.variables))
        refused = _verdict(trigger, answer)
    if refused is not None and waiting and not refused.is_paused():
        # The question was put before its time: nothing above failed for good.
        return Pending("an upstream task has not finished.", name="WaitingForUpstream")
    return refused


def _verdict(trigger: Callable[..., Any], answer: Answer) -> State | None:
    """What the answer of a user's trigger means."""
    name = getattr(trigger, "__name__", type(trigger).__name__)
    if isinstance(answer, Returned):
        if answer.value:
            return None
        return TriggerFailed(f"trigger {name} returned {answer.value!r}.")
    assert isinstance(answer, Raised)
    if isinstance(answer.error, PrefectStateSignal):
        return answer.error.to_state(None)
    return TriggerFailed(
        f"trigger {name} raised {_told(answer.error)}.", data=answer.error
    )


def _prepare(
    run: TaskRun, inputs: Mapping[str, Any]
) -> Generator[Effect, Answer, State | None]:
    """Name the run, and look for a value that makes it needless.

    Returns
    -------
    State or None
        `Cached` if there is a value, `Failed` if the question failed, else `None`.
    """
    options = run.options
    if options.task_run_name is not None:
        args = (options.task_run_name, run.variables, run.all_inputs(inputs))
        answer = yield Call(run_name, args, variables=run.variables)
        if isinstance(answer, Raised):
            return _unprepared(answer.error)
        assert isinstance(answer, Returned)
        run.variables = {**run.variables, "task_run_name": answer.value}
    if options.is_cached_in_memory:
        return (yield from _cached(run, inputs))
    return None


def _cached(
    run: TaskRun, inputs: Mapping[str, Any]
) -> Generator[Effect, Answer, State | None]:
    """The first cached state that the validator accepts."""
    validator = run.options.validator
    parameters = run.variables.get("parameters", {})
    caches: Caches = run.variables.get("caches", {})
    for state in caches.get(cache_name(run.options), ()):
        if isinstance(validator, CacheValidator):
            accepted = validator.accepts(state, inputs, parameters, run.now())
        else:
            args = (state, inputs, parameters)
            answer = yield Call(validator, args, variables=run.variables)
            if isinstance(answer, Raised):
                return _unprepared(answer.error)
            accepted = isinstance(answer, Returned) and bool(answer.value)
        if accepted:
            return state.replace(message="taken from an earlier run.")
    return None


def _unprepared(error: BaseException) -> State:
    return Failed(_told(error), data=error)


# -- the stored value --------------------------------------------------------------


def _look(
    run: TaskRun, keeper: Keeper, inputs: Mapping[str, Any]
) -> Generator[Effect, Answer, State | None]:
    """Look for the stored value of the run; wait while another run computes it.

    Returns
    -------
    State or None
        `Completed` if the run has stored its value before, `Cached` if that of another
        run stands for it, `Failed` if the question failed, else `None`.
    """
    asked = KeyContext(
        run.task, run.variables, run.all_inputs(inputs), run.begin, _logs_prints(run)
    )
    pause = FIRST_LOOK
    while True:
        args = (keeper, asked, run.now())
        answer = yield Call(look, args, variables=run.variables)
        if isinstance(answer, Raised):
            return _unprepared(answer.error)
        assert isinstance(answer, Returned)
        place: Place = answer.value
        if place.found != "busy":
            break
        yield Wait(run.now() + pause)
        pause = min(2 * pause, LAST_LOOK)
    run.place = place
    if place.found == "nothing":
        return None
    run.kept = place.key
    if place.found == "own":
        run.called = True  # by whoever stored it, under this very name
        return Completed(data=place.value, timestamp=run.now())
    message = FROM_STORE if place.location is None else "taken from its target."
    return Cached(message, data=place.value, timestamp=run.now())


def _free_now(run: TaskRun) -> None:
    """Free the lock of a run that nobody drives any further."""
    if run.keeper is not None and run.place is not None:
        give_back(run.keeper, run.place)


def _transaction(run: TaskRun) -> Transaction:
    """The transaction of one attempt."""
    found = Transaction(parent=run.around, name=run.name)
    found.begin()
    return found


def _settled(
    run: TaskRun, transaction: Transaction, state: State
) -> Generator[Effect, Answer, State]:
    """The state of a body that ended, its transaction committed or rolled back."""
    options = run.options
    if not isinstance(state, Completed) or isinstance(state, Skipped | Cached):
        if transaction.has_content:
            yield Call(transaction.rollback, variables=run.variables)
        return state
    keeper, place = run.keeper, run.place
    if keeper is not None and place is not None and _is_stored(keeper, place, state):
        origin = origin_of(run.task.name, run.variables)
        write = partial(store_value, keeper, place, origin, run.now())
        transaction.write_with(write, place.key)
    hooks = options.on_rollback, options.on_commit
    if STAGED_IN in run.variables:
        hooks = (), ()  # they are called where the transaction is
    if not (transaction.has_content or any(hooks)):
        return state
    answer = yield Call(
        settle, (transaction, state.data, *hooks), variables=run.variables
    )
    if isinstance(answer, Raised):
        message = f"the value could not be stored: {_told(answer.error)}"
        return Failed(message, data=answer.error, timestamp=run.now())
    assert isinstance(answer, Returned)
    if answer.value and transaction.writes and place is not None:
        run.kept = place.key
    return state


def _is_stored(keeper: Keeper, place: Place, state: State) -> bool:
    """Whether the value of a run that completed is to be stored."""
    if not keeper.writes or state.data is NO_DATA:
        return False
    # Results of the graph generations do not keep `None`.
    return place.location is None or state.data is not None


def _variables(
    run: TaskRun, transaction: Transaction | None = None
) -> Mapping[str, Any]:
    locked: Held = {}
    if run.keeper is not None:
        locked = locked_by(run.keeper, run.place, run.name)
    return {
        **run.variables,
        **({LOCKED: {**run.variables.get(LOCKED, {}), **locked}} if locked else {}),
        "task_run_count": run.attempts,
        "_run": run,
        TRANSACTION: transaction,
        **run.loop,
    }


def call_body(task: Task, inputs: Mapping[str, Any]) -> Any:
    """Call the body; what it yields is its value as a list (decision C4)."""
    return finish_value(task.call_body(inputs))


def finish_value(value: Any) -> Any:
    """A generator's items as a list; a coroutine is for whoever calls to await."""
    if inspect.isgenerator(value):
        return list(value)
    if inspect.isasyncgen(value):
        return _listed(value)
    return value


async def _listed(values: AsyncIterable[Any]) -> list[Any]:
    return [value async for value in values]


# -- after the body ----------------------------------------------------------------


def rest_of_body(run: TaskRun, value: Any) -> Call:
    """The call that ends a body which returned a generator or a coroutine."""
    return Call(finish_value, (value,), variables=_variables(run))


def _ends_the_run(answer: Answer) -> bool:
    """Whether the body asked for an end without a retry."""
    return isinstance(answer, Raised) and isinstance(answer.error, ENDRUN)


def _outcome(run: TaskRun, answer: Answer) -> State:
    """State that the answer of the body means."""
    at = run.now()
    if isinstance(answer, Returned):
        value = answer.value
        if isinstance(value, State):
            return value
        return Completed(data=value, timestamp=at)
    if isinstance(answer, Overran):
        left = " Its code could not be stopped and is left behind." * answer.left_behind
        message = f"{run.name} ran longer than {answer.timeout:g} s.{left}"
        return TimedOut(message, data=TaskTimeoutError(message), timestamp=at)
    assert isinstance(answer, Raised)
    error = answer.error
    if isinstance(error, PrefectStateSignal):
        state = error.to_state(at)
        return state if state.timestamp else state.replace(timestamp=at)
    if isinstance(error, Exception):
        return Failed(_told(error), data=error, timestamp=at)
    return Crashed(_told(error), data=error, timestamp=at)


def _again(run: TaskRun, state: State) -> Transition:
    """After a body: start the next attempt or pass, or leave the state as it is."""
    if isinstance(state, Looped):
        run.loop = {
            "task_loop_count": run.loop.get("task_loop_count", 1) + 1,
            "task_loop_result": state.data,
        }
        run.attempts = 1
        return (yield from _enter(run, state, Running(timestamp=run.now())))
    if isinstance(state, Failed):
        delay = yield from _delay(run, state)
        if delay is None:
            return state, True
        waiting: State = AwaitingRetry(
            f"attempt {run.attempts} failed: {state.message}",
            start_time=run.now() + delay,
            run_count=run.attempts,
            timestamp=run.now(),
        )
        state, stop = yield from _enter(run, state, waiting)
        if stop:
            return state, True
    if isinstance(state, AwaitingRetry):
        due, since = state.start_time, run.now()
        if due is not None and due > since:
            yield Wait(due)
        run.waits = (*run.waits, (since, run.now()))
        run.attempts += 1
        return (yield from _enter(run, state, Retrying(timestamp=run.now())))
    return state, True


def _delay(run: TaskRun, failed: State) -> Generator[Effect, Answer, float | None]:
    """Seconds until the next attempt, `None` if there is none."""
    options = run.options
    delay = delay_before_retry(options, run.attempts)
    if delay is None:
        return None
    condition = options.retry_condition_fn
    if condition is not None:
        args = (condition, run.task, _record(run, failed), failed)
        answer = yield Call(ask_condition, args, variables=_variables(run))
        if not isinstance(answer, Returned) or not answer.value:
            return None
    if options.retry_jitter_factor and delay:
        answer = yield Call(draw_fraction)
        assert isinstance(answer, Returned)
        delay = jittered(delay, options.retry_jitter_factor, answer.value)
    return delay


# -- transitions -------------------------------------------------------------------


def _enter(run: TaskRun, old: State, new: State) -> Transition:
    """Put a change of state before the state handlers; call hooks of a running one.

    Returns
    -------
    State
        The new state, or what a handler put in its place.
    bool
        Whether the run ends here: a handler paused or ended it, or raised.

    Notes
    -----
    Source of the rules: state handlers of the graph generations. A returned state
    replaces; PAUSE and ENDRUN end the run; another signal replaces the state; any
    other exception fails the run without a retry.
    """
    for handler in run.options.state_handlers:
        answer = yield Call(handler, (run.task, old, new), variables=_variables(run))
        if isinstance(answer, Returned):
            if answer.value is None:
                continue
            if not isinstance(answer.value, State):
                error = TypeError(
                    f"state handler {_name(handler)} of task {run.name!r} returned "
                    f"{answer.value!r}; a handler returns a State or None."
                )
                return Failed(str(error), data=error), True
            new = answer.value
            continue
        assert isinstance(answer, Raised)
        if isinstance(answer.error, PrefectStateSignal):
            new = answer.error.to_state(run.now())
            if isinstance(answer.error, PAUSE | ENDRUN):
                return new, True
            continue
        message = f"state handler {_name(handler)} raised {_told(answer.error)}"
        return Failed(message, data=answer.error), True
    if isinstance(new, Running):
        run.started = True
        if run.options.on_running:
            yield from _call_hooks(run, run.options.on_running, new)
    return new, isinstance(new, Paused)


def _call_hooks(
    run: TaskRun, hooks: tuple[Hook, ...], state: State
) -> Generator[Effect, Answer, None]:
    """Call the hooks of a state; whatever they raise changes nothing."""
    for hook in hooks:
        args = (hook, run.task, _record(run, state), state)
        yield Call(call_hook, args, variables=_variables(run))


def _record(run: TaskRun, state: State) -> TaskRunRecord:
    return task_run_of(run.task, _variables(run), state, run.begin)


def _logs_prints(run: TaskRun) -> bool:
    """Whether prints are logged, as the task says or else its flow."""
    own = run.options.log_prints
    return bool(run.variables.get("log_prints")) if own is None else own


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def _told(error: BaseException) -> str:
    """An exception in one line: its type and text."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
