"""What code may read about the run or the block it stands in.

`context` is the object to import. Its variables live in a `contextvars.ContextVar`, so
each thread and each asyncio task sees those of its own run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Any, NoReturn, Protocol

from prefect_dask_core.run_ids import run_name

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_variables: ContextVar[Mapping[str, Any]] = ContextVar(
    "prefect_dask_core.context", default=_NOTHING
)

_IN_A_FLOW_RUN = "while a flow runs"
_IN_A_BODY = "in the body of a running task"
#: Where the variables that people look for are set; others are set by people.
_WHERE = {
    "flow": "inside a `with Flow(...)` block",
    "tags": "inside a `with tags(...)` block",
    "group": "inside a `with group(...)` block",
    "parameters": _IN_A_FLOW_RUN,
    "date": _IN_A_FLOW_RUN,
    "today": _IN_A_FLOW_RUN,
    "yesterday": _IN_A_FLOW_RUN,
    "tomorrow": _IN_A_FLOW_RUN,
    "today_nodash": _IN_A_FLOW_RUN,
    "yesterday_nodash": _IN_A_FLOW_RUN,
    "tomorrow_nodash": _IN_A_FLOW_RUN,
    "scheduled_start_time": _IN_A_FLOW_RUN,
    "flow_name": _IN_A_FLOW_RUN,
    "flow_run_id": _IN_A_FLOW_RUN,
    "flow_run_name": _IN_A_FLOW_RUN,
    "map_index": _IN_A_BODY,
    "task_name": _IN_A_BODY,
    "task_full_name": _IN_A_BODY,
    "task_slug": _IN_A_BODY,
    "task_run_id": _IN_A_BODY,
    "task_run_name": f"{_IN_A_BODY} with a task_run_name",
    "task_tags": _IN_A_BODY,
    "task_run_count": _IN_A_BODY,
    "task_loop_count": f"{_IN_A_BODY}, from the second pass of a loop on",
    "task_loop_result": f"{_IN_A_BODY}, from the second pass of a loop on",
    "resume": f"{_IN_A_BODY} that was resumed",
    "is_waiting": f"{_IN_A_BODY} that raised WAIT before",
    "logger": _IN_A_BODY,
}


class GraphBuilder(Protocol):
    """What a task needs of the flow it is bound into; `Flow` provides it."""

    def add_task(self, task: Any) -> Any:
        """Add a task; nothing happens if the flow has it."""

    def add_edge(
        self,
        upstream_task: Any,
        downstream_task: Any,
        key: str | None = None,
        mapped: bool = False,
    ) -> Any:
        """Add an edge, and its ends where needed."""

    def set_dependencies(
        self,
        task: Any,
        upstream_tasks: Any = None,
        downstream_tasks: Any = None,
        keyword_tasks: Any = None,
        mapped: bool = False,
        validate: bool | None = None,
    ) -> None:
        """Add a task with its edges."""

    def has_edges(self, task: Any) -> bool:
        """Whether any edge of the flow begins or ends at the task."""


class OpenBlock(Protocol):
    """A block that takes note of the tasks added inside it; see `blocks`."""

    def add_task(self, task: Any, flow: Any) -> None:
        """Take note of a task that a flow is about to add."""


class Context:
    """Variables of the current run or block, read as attributes.

    A variable is set for the length of a block by calling the context:

    Examples
    --------
    >>> from prefect_dask_core.context import context
    >>> with context(color="blue"):
    ...     context.color
    'blue'
    >>> "color" in context, context.get("color", "none")
    (False, 'none')
    >>> context.map_index
    Traceback (most recent call last):
    AttributeError: context.map_index is only set in the body of a running task.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return _variables.get()[name]
        except KeyError:
            pass
        where = _WHERE.get(name, f"inside a `with context({name}=...)` block")
        raise AttributeError(f"context.{name} is only set {where}.")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"a context variable is set for the length of a block: "
            f"`with context({name}=...):`."
        )

    def __contains__(self, name: str) -> bool:
        return name in _variables.get()

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(_variables.get()))

    def __repr__(self) -> str:
        # Names only: a value may be large, or a secret.
        return f"<context: {', '.join(self) or 'empty'}>"

    def get(self, name: str, default: Any = None) -> Any:
        """Value of a variable, or `default` where it is not set."""
        return _variables.get().get(name, default)

    def __call__(
        self, variables: Mapping[str, Any] = _NOTHING, /, **more: Any
    ) -> ContextBlock:
        """A block in which further variables are set.

        Parameters
        ----------
        variables : mapping of str to object, optional
            Variables to set; `more` wins where both have a name.
        """
        added = {**variables, **more}
        wrong = mistaken_name(added)
        if wrong is not None:
            raise TypeError(wrong)
        return ContextBlock(added)

    def __reduce__(self) -> str:
        # As its name: a task that reads `context` reads its own run's on a worker.
        return "context"


class RunVariables(Mapping[str, Any]):
    """Variables of one run of a step; those few bodies read are made when read.

    Parameters
    ----------
    step : mapping
        Variables of all runs of the step.
    task : Task
        The definition.
    index : int or None
        The child; `None` for a plain node.
    inputs : mapping
        Arguments of the body.
    begin : float
        When the run began, in seconds since the epoch.
    make : mapping of str to callable
        Makes further variables from these, each when it is first read.
    """

    __slots__ = ("_make", "_step", "begin", "index", "inputs", "made", "task")

    def __init__(
        self,
        step: Mapping[str, Any],
        task: Any,
        index: int | None,
        inputs: Mapping[str, Any],
        begin: float,
        make: Mapping[str, Callable[[RunVariables], Any]],
    ) -> None:
        self._step = step
        self.task = task
        self.index = index
        self.inputs = inputs
        self.begin = begin
        self._make = make
        #: What was made so far.
        self.made: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of the run; see `run_ids.run_name`."""
        return run_name(self._step, self.task.name, self.index)

    def __getitem__(self, key: str) -> Any:
        if key == "map_index":
            return self.index
        if key == "task_run_count":
            return 1
        if key == "task_full_name":
            return self.name
        if key not in self._make:
            return self._step[key]
        if self.made is None:
            self.made = {}
        if key not in self.made:
            self.made[key] = self._make[key](self)
        return self.made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> dict[str, None]:
        own = ("map_index", "task_run_count", "task_full_name")
        return dict.fromkeys((*own, *self._make, *self._step))


def mistaken_name(names: Iterable[Any]) -> str | None:
    """What is wrong with names for context variables, `None` if nothing is.

    Examples
    --------
    >>> mistaken_name(["color", "get"])  # doctest: +ELLIPSIS
    "a context variable cannot be called 'get', which is a method of the context; ..."
    """
    for name in names:
        if not isinstance(name, str):
            return f"the name of a context variable is a string, not {name!r}."
        if hasattr(Context, name):
            return (
                f"a context variable cannot be called {name!r}, which is a method of "
                "the context; choose another name."
            )
    return None


def surrounding() -> Mapping[str, Any]:
    """All variables that are set here."""
    return _variables.get()


def set_variables(variables: Mapping[str, Any]) -> Token[Mapping[str, Any]]:
    """Put variables in the place of those that are set."""
    return _variables.set(variables)


def reset_variables(token: Token[Mapping[str, Any]]) -> None:
    """Set again what `set_variables` replaced."""
    _variables.reset(token)


class ContextBlock:
    """A `with` block that sets context variables and restores what was before."""

    __slots__ = ("_added", "_tokens")

    def __init__(self, added: Mapping[str, Any]) -> None:
        self._added = added
        # A stack, because one block object may be entered again inside itself.
        self._tokens: list[Token[Mapping[str, Any]]] = []

    def __enter__(self) -> Context:
        merged = {**_variables.get(), **self._added}
        self._tokens.append(_variables.set(merged))
        return context

    def __exit__(self, *exception: object) -> None:
        _variables.reset(self._tokens.pop())


#: The one context.
context = Context()


@contextmanager
def tags(*names: str) -> Iterator[frozenset[str]]:
    """Tag every task that is made, copied, called or bound inside the block.

    Parameters
    ----------
    *names : str
        The tags; nested blocks add up.

    Examples
    --------
    >>> with tags("db"), tags("slow", "night"):
    ...     sorted(current_tags())
    ['db', 'night', 'slow']
    >>> current_tags()
    frozenset()
    """
    for name in names:
        if not isinstance(name, str):
            raise TypeError(
                f"tags() takes strings, and got {name!r}; write tags('a', 'b')."
            )
    united = current_tags().union(names)
    with context(tags=united):
        yield united


@contextmanager
def group(name: str, append: bool = False) -> Iterator[str]:
    """Give every task that is made or called inside the block a group.

    Parameters
    ----------
    name : str
        The group, a label for people.
    append : bool
        Whether it is a part of the group of the block around, as ``"outer/inner"``.

    Examples
    --------
    >>> with group("etl"), group("load", append=True):
    ...     current_group()
    'etl/load'
    """
    if not isinstance(name, str):
        raise TypeError(f"group() takes a string, and got {name!r}.")
    around = current_group()
    whole = f"{around}/{name}" if append and around else name
    with context(group=whole):
        yield whole


def current_group() -> str:
    """Group of the surrounding `group` block; empty outside of any."""
    found: str = context.get("group", "")
    return found


def current_tags() -> frozenset[str]:
    """Tags of the surrounding `tags` blocks; empty outside of any."""
    found: frozenset[str] = context.get("tags", frozenset())
    return found
