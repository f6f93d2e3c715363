"""Calls: the seam between a task and what runs it.

A task is a definition, and what a call of it does depends on where it stands. What
decides on that runs tasks, so it is far above them; it makes itself known here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from prefect_dask_core.context import context
from prefect_dask_core.errors import InternalError
from prefect_dask_core.records import TaskRun

#: Context variable of what a running flow function or body can submit to.
SCOPE = "_scope"


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

    __slots__ = ("opened",)

    def __init__(self) -> None:
        self.opened: Opened | None = None


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
