"""Task runs: one execution of a node or a child, and what came of it so far."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect_dask_core.engine.effects import Answer, Effect
from prefect_dask_core.engine.segments import Waits
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.records import TaskRun as TaskRunRecord
from prefect_dask_core.records import task_run_of
from prefect_dask_core.results.keeping import Keeper, Place, locked_by
from prefect_dask_core.results.locks import LOCKED, Held
from prefect_dask_core.results.transactions import TRANSACTION, Transaction
from prefect_dask_core.states import Failed, State
from prefect_dask_core.tasks import Task
from prefect_dask_core.triggers import Tally

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


def variables_of(
    run: TaskRun, transaction: Transaction | None = None
) -> Mapping[str, Any]:
    """Context variables of what is called for a run, now."""
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


def record_of(run: TaskRun, state: State) -> TaskRunRecord:
    """The run as hooks see it."""
    return task_run_of(run.task, variables_of(run), state, run.begin)


def logs_prints(run: TaskRun) -> bool:
    """Whether prints are logged, as the task says or else its flow."""
    own = run.options.log_prints
    return bool(run.variables.get("log_prints")) if own is None else own


def told(error: BaseException) -> str:
    """An exception in one line: its type and text."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def failed_by(error: BaseException) -> State:
    """State of a run that an exception kept from its body."""
    return Failed(told(error), data=error)
