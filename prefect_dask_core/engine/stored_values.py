"""Stored values: looked for before the body, written when its transaction commits."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial
from typing import Any

from prefect_dask_core.engine.effects import (
    Answer,
    Call,
    Effect,
    Raised,
    Returned,
    Wait,
)
from prefect_dask_core.engine.segments import FROM_STORE
from prefect_dask_core.engine.task_run import TaskRun, failed_by, logs_prints, told
from prefect_dask_core.results.keeping import (
    STAGED_IN,
    Keeper,
    Place,
    give_back,
    look,
    origin_of,
    settle,
    store_value,
)
from prefect_dask_core.results.locks import FIRST_LOOK, LAST_LOOK
from prefect_dask_core.results.places import KeyContext
from prefect_dask_core.results.transactions import Transaction
from prefect_dask_core.states import NO_DATA, Cached, Completed, Failed, Skipped, State


def look_up(
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
        run.task, run.variables, run.all_inputs(inputs), run.begin, logs_prints(run)
    )
    pause = FIRST_LOOK
    while True:
        args = (keeper, asked, run.now())
        answer = yield Call(look, args, variables=run.variables)
        if isinstance(answer, Raised):
            return failed_by(answer.error)
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


def free_now(run: TaskRun) -> None:
    """Free the lock of a run that nobody drives any further."""
    if run.keeper is not None and run.place is not None:
        give_back(run.keeper, run.place)


def begin_transaction(run: TaskRun) -> Transaction:
    """The transaction of one attempt."""
    found = Transaction(parent=run.around, name=run.name)
    found.begin()
    return found


def settled(
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
        message = f"the value could not be stored: {told(answer.error)}"
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
