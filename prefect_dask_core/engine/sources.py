"""Sources: where the inputs of a step come from.

A source says in a few words where an input is; it travels with its block. `feeds` reads
what it points at.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from prefect_dask_core.edges import Edge


class Readable(Protocol):
    """A list, or values that are unpickled when first read."""

    def __getitem__(self, offset: int, /) -> Any:
        """Item at an offset."""


class Fixed(NamedTuple):
    """A constant, the same for every child."""

    value: Any


class Items(NamedTuple):
    """A constant mapped over: the items of this block's children."""

    values: Readable
    start: int


class Shared(NamedTuple):
    """A large constant that is an argument of the block of its own."""

    position: int


class Whole(NamedTuple):
    """The value of a node above: of a plain one, or a list of all children's.

    Parameters
    ----------
    node : int
        The node.
    positions : tuple of int
        Arguments of the block that hold it.
    fanout : bool
        Whether it has children.
    flattened : bool
        Whether it is unnested one level.
    spans : tuple of (int, int)
        Children that each argument is known to hold; empty where none are lost.
    """

    node: int
    positions: tuple[int, ...]
    fanout: bool
    flattened: bool = False
    spans: tuple[tuple[int, int], ...] = ()


class Each(NamedTuple):
    """Element by element: the items of a plain node, or the children of a fan-out.

    The fields are those of `Whole`, and of a fan-out that is flattened the elements
    that each argument holds, as they were counted; empty where nobody did.
    """

    node: int
    positions: tuple[int, ...]
    fanout: bool
    flattened: bool = False
    spans: tuple[tuple[int, int], ...] = ()
    elements: tuple[tuple[int, int], ...] = ()


class Local(NamedTuple):
    """The same child of an earlier step of this block."""

    node: int
    flattened: bool = False


class Filled(NamedTuple):
    """What another source gives, its templates filled with what nodes above give.

    Parameters
    ----------
    source : Fixed, Items or Shared
        Gives templates, or values with none.
    above : tuple of (str, Whole)
        Name and place of each node that a template refers to.
    """

    source: Fixed | Items | Shared
    above: tuple[tuple[str, Whole], ...]


Source = Fixed | Items | Shared | Whole | Each | Local | Filled


class StepInput(NamedTuple):
    """One input of a step.

    Parameters
    ----------
    key : str or None
        Parameter of the body; `None` where only the order matters.
    name : str
        Name of the task above, for messages.
    source : Source
        Where the value comes from.
    edge : Edge or None
        Handed to a user's trigger as the key of the state.
    tolerated : bool
        Whether the run above may have ended in any way.
    """

    key: str | None
    name: str
    source: Source
    edge: Edge | None
    tolerated: bool = False
