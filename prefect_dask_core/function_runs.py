"""Function runs: one run of a function flow, and what is known of it at a moment."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from prefect_dask_core.engine.effects import Call
from prefect_dask_core.function_options import FlowOptions
from prefect_dask_core.hooks import Hook, call_hook
from prefect_dask_core.monitor.watching import Watch
from prefect_dask_core.recording import Asked
from prefect_dask_core.records import FlowRun, at
from prefect_dask_core.resumptions import Resumption
from prefect_dask_core.scopes import Scope
from prefect_dask_core.signatures import BodySignature
from prefect_dask_core.states import Pending, State


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


def call_hooks(
    run: FunctionRun, body: Mapping[str, Any], hooks: tuple[Hook, ...]
) -> Generator[Any, Any, None]:
    """Call the hooks of the state that a run is in."""
    for hook in hooks:
        record = replace(run.record(), state=run.state)
        args = (hook, run.flow, record, run.state)
        yield Call(call_hook, args, variables=body)


def _as_id(given: str | None) -> uuid.UUID | None:
    return None if given is None else uuid.UUID(given)
