"""What every runner offers, and what it is asked to run."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from prefect_dask_core.engine.driver import Driver
from prefect_dask_core.engine.plan import Plan
from prefect_dask_core.engine.resume import NOTHING_EARLIER, Earlier
from prefect_dask_core.engine.session import Session
from prefect_dask_core.engine.views import RunView
from prefect_dask_core.states import State

RunnerT = TypeVar("RunnerT", bound="NamedRunner")


class NamedRunner:
    """What every runner of this package can say of itself."""

    @property
    def name(self) -> str:
        """Its kind: the name of its class, such as ``"dask"`` or ``"threadpool"``."""
        return type(self).__name__.removesuffix("TaskRunner").lower()

    def duplicate(self: RunnerT) -> RunnerT:
        """A runner with the same settings that is not open; a given cluster is shared.

        Notes
        -----
        Source of the rule: decision F19.
        """
        return copy.copy(self)


@dataclass(frozen=True, slots=True)
class FlowRun:
    """One run of a flow.

    Parameters
    ----------
    plan : Plan
        What to run.
    variables : mapping
        Context variables every task sees.
    wanted : frozenset of int
        Nodes whose values come home whatever their size.
    earlier : Earlier
        What of an earlier run stands.
    run_id : str
        Hexadecimal id that is in every key: that of the run, unless something of an
        earlier attempt at it may still be on the scheduler.
    view : RunView, optional
        Where the runner adds a look at what it knows of the nodes, before it begins.
    """

    plan: Plan
    variables: Mapping[str, Any]
    wanted: frozenset[int]
    earlier: Earlier = NOTHING_EARLIER
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    view: RunView | None = None


#: Seconds after which what was tried before others of its kind takes long.
A_MOMENT: Final = 3.0


class Trial:
    """How long a driver has waited for the first nodes of a kind."""

    def __init__(self) -> None:
        self._since: float | None = None

    def is_long(self, driver: Driver, now: float) -> bool:
        """Whether it is time to tell the driver that they take long."""
        if not driver.is_trying or not driver.threads:
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since > A_MOMENT:
            self._since = None
            return True
        return False


class TaskRunner(Protocol):
    """Runs the nodes of a plan."""

    def run(self, flow_run: FlowRun) -> Sequence[State]:
        """Run a plan to its end.

        Returns
        -------
        sequence of State
            One per node of the plan.
        """


class SessionRunner(Protocol):
    """Runs the nodes of a function flow as they come."""

    def session(self, name: str, variables: Mapping[str, Any], run_id: str) -> Session:
        """Begin a function flow, or what a task submits.

        Parameters
        ----------
        name : str
            Name of the flow or task.
        variables : mapping of str to object
            Context variables that every run sees.
        run_id : str
            Hexadecimal id; it is in every key.
        """
