"""Calls: the seam between a task and what runs it.

A task is a definition, and what a call of it does depends on where it stands. What
decides on that runs tasks, so it is far above them; it makes itself known here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, overload

from prefect_dask_core.context import context
from prefect_dask_core.errors import InternalError
from prefect_dask_core.records import TaskRun
from prefect_dask_core.run_ids import current_id, task_run_id
from prefect_dask_core.states import State

#: Context variable of what a running flow function or body can submit to.
SCOPE = "_scope"


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Future(Protocol[T_co]):
    """What `Task.submit` returns, for type checkers; see `futures.PrefectFuture`."""

    @property
    def name(self) -> str:
        """Name of the run."""

    @property
    def task_run_id(self) -> uuid.UUID:
        """Id of the run."""

    @property
    def state(self) -> State:
        """State at this moment."""

    def get_state(self) -> State:
        """State at this moment."""

    def done(self) -> bool:
        """Whether the run has ended."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait for its end."""

    def result(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> T_co:
        """Its value."""

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call a function at its end."""

    def __await__(self) -> Generator[Any, None, T_co]: ...


class Futures(Protocol[T]):
    """What `Task.map` returns, for type checkers; see `futures.FutureList`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Future[T]]: ...
    @overload
    def __getitem__(self, index: int) -> Future[T]: ...
    @overload
    def __getitem__(self, index: slice) -> Futures[T]: ...
    @property
    def states(self) -> Sequence[State]:
        """State of each at this moment."""

    def progress(self) -> dict[str, int]:
        """How many are in which state."""

    def done(self) -> bool:
        """Whether all have ended."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end of all."""

    def result(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> list[T]:
        """Values of all."""

    def __await__(self) -> Generator[Any, None, list[T]]: ...


class Caller(Protocol):
    """Runs tasks that are called where no graph is being built."""

    def call(self, task: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a task now; its value, or its state."""

    def submit(
        self, task: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Hand a task to the runner of the running flow; a future, or the state."""

    def map(self, task: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Hand a mapped task to it; a list of futures, or of states."""

    def record(
        self,
        task: Any,
        id: uuid.UUID | None,
        parameters: Mapping[str, Any],
        wait_for: Any,
        deferred: bool,
    ) -> TaskRun:
        """Record of a run that has not begun."""


_known: list[Caller] = []


def set_caller(caller: Caller) -> None:
    """Say what runs tasks from now on."""
    _known[:] = [caller]


def caller() -> Caller:
    """What runs tasks."""
    if not _known:
        raise InternalError("tasks are called before the package has been imported")
    return _known[0]


class Opened(Protocol):
    """What a body has submitted to."""

    def finish(self, value: Any) -> Any:
        """Wait for what was submitted, and put its values into what is returned."""

    def abandon(self, reason: str) -> None:
        """Start nothing more, and wait for what has begun."""


class BodyScope:
    """Stands in the context of every body; opened by the first submit in it."""

    __slots__ = ("_flows", "opened")

    def __init__(self) -> None:
        self.opened: Opened | None = None
        self._flows: dict[str, int] | None = None

    def next_flow_id(self, flow: str) -> str | None:
        """Id of the next run of a flow in the body; see `nested_run_id`."""
        variables = {key: context.get(key) for key in context}
        base = current_id(variables)
        if base is None:
            return None
        counts = self._flows = self._flows or {}
        number = counts[flow] = counts.get(flow, -1) + 1
        # Another attempt, and another pass of a loop, has worked out other things.
        attempt = variables.get("task_run_count", 1)
        loop = variables.get("task_loop_count", 1)
        name = f"flow {flow}-{number} of {attempt}.{loop}"
        return task_run_id(base.hex, name).hex


def nested_run_id(flow: str) -> str | None:
    """Id of a flow run that begins here, inside of another run; `None` outside of one.

    Worked out from the run around it and the number of runs of that flow before it
    there: if that one is run again, or resumed, the id is the same, and what the flow
    has stored under it is found.
    """
    scope = context.get(SCOPE)
    found: str | None = None
    if hasattr(scope, "next_flow_id"):
        found = scope.next_flow_id(flow)
    return found


def has_submitted() -> bool:
    """Whether the running body has submitted anything."""
    scope = context.get(SCOPE)
    return isinstance(scope, BodyScope) and scope.opened is not None


def finished(value: Any) -> Any:
    """What a body returned, once what it has submitted is final."""
    scope = context.get(SCOPE)
    if not isinstance(scope, BodyScope) or scope.opened is None:
        return value
    opened, scope.opened = scope.opened, None
    return opened.finish(value)


def abandoned(reason: str) -> None:
    """End what a body has submitted, because the body did not end well."""
    scope = context.get(SCOPE)
    if isinstance(scope, BodyScope) and scope.opened is not None:
        opened, scope.opened = scope.opened, None
        opened.abandon(reason)
