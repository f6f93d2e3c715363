"""Packing: what a block is made of, as bytes that travel once.

Definitions and large arguments are pickled once per run, however many blocks refer
to them, and travel to a worker once: as a key of their own in the Dask graph, or
inside the message of a block where they are so small that a key would cost more.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import cloudpickle
from dask.sizeof import sizeof

from prefect_dask_core.engine.block import NO_VARIABLES, Block, Step
from prefect_dask_core.engine.elsewhere import Packed
from prefect_dask_core.engine.plan import definition_key
from prefect_dask_core.engine.sources import (
    Filled,
    Fixed,
    Items,
    Shared,
    StepInput,
    Whole,
)
from prefect_dask_core.engine.unreadable import PackedApart
from prefect_dask_core.errors import UnpicklableTaskError
from prefect_dask_core.tasks import Task

#: Bytes from which a definition or argument gets a key of its own. Below, the key's
#: edges cost more than the bytes: on a tree of 5,000 nodes a key shared by all nodes
#: took 1.7 times as long as 300 bytes in each message.
OWN_KEY_BYTES: Final = 4_096

_NO_PARTS: Final[Mapping[str, Any]] = MappingProxyType({})


def is_large(value: Any) -> bool:
    """Whether a constant travels as an argument of its own."""
    if value is None or isinstance(value, int | float):
        return False
    return bool(sizeof(value) >= OWN_KEY_BYTES)


#: Where a definition is, and which of the tasks that share it is meant.
Reference = tuple[str, int, int]


class SmallPart:
    """What several blocks share and each brings along, pickled.

    Parameters
    ----------
    blob : bytes
        The pickled part.

    Notes
    -----
    A process has each of them once, however many messages have brought it: the
    scheduler keeps a thousand messages per connection in its logs.
    """

    __slots__ = ("__weakref__", "blob")

    def __init__(self, blob: bytes) -> None:
        self.blob = blob

    def __len__(self) -> int:
        return len(self.blob)

    def __reduce__(self) -> tuple[Any, ...]:
        return small_part, (self.blob,)

    def __dask_tokenize__(self) -> bytes:
        return self.blob


_SMALL_PARTS: Final[WeakValueDictionary[bytes, SmallPart]] = WeakValueDictionary()


def small_part(blob: bytes) -> SmallPart:
    """The part of these bytes, the same one as long as anybody has it.

    Examples
    --------
    >>> small_part(b"a") is small_part(b"a")
    True
    """
    part = _SMALL_PARTS.get(blob)
    if part is None:
        part = _SMALL_PARTS[blob] = SmallPart(blob)
    return part


class PackedBlock(NamedTuple):
    """A block as it travels.

    Parameters
    ----------
    header : bytes
        The pickled `Block`, with references in the place of what is shared.
    inline : tuple of SmallPart
        Small shared parts.
    shared : tuple of bytes
        Large shared parts, pickled; each becomes a key of its own.
    """

    header: bytes
    inline: tuple[SmallPart, ...]
    shared: tuple[bytes, ...]


class Packer:
    """Pickles blocks, and whatever they share only once.

    Notes
    -----
    Copies of a task that share function and options share one definition.
    """

    def __init__(self) -> None:
        self._blobs: dict[Any, bytes] = {}
        self._alive: list[Any] = []  # ids in the keys stay valid as long as these live
        # By id, with the value, so that the id stays valid.
        self._values: dict[int, tuple[Any, bytes]] = {}
        # Equal values may have equal bytes.
        self._ids: dict[bytes, list[int]] = {}

    def pack_task(self, task: Task) -> bytes:
        """Pickle a definition, once.

        Raises
        ------
        UnpicklableTaskError
            Naming the task and what in it cannot be pickled.
        """
        key = definition_key(task)
        blob = self._blobs.get(key)
        if blob is None:
            blob = _dump(task, lambda: f"task {task.name!r}", _parts_of(task))
            self._blobs[key] = blob
            self._alive.append(task)
        return blob

    def pack_value(
        self,
        value: Any,
        told: Callable[[], str],
        parts: Mapping[str, Any] = _NO_PARTS,
    ) -> bytes:
        """Pickle a large value, once as long as it is the same object.

        Parameters
        ----------
        value : object
            The value.
        told : callable
            Says what it is, for the message of an error.
        parts : mapping of str to object, optional
            What it is made of, by a name people know.
        """
        known = self._values.get(id(value))
        if known is not None:
            return known[1]
        blob = _dump(value, told, parts)
        self._values[id(value)] = value, blob
        self._ids.setdefault(blob, []).append(id(value))
        return blob

    def let_go(self, blob: bytes) -> bool:
        """Forget the pickled form of a large value; whether it is one.

        Who needs it once more, because a worker has died, pickles it once more.
        """
        known = self._ids.pop(blob, ())
        for key in known:
            del self._values[key]
        return bool(known)

    def pack(self, block: Block, arguments: int) -> PackedBlock:
        """Pickle a block.

        Parameters
        ----------
        block : Block
            The block.
        arguments : int
            Number of arguments it has already; large parts follow them.
        """
        short = _short_form(block)
        if short is not None:
            task = block.steps[0].task
            blob = self.pack_task(task)
            if len(blob) < OWN_KEY_BYTES:
                header = _SHORT + pickle.dumps(short, protocol=5)
                return PackedBlock(header, (small_part(blob),), ())
        shared: dict[bytes, int] = {}
        steps = tuple(
            step._replace(
                inputs=tuple(
                    self._travelling(step.task, item, shared, arguments, block.apart)
                    for item in step.inputs
                )
            )
            for step in block.steps
        )
        try:
            return self.pack_object(block._replace(steps=steps), arguments, shared)
        except Exception as error:
            raise self._explained(block, error) from error

    def pack_object(
        self, value: Any, arguments: int, shared: dict[bytes, int] | None = None
    ) -> PackedBlock:
        """Pickle anything made of nodes or steps, with references to definitions.

        Parameters
        ----------
        value : object
            What to pickle.
        arguments : int
            Number of arguments there are already; large parts follow them.
        shared : dict of bytes to int, optional
            Large parts so far; grows.
        """
        large = {} if shared is None else shared
        inline: dict[bytes, int] = {}
        copies: dict[bytes, dict[int, int]] = {}

        def place(task: Task) -> Reference:
            blob = self.pack_task(task)
            known = copies.setdefault(blob, {})
            number = known.setdefault(id(task), len(known))
            if len(blob) >= OWN_KEY_BYTES:
                return "shared", large.setdefault(blob, arguments + len(large)), number
            return "inline", inline.setdefault(blob, len(inline)), number

        buffer = io.BytesIO()
        _BlockPickler(buffer, place).dump(value)
        parts = tuple(small_part(blob) for blob in inline)
        return PackedBlock(buffer.getvalue(), parts, tuple(large))

    def _travelling(
        self,
        task: Task,
        item: StepInput,
        shared: dict[bytes, int],
        arguments: int,
        apart: bool,
    ) -> StepInput:
        """An input whose constants are bytes or of a type that needs none."""

        def told() -> str:
            return f"argument {item.key!r} of task {task.name!r}"

        source = item.source
        inner = source.source if isinstance(source, Filled) else source
        if isinstance(inner, Items):
            values = _dump_items(inner, told, task.name, apart)
            found: Any = Items(values, inner.start)
            if isinstance(source, Filled):
                found = source._replace(source=found)
            return item._replace(source=found)
        if isinstance(source, Fixed) and is_large(source.value):
            blob = self.pack_value(source.value, told)
            position = shared.setdefault(blob, arguments + len(shared))
            return item._replace(source=Shared(position))
        return item

    def _explained(self, block: Block, error: Exception) -> Exception:
        """The error of a block that cannot be pickled, naming task and argument."""
        if isinstance(error, UnpicklableTaskError):
            return error
        for step in block.steps:
            for item in step.inputs:
                if isinstance(item.source, Fixed):
                    try:
                        cloudpickle.dumps(item.source.value)
                    except Exception as cause:
                        return _unpicklable(
                            f"argument {item.key!r} of task {step.task.name!r}", cause
                        )
            for name, value in step.variables.items():
                try:
                    cloudpickle.dumps(value)
                except Exception as cause:
                    return _unpicklable(
                        f"context variable {name!r} of task {step.task.name!r}", cause
                    )
        return _unpicklable(f"a block of {block.steps[-1].task.name!r}", error)


def unpack(header: bytes, inline: Sequence[SmallPart], arguments: Sequence[Any]) -> Any:
    """What `Packer.pack` or `Packer.pack_object` pickled.

    Parameters
    ----------
    header, inline : bytes, sequence of SmallPart
        As `PackedBlock` has them.
    arguments : sequence
        Arguments of the block, with the loaded large parts behind.
    """
    if header.startswith(_SHORT):
        short = pickle.loads(memoryview(header)[len(_SHORT) :])
        return _long_form(short, load_small(inline[0]))
    copies: dict[Reference, Task] = {}

    def find(reference: Reference) -> Task:
        kind, position, number = reference
        task: Task = (
            arguments[position] if kind == "shared" else load_small(inline[position])
        )
        if not number:
            return task
        # Tasks that share a definition stay apart: edges are told apart by them.
        return copies.setdefault(reference, copy.copy(task))

    return _BlockUnpickler(io.BytesIO(header), find).load()


#: Types of constants that are written as they are.
_PRIMITIVES: Final = frozenset({type(None), bool, int, float, str, bytes})
#: What stands before a block in its short form; no pickle begins with it.
_SHORT: Final = b"short:"
_NOTHING: Final[frozenset[int]] = frozenset()


def _short_form(block: Block) -> tuple[Any, ...] | None:
    """A block of one plain node as a tuple of strings and numbers, if it can be one.

    Notes
    -----
    Most plain nodes can. Measured: 2 µs to write and 4 to read, instead of 14 each by
    a pickler that looks for definitions.
    """
    if len(block.steps) != 1 or block.aim:
        return None
    step = block.steps[0]
    if step.mapped or step.paused or step.refusal is not None:
        return None
    if step.variables and not _is_short_dict(step.variables):
        return None
    inputs: list[Any] = []
    for item in step.inputs:
        source = item.source
        if item.edge is not None or item.tolerated:
            return None
        if type(source) is Whole and len(source.positions) == 1 and not source.fanout:
            place = source.node, source.positions[0], source.flattened
            inputs.append((item.key, item.name, place, None))
        elif type(source) is Fixed and type(source.value) in _PRIMITIVES:
            if type(source.value) in (str, bytes) and is_large(source.value):
                return None
            inputs.append((item.key, item.name, None, source.value))
        else:
            return None
    return (
        block.number,
        step.node,
        step.slug,
        tuple(inputs),
        step.measured,
        step.flattened,
        bool(block.keep),
        block.awaited,
        dict(step.variables) if step.variables else None,
    )


def _is_short_dict(variables: Mapping[str, Any]) -> bool:
    """Whether context variables are a small dict of strings and numbers."""
    return (
        type(variables) is dict
        and _PRIMITIVES.issuperset(map(type, variables))
        and _PRIMITIVES.issuperset(map(type, variables.values()))
        and not is_large(variables)
    )


def _long_form(short: tuple[Any, ...], task: Task) -> Block:
    """The block that was written in its short form."""
    number, node, slug, inputs, measured, flattened, kept, awaited, variables = short
    step = Step(
        node,
        task,
        slug,
        tuple(
            StepInput(
                key,
                name,
                Fixed(value)
                if place is None
                else Whole(place[0], (place[1],), False, place[2]),
                None,
            )
            for key, name, place, value in inputs
        ),
        False,
        measured,
        flattened,
        variables=variables or NO_VARIABLES,
    )
    keep = frozenset((node,)) if kept else _NOTHING
    return Block(number, (step,), 0, 1, 0.0, keep, awaited=awaited)


def load_small(part: SmallPart) -> Any:
    """Unpickle a small shared part, once per process as long as it is in use."""
    return _load_once(part.blob)


@lru_cache(maxsize=512)
def _load_once(blob: bytes) -> Any:
    return pickle.loads(blob)


def load_shared(blob: bytes) -> Any:
    """Unpickle a large shared part; runs as the Dask task of its key."""
    return pickle.loads(blob)


def _parts_of(task: Task) -> Mapping[str, Any]:
    """What a definition is made of, by a name people know."""
    parts: dict[str, Any] = {}
    if task.fn is not None:
        parts["its function"] = task.fn
        code = getattr(task.fn, "__code__", None)
        closure = getattr(task.fn, "__closure__", None) or ()
        for name, cell in zip(code.co_freevars if code else (), closure, strict=False):
            parts[f"closure variable {name!r}"] = cell.cell_contents
        used = getattr(task.fn, "__globals__", {})
        for name in code.co_names if code else ():
            if name in used:
                parts[f"global variable {name!r}"] = used[name]
    for name, value in vars(task).items():
        if not name.startswith("_") and name != "options":
            parts[f"attribute {name!r}"] = value
    parts["its trigger"] = task.trigger
    for handler in task.state_handlers:
        parts[f"state handler {handler!r}"] = handler
    return parts


def _dump(value: Any, told: Callable[[], str], parts: Mapping[str, Any]) -> bytes:
    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:
        # The innermost part is named: a function fails because of its closure.
        for name, part in reversed(list(parts.items())):
            try:
                cloudpickle.dumps(part)
            except Exception as cause:
                if name != "its function":
                    raise _unpicklable(f"{name} of {told()}", cause) from error
        raise _unpicklable(told(), error) from error


def _dump_items(
    source: Items, told: Callable[[], str], task: str, apart: bool
) -> Packed | PackedApart:
    values = source.values
    assert isinstance(values, list)
    try:
        if apart:
            return PackedApart(task, [_dump_values(value) for value in values])
        return Packed(_dump_values(values))
    except Exception as error:
        for offset, value in enumerate(values):
            try:
                cloudpickle.dumps(value)
            except Exception as cause:
                index = source.start + offset
                raise _unpicklable(f"item {index} of {told()}", cause) from error
        raise _unpicklable(told(), error) from error


def _dump_values(values: Any) -> bytes:
    try:
        blob = pickle.dumps(values, protocol=5)
        if b"__main__" not in blob:  # names of a script mean nothing on a worker
            return blob
    except Exception:
        pass  # lambdas and the like need cloudpickle
    return bytes(cloudpickle.dumps(values))


def _unpicklable(what: str, cause: Exception) -> UnpicklableTaskError:
    return UnpicklableTaskError(
        f"{what} cannot be pickled ({type(cause).__name__}: {cause}), so it cannot "
        "travel to a worker. Open files, connections, locks and clients belong inside "
        "the body of a task: create them there, and pass what is needed to do so."
    )


class _BlockPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Puts references in the place of definitions."""

    def __init__(self, file: io.BytesIO, place: Callable[[Task], Reference]) -> None:
        super().__init__(file, protocol=5)
        self._place = place

    def persistent_id(self, value: Any) -> Reference | None:
        """Where a definition is; everything else is pickled in place."""
        return self._place(value) if isinstance(value, Task) else None


class _BlockUnpickler(pickle.Unpickler):
    """Looks the references up."""

    def __init__(self, file: io.BytesIO, find: Callable[[Reference], Task]) -> None:
        super().__init__(file)
        self._find = find

    def persistent_load(self, reference: Reference) -> Task:
        """The definition at a place."""
        return self._find(reference)
