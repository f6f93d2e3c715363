"""Requests: how the arguments of a call become the inputs of a node.

A future becomes an edge. A value with futures inside becomes a template, and an edge
for each of them. Anything else is a constant.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from prefect_dask_core.annotations import AllowFailure, Quote
from prefect_dask_core.arguments import unwrap
from prefect_dask_core.edges import Annotation
from prefect_dask_core.engine.fanout import mapped_length
from prefect_dask_core.engine.plan import Input, Node, flattened, items_of
from prefect_dask_core.engine.session import Session
from prefect_dask_core.engine.templates import (
    Hole,
    Part,
    Template,
    part_input,
    rebuild,
)
from prefect_dask_core.errors import FutureOfAnotherRun, UpstreamTaskError
from prefect_dask_core.future_lists import FutureList, node_of
from prefect_dask_core.futures import PrefectFuture, child_of
from prefect_dask_core.run_ids import task_run_id
from prefect_dask_core.states import State
from prefect_dask_core.tasks import Task

#: Most runs that a record lists as those its values came from.
MOST_LISTED: Final = 100


@dataclass(slots=True)
class Inputs:
    """Inputs of a node, as they are collected from the arguments of a call.

    Parameters
    ----------
    task : str
        Name of the task, for messages.
    session : Session or None
        Where the node will run; futures of others are refused. `None` where all are
        welcome: they are only waited for.
    """

    task: str
    session: Session | None
    inputs: list[Input] = field(default_factory=list)
    above: dict[str, set[uuid.UUID]] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    _parts: dict[int, None] = field(default_factory=dict)
    _tolerant: set[int] = field(default_factory=set)
    _strict: set[int] = field(default_factory=set)

    def add(self, key: str, given: Any, mapped: bool) -> None:
        """Take in an argument.

        Parameters
        ----------
        key : str
            Its parameter.
        given : object
            The argument, perhaps annotated.
        mapped : bool
            Whether the call is mapped.
        """
        item = unwrap(given, mapped)
        value, tolerant = _tolerated(item.value)
        each = bool(item.mapped)
        if isinstance(value, Quote):
            self._constant(key, value.value, each, item.flattened)
            return
        whole = self._whole(value, key)
        if whole is not None:
            self._note(whole, tolerant)
            self.inputs.append(Input(key, whole, None, each, item.flattened, None))
            return
        if each:
            value = self._items(value, key, tolerant)
        else:
            value = self._template(value, key, tolerant)
        self._constant(key, value, each, item.flattened)

    def wait_for(self, given: Any) -> None:
        """Take in what comes first without giving a value."""
        for one in _each(given):
            value, tolerant = _tolerated(one)
            whole = self._whole(value, "wait_for")
            if whole is not None:
                self._note(whole, tolerant)
                self.inputs.append(Input(None, whole, None, False, False, None))
                continue
            template = self._template(value, "wait_for", tolerant)
            if isinstance(template, Template):
                self.inputs.append(Input(None, None, template, False, False, None))

    def finish(self) -> tuple[Input, ...]:
        """All inputs; those that only back templates stand at the end."""
        return (*self.inputs, *map(part_input, self._parts))

    @property
    def tolerated(self) -> frozenset[int]:
        """Nodes that may end in any way; not those that are also given as they are."""
        return frozenset(self._tolerant - self._strict)

    def listed(self) -> dict[str, frozenset[uuid.UUID]]:
        """Runs by parameter, for a record; nothing if they are too many to list."""
        if sum(map(len, self.above.values())) > MOST_LISTED:
            return {}
        return {key: frozenset(ids) for key, ids in self.above.items()}

    def _constant(self, key: str, value: Any, mapped: bool, flat: bool) -> None:
        if flat and not isinstance(value, Template):
            value = flattened(value)
        self.inputs.append(Input(key, None, value, mapped, False, None))

    def _note(self, node: int, tolerant: bool) -> None:
        (self._tolerant if tolerant else self._strict).add(node)

    def _whole(self, value: Any, key: str) -> int | None:
        """The node that a value is the future of, if it is one of a whole node."""
        if not isinstance(value, PrefectFuture | FutureList):
            return None
        handle = node_of(value)
        if handle is None:
            return None
        self._check(handle.session, value)
        found = task_run_id(handle.id_base, handle.name)
        self.above.setdefault(key, set()).add(found)
        self.names[handle.name] = None
        return handle.node

    def _check(self, session: Session, future: Any) -> None:
        if self.session is not None and session is not self.session:
            raise FutureOfAnotherRun(
                f"task {self.task!r} was given {future!r}, which belongs to another "
                "flow run or to another task's body; give its .result() instead."
            )

    def _template(self, value: Any, key: str, tolerant: bool) -> Any:
        """The value, as a template if there are futures or states inside."""
        parts: list[Part | State] = []

        def punched(leaf: Any) -> Any:
            leaf, lenient = _tolerated(leaf)
            if isinstance(leaf, Annotation):
                leaf = leaf.value
            if isinstance(leaf, Quote):
                return leaf.value
            if isinstance(leaf, State):
                return self._given_state(leaf, parts)
            if isinstance(leaf, PrefectFuture):
                parts.append(self._part(leaf, key, lenient or tolerant))
                return Hole(len(parts) - 1)
            if isinstance(leaf, FutureList):
                if node_of(leaf) is None:
                    return [punched(future) for future in leaf]
                parts.append(self._part_of_list(leaf, key, lenient or tolerant))
                return Hole(len(parts) - 1)
            return leaf

        made = rebuild(value, punched)
        return Template(made, tuple(parts)) if parts else made

    def _given_state(self, state: State, parts: list[Part | State]) -> Any:
        if state.is_successful():
            return state.result()
        parts.append(state)
        return Hole(len(parts) - 1)

    def _part(self, future: PrefectFuture[Any], key: str, tolerant: bool) -> Part:
        handle, index = child_of(future)
        self._check(handle.session, future)
        self._parts[handle.node] = None
        self.above.setdefault(key, set()).add(future.task_run_id)
        self.names[handle.name] = None
        return Part(handle.node, index, tolerant)

    def _part_of_list(self, futures: FutureList[Any], key: str, lenient: bool) -> Part:
        handle = node_of(futures)
        assert handle is not None
        return self._part(PrefectFuture(handle), key, lenient)

    def _items(self, value: Any, key: str, tolerant: bool) -> Any:
        """Items to map over, each a template of its own if it needs one."""
        if isinstance(value, State):
            if not value.is_successful():
                raise UpstreamTaskError(
                    f"task {self.task!r} is mapped over {key}, which is the state of "
                    f"a run that did not succeed: {value!r}."
                )
            value = value.result()
        if isinstance(value, FutureList):
            value = list(value)
        items = items_of(value)
        if items is None:
            return self._template(value, key, tolerant)
        if not any(map(_may_hold, set(map(type, items)))):
            return items
        return [self._template(item, key, tolerant) for item in items]


_PLAIN: Final = frozenset({int, float, str, bytes, bool, complex, type(None)})


def _may_hold(kind: type) -> bool:
    """Whether values of a type may be futures, or hold some."""
    return kind not in _PLAIN


def _tolerated(value: Any) -> tuple[Any, bool]:
    """What stands in `allow_failure`, and whether it does."""
    if isinstance(value, AllowFailure):
        return value.value, True
    return value, False


def _each(given: Any) -> Iterable[Any]:
    if given is None:
        return ()
    if isinstance(given, PrefectFuture | FutureList | AllowFailure | State):
        return (given,)
    return given if isinstance(given, Iterable) else (given,)


def check_lengths(task: Task, name: str, inputs: tuple[Input, ...]) -> None:
    """Refuse to map over constants that cannot be; other lengths the run will tell.

    Raises
    ------
    MappingLengthMismatch, MappingMissingIterable
        As for graph flows.
    """
    if any(item.mapped and item.node is not None for item in inputs):
        return
    node = Node(0, name, task, "", inputs, mapped=True, constant=False)
    found = mapped_length(node, _never, _not_skipped)
    if isinstance(found, Exception):
        raise found


def _never(item: Input) -> int | Exception | None:
    raise LookupError(f"{item} is not a constant")


def _not_skipped(item: Input) -> str | None:
    return None


def inputs_of_call(
    task: Task,
    bound: Mapping[str, Any],
    first: Any,
    mapped: bool,
    session: Session | None,
) -> Inputs:
    """Inputs of a call.

    Parameters
    ----------
    task : Task
        The task.
    bound : mapping of str to object
        Arguments by parameter.
    first : object
        What only comes first: a future, or an iterable of them.
    mapped : bool
        Whether the call is mapped.
    session : Session or None
        Where it will run; `None` if it runs here, once its futures have ended.
    """
    collected = Inputs(task.name, session)
    for key, value in bound.items():
        collected.add(key, value, mapped)
    collected.wait_for(first)
    return collected
