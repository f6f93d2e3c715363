"""Flow runs: the order of the steps of one run of a function flow.

arguments resolved → validated → named → Running, with its hooks → the function under
its limit → what it returned, as a state → retry decision → wait → again → everything
that was submitted is final → final state, with its hooks.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol

from prefect_dask_core.calling import inherited_variables, open_session, session_of
from prefect_dask_core.calls import SCOPE, nested_run_id
from prefect_dask_core.context import context, current_tags
from prefect_dask_core.dates import date_variables
from prefect_dask_core.endings import is_over, way_on
from prefect_dask_core.engine.effects import Call, Overran, Raised, Returned, Wait
from prefect_dask_core.engine.session import Session
from prefect_dask_core.engine.views import RunInfo
from prefect_dask_core.errors import FlowTimeoutError, UpstreamTaskError
from prefect_dask_core.function_options import FlowOptions
from prefect_dask_core.futures import has_ended
from prefect_dask_core.hooks import Hook, call_hook
from prefect_dask_core.ledger import Ledger
from prefect_dask_core.monitor.watched_run import WatchedRun
from prefect_dask_core.monitor.watchers import makers_of
from prefect_dask_core.monitor.watching import Watch
from prefect_dask_core.naming import format_run_name, template_variables
from prefect_dask_core.recording import (
    LEDGER,
    Asked,
    RunFacts,
    ledger_of,
    recorder_of,
)
from prefect_dask_core.records import FlowRun, at
from prefect_dask_core.resolving import Above, holds_future, resolve
from prefect_dask_core.results.keeping import KEEPING, FlowKeeping, flow_keeping
from prefect_dask_core.results.kept import StoredValue
from prefect_dask_core.results.locks import LOCKED
from prefect_dask_core.results.places import KEPT_UNDER
from prefect_dask_core.resuming import Resumption
from prefect_dask_core.retries import delay_before_retry
from prefect_dask_core.returns import RunStates, returned_state
from prefect_dask_core.runners.drive import Blocking, Steps
from prefect_dask_core.scopes import Scope, is_bad
from prefect_dask_core.signals import PrefectStateSignal
from prefect_dask_core.signatures import BodySignature
from prefect_dask_core.states import (
    NO_DATA,
    AwaitingRetry,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Pending,
    Retrying,
    Running,
    State,
    TimedOut,
    TriggerFailed,
)

_LOGGER: Final = logging.getLogger("prefect_dask_core.flow_runs")

#: Runs that failed unseen are warned of one by one, up to this number.
UNSEEN_TOLD: Final = 10
#: Context variables of the task around a flow, which its function does not see.
_HIDDEN: Final = (
    "task_name",
    "task_slug",
    "task_full_name",
    "task_run_name",
    "task_run_id",
    "task_inputs",
    "map_index",
    "_run",
)


class RunnableFlow(Protocol):
    """What is needed of a flow to run its function."""

    @property
    def options(self) -> FlowOptions:
        """Its options."""

    @property
    def fn(self) -> Callable[..., Any]:
        """Its function."""

    @property
    def body_signature(self) -> BodySignature:
        """Signature of the function."""

    @property
    def validator(self) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """What checks and converts arguments."""

    def call_body(self, inputs: Mapping[str, Any]) -> Any:
        """Call the function with arguments by name."""


@dataclass(slots=True)
class FunctionRun:
    """One run of a function flow, and what came of it so far.

    Parameters
    ----------
    flow : FunctionFlow
        The definition.
    bound : mapping of str to object
        Arguments as given, by name.
    wait_for : object
        What comes first.
    """

    flow: RunnableFlow
    bound: Mapping[str, Any]
    wait_for: Any = None
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    name: str = ""
    attempts: int = 1
    begin: float = 0.0
    scope: Scope | None = None
    watch: Watch | None = None
    parent: Mapping[str, Any] = field(default_factory=dict)
    state: State = field(default_factory=Pending)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: Whether it goes on under the id of a run that began before.
    resumed: Resumption | None = None
    #: Where it is recorded; `None`: as the flow around, or the settings, say.
    ledger: Asked = None
    #: What the function returned, so that its values are there at the end.
    returned: Any = None

    @property
    def options(self) -> FlowOptions:
        """Options of the flow."""
        return self.flow.options

    def record(self) -> FlowRun:
        """What is known of the run at this moment."""
        ended = self.state.timestamp if self.state.is_final() else None
        return FlowRun(
            id=self.id,
            name=self.name,
            flow_name=self.options.name,
            flow_version=self.options.version,
            parameters=self.parameters,
            tags=self.parent.get("tags", frozenset()),
            state=self.state,
            run_count=self.attempts,
            start_time=at(self.begin or None),
            end_time=at(ended),
            parent_flow_run_id=_as_id(self.parent.get("flow_run_id")),
            parent_task_run_id=self.parent.get("parent_task_run_id"),
            root_flow_run_id=_as_id(self.parent.get("root_flow_run_id")) or self.id,
        )

    def enter(self, state: State) -> State:
        """Take a state, with the time if it has none."""
        if state.timestamp is None:
            state = state.replace(timestamp=time.time())
        self.state = state
        return state


@dataclass(frozen=True, slots=True)
class FlowPlace:
    """What stands in the context of a running flow function."""

    flow: Any
    run: FunctionRun
    runner: Any

    @property
    def flow_run(self) -> FlowRun:
        """What is known of the run at this moment."""
        return self.run.record()


def call_function(flow: RunnableFlow, parameters: Mapping[str, Any]) -> Any:
    """Call the function of a flow; the effect that the drivers know as its body."""
    return flow.call_body(parameters)


def run_function(run: FunctionRun) -> Steps[State]:
    """Run a flow to its final state.

    Returns
    -------
    State
        With the states of its runs as ``state.states``, by name.
    """
    around = context.get(SCOPE)
    if not isinstance(around, Scope):
        return (yield from _run(run))
    # A flow in a flow is one of its runs.
    name = around.begin_flow(run.options.name)
    try:
        return (yield from _run(run))
    finally:
        around.flow_ended(name, run.state)


def _run(run: FunctionRun) -> Steps[State]:
    run.begin = time.time()
    run.parent = inherited_variables()
    graph_id = _identify(run)
    ledger = _ledger_of(run)
    run.enter(Pending())
    refused = yield from _prepare(run)
    run.watch = watch = _watch(run, ledger)
    watch.begin()
    if refused is not None:
        state = run.enter(refused.replace(states=RunStates({}, (), watch.view)))
        yield Blocking(partial(watch.ended, state))
        watch.close()
        return state
    run.scope, body = _open(run, ledger, graph_id)
    try:
        try:
            state = yield from _attempts(run, body)
            state = yield from _kept(run, body, state)
            run.scope.outcome = state
            yield Blocking(run.scope.close)  # it may be that of a further attempt
        except GeneratorExit:  # nobody is left who would carry out a step
            run.scope.cancel("the flow was left before its end.")
            raise
        except BaseException as error:  # a person at the keyboard
            run.scope.cancel(_told(error))
            state = run.enter(_state_of_error(error))
            try:
                yield from _close(run, body, state)
            finally:
                _tell_of_failure(run, state, ledger is not None)
            raise
        state = yield from _close(run, body, state)
        _tell_of_failure(run, state, ledger is not None)
        return state
    finally:
        watch.close()


def _identify(run: FunctionRun) -> str | None:
    """Give the run its id; gives another one for its keys where it had begun before."""
    if run.resumed is not None:
        run.id = uuid.UUID(run.resumed.run_id)
        return uuid.uuid4().hex
    nested = nested_run_id(run.options.name)
    if nested is None:
        return None
    run.id = uuid.UUID(nested)
    return uuid.uuid4().hex


def _ledger_of(run: FunctionRun) -> Ledger | None:
    asked = run.options.ledger if run.ledger is None else run.ledger
    if asked is None:
        asked = run.parent.get(LEDGER)
    return ledger_of(run.options.name, asked)


def _watch(run: FunctionRun, ledger: Ledger | None) -> Watch:
    """What follows a run."""
    info = RunInfo(
        run_id=run.id.hex,
        flow_name=run.options.name,
        run_name=run.name,
        begin=run.begin,
        parameters=run.parameters,
        parent_run_id=run.parent.get("flow_run_id"),
        parent_task_run_id=_hex(run.parent.get("parent_task_run_id")),
    )
    view = WatchedRun(info)
    makers = makers_of(run.options.progress)
    if ledger is not None:
        options = run.options
        root = run.parent.get("root_flow_run_id")
        runner = options.task_runner
        tags = frozenset(run.parent.get("tags") or ())
        facts = RunFacts("function", run.flow, runner, options.version, root, tags)
        after = None if run.resumed is None else run.resumed.after
        makers.append(recorder_of(ledger, view, facts, after))
    return Watch(view, makers)


# -- before the function -----------------------------------------------------------


def _prepare(run: FunctionRun) -> Generator[Any, Any, State | None]:
    """Resolve, validate and name; a state if the function cannot run."""
    defaults = run.flow.body_signature.defaults
    run.parameters = {**defaults, **run.bound}
    run.name = run.options.name
    found = run.bound
    if holds_future([*run.bound.values(), run.wait_for]):
        found, above = yield Blocking(partial(resolve, run.bound, run.wait_for))
        run.parameters = {**defaults, **found}
        refused = _refused(run, above)
        if refused is not None:
            return refused
    try:
        run.parameters = {**defaults, **run.flow.validator(found)}
        run.name = _run_name(run)
    except Exception as error:
        return Failed(_told(error), data=error)
    return None


def _refused(run: FunctionRun, above: list[Above]) -> State | None:
    for name, state, tolerant in above:
        if tolerant or state.is_successful():
            continue
        message = f"flow {run.options.name!r} did not run: {name} ended as {state!r}"
        error = UpstreamTaskError(message)
        if has_ended(state) and not state.is_paused():
            cause = state.result(raise_on_failure=False)
            error.__cause__ = cause if isinstance(cause, BaseException) else None
        return TriggerFailed(message, data=error)
    return None


def _run_name(run: FunctionRun) -> str:
    option = run.options.flow_run_name
    if option is None:
        return f"{run.options.name}-{run.id.hex[:6]}"
    now = datetime.now(timezone.utc)
    variables = {
        "flow_name": run.options.name,
        "flow_run_id": run.id.hex,
        "parameters": run.parameters,
        "date": now,
    }
    known = template_variables(variables, run.parameters)
    return format_run_name(option, known, "flow_run_name")


def _open(
    run: FunctionRun, ledger: Ledger | None, graph_id: str | None
) -> tuple[Scope, dict[str, Any]]:
    """The scope of a run, and the context variables of its function."""
    options, parent = run.options, run.parent
    root = parent.get("root_flow_run_id") or parent.get("flow_run_id") or run.id.hex
    inherited = parent.get("log_prints")
    keeping = flow_keeping(
        persist=options.persist_result,
        storage=options.result_storage,
        serializer=options.result_serializer,
        around=parent.get(KEEPING),
    )
    if run.resumed is not None:
        keeping = replace(keeping, places=run.resumed.places)
    variables = {
        "flow": None,
        "flow_name": options.name,
        "flow_id": options.name,
        "flow_version": options.version,
        "flow_run_id": run.id.hex,
        "flow_run_name": run.name,
        "parameters": run.parameters,
        "scheduled_start_time": datetime.fromtimestamp(run.begin, timezone.utc),
        "parent_flow_run_id": parent.get("flow_run_id"),
        "parent_task_run_id": parent.get("parent_task_run_id"),
        "root_flow_run_id": root,
        "log_prints": inherited if options.log_prints is None else options.log_prints,
        "tags": current_tags(),
        **date_variables(run.begin, {}),
        KEEPING: keeping,
        # Those of a flow around are not its own.
        KEPT_UNDER: None,
        LOCKED: parent.get(LOCKED) or {},
        # What runs in this process and says nothing is recorded there too.
        LEDGER: False if ledger is None else ledger,
    }
    runner = options.task_runner
    assert run.watch is not None
    scope = Scope(
        options.name,
        variables,
        run.id.hex,
        _opener(runner),
        view=run.watch.view,
        graph_id=graph_id,
    )
    body = {
        **variables,
        **dict.fromkeys(_HIDDEN),
        SCOPE: scope,
        "_flow_context": FlowPlace(run.flow, run, runner),
    }
    if runner is not None:
        body["_task_runner"] = runner
    return scope, body


def _opener(runner: Any) -> Callable[[str, Mapping[str, Any], str], Session]:
    return open_session if runner is None else partial(session_of, runner)


# -- the function ------------------------------------------------------------------


def _attempts(run: FunctionRun, body: dict[str, Any]) -> Steps[State]:
    """Call the function until it succeeds or has no further attempt."""
    state: State = Running()
    while True:
        state = run.enter(state)
        body["flow_run_count"] = run.attempts
        yield from _hooks(run, body, run.options.on_running)
        begin = time.monotonic()
        answer = yield Call(
            call_function,
            (run.flow, run.parameters),
            timeout=run.options.timeout_seconds,
            variables=body,
            log_prints=bool(body["log_prints"]),
        )
        state = run.enter((yield from _outcome(run, answer, begin)))
        if not isinstance(state, Failed):
            return state
        delay = delay_before_retry(run.options, run.attempts)
        if delay is None:
            return state
        yield from _end_attempt(run, body)
        due = time.time() + delay
        run.enter(AwaitingRetry(state.message, start_time=due, run_count=run.attempts))
        _LOGGER.warning(
            "flow run %r, attempt %d: %r; again in %g s",
            run.name,
            run.attempts,
            state,
            delay,
        )
        yield from _wait(due)
        run.attempts += 1
        state = Retrying()


def _wait(due: float) -> Generator[Any, Any, None]:
    if due > time.time():
        yield Wait(due)


def _end_attempt(run: FunctionRun, body: dict[str, Any]) -> Steps[None]:
    """End an attempt that another one follows.

    What it has submitted is waited for, as at the end of the flow (decision F11): the
    next attempt submits the same, and would run beside it on the same files and rows.
    """
    assert run.scope is not None
    yield Blocking(run.scope.settle)
    run.scope = body[SCOPE] = yield Blocking(run.scope.successor)


def _outcome(run: FunctionRun, answer: Any, begin: float) -> Steps[State]:
    """State that the answer of the function means.

    The limit holds for what the function has submitted too, which is a part of the run.
    """
    assert run.scope is not None
    limit = run.options.timeout_seconds
    if limit is not None and isinstance(answer, Returned | Raised):
        remaining = max(0.0, begin + limit - time.monotonic())
        if not (yield Blocking(partial(run.scope.settle, remaining))):
            late = (
                f"flow {run.options.name!r} ran longer than {limit:g} s, waiting for "
                "what it had submitted."
            )
            run.scope.cancel(late)
            if isinstance(answer, Returned):
                return TimedOut(late, data=FlowTimeoutError(late))
    if isinstance(answer, Returned):
        run.returned = answer.value
        try:
            state: State = yield Blocking(partial(returned_state, answer.value))
        except Exception as error:  # of a future that was returned
            return Failed(_told(error), data=error)
        return state
    if isinstance(answer, Overran):
        left = " Its code could not be stopped and is left behind." * answer.left_behind
        message = f"flow {run.options.name!r} ran longer than {answer.timeout:g} s."
        run.scope.cancel(message)
        return TimedOut(message + left, data=FlowTimeoutError(message))
    assert isinstance(answer, Raised)
    state = _state_of_error(answer.error)
    if not isinstance(state, Failed):
        run.scope.cancel(_told(answer.error))
    return state


def _state_of_error(error: BaseException) -> State:
    if isinstance(error, PrefectStateSignal):
        return error.to_state(time.time())
    if isinstance(error, Exception):
        return Failed(_told(error), data=error)
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return Cancelled(f"stopped by {_told(error)}", data=error)
    return Crashed(_told(error), data=error)


def _kept(run: FunctionRun, body: dict[str, Any], state: State) -> Steps[State]:
    """The state of a run that completed, its value stored if that is asked for."""
    keeping: FlowKeeping = body[KEEPING]
    store = keeping.store
    kept = isinstance(state, Completed) and state.data is not NO_DATA
    if not keeping.persist or store is None or not kept:
        return state
    under = f"runs/{run.id.hex}"
    known = {"task": run.options.name, "flow_run_id": run.id.hex, "run": under}
    answer = yield Call(store.write, (f"{under}/flow", state.data), known)
    if isinstance(answer, Raised):
        # The tasks have done their work, and the caller has the value.
        _LOGGER.warning(
            "flow run %r: its value was not stored: %s", run.name, _told(answer.error)
        )
    elif not run.options.cache_result_in_memory:
        return state.replace(data=StoredValue(store, f"{under}/flow"))
    return state


# -- after the function ------------------------------------------------------------


def _close(run: FunctionRun, body: dict[str, Any], state: State) -> Steps[State]:
    """Wait for what was submitted, put its states into the state, call the hooks."""
    scope = run.scope
    assert scope is not None
    scope.outcome = state
    states = yield Blocking(scope.close)
    run.returned = None
    if not state.is_final() and not state.is_paused():
        # Made by hand, and not by a run; it says so.
        _LOGGER.warning("flow run %r returned the state %r", run.name, state)
    _tell_of_unseen(run, scope.unseen())
    state = run.enter(_with_states(run, state, states, scope))
    options = run.options
    hooks: tuple[Hook, ...] = ()
    if isinstance(state, Completed):
        hooks = options.on_completion
    elif isinstance(state, Failed):
        hooks = options.on_failure
    elif isinstance(state, Cancelled):
        hooks = options.on_cancellation
    elif isinstance(state, Crashed):
        hooks = options.on_crashed
    assert run.watch is not None
    # Before the hooks, which may want to report.
    yield Blocking(partial(run.watch.ended, state))
    yield from _hooks(run, body, hooks)
    return state


def _tell_of_unseen(run: FunctionRun, unseen: Mapping[str, State]) -> None:
    """Warn of runs that did not succeed, and that nobody has asked about (F1)."""
    for name, bad in islice(unseen.items(), UNSEEN_TOLD):
        told = f"{name} ended as {bad!r}"
        if bad.is_mapped():
            children = list(enumerate(bad.states or ()))
            failed = [pair for pair in children if is_bad(pair[1])]
            index, first = failed[0]
            told = (
                f"{len(failed)} of {len(children)} children did not succeed, "
                f"{name}[{index}] ended as {first!r}"
            )
        _LOGGER.warning(
            "flow run %r: %s, and nobody has asked about it", run.name, told
        )
    if len(unseen) > UNSEEN_TOLD:
        _LOGGER.warning(
            "flow run %r: %d more did not succeed, and nobody has asked about them",
            run.name,
            len(unseen) - UNSEEN_TOLD,
        )


def _tell_of_failure(run: FunctionRun, state: State, recorded: bool) -> None:
    """Log how a run failed, as the last line about it: what to do stands there."""
    if not is_over(state):
        return
    assert run.watch is not None
    assert run.scope is not None
    info = run.watch.view.info
    further = way_on(info, '.resume("{}")', recorded, run.scope.stores)
    _LOGGER.warning("flow run %r: %r%s", run.name, state, further)


def _with_states(
    run: FunctionRun, state: State, states: Mapping[str, State], scope: Scope
) -> State:
    assert run.watch is not None
    assets = tuple(scope.lineage.records)
    return state.replace(states=RunStates(states, assets, run.watch.view))


def _hooks(
    run: FunctionRun, body: Mapping[str, Any], hooks: tuple[Hook, ...]
) -> Generator[Any, Any, None]:
    for hook in hooks:
        record = replace(run.record(), state=run.state)
        args = (hook, run.flow, record, run.state)
        yield Call(call_hook, args, variables=body)


def _hex(given: uuid.UUID | None) -> str | None:
    return None if given is None else given.hex


def _as_id(given: str | None) -> uuid.UUID | None:
    return None if given is None else uuid.UUID(given)


def _told(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
