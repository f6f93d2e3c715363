"""Events and commands: what the driver is told, and what it asks for.

A runner turns what happens on its workers into events, and carries out the commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect_dask_core.engine.block import Block, BlockReport
from prefect_dask_core.engine.plan import Node
from prefect_dask_core.engine.segments import Segment

# -- events ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The runner is ready.

    Parameters
    ----------
    threads : int
        Worker threads there are now; may be 0 on an adaptive cluster.
    """

    threads: int


@dataclass(frozen=True, slots=True)
class Resized:
    """Workers came or went.

    Parameters
    ----------
    threads : int
        Worker threads there are now.
    """

    threads: int


@dataclass(frozen=True, slots=True)
class BlockDone:
    """A block ended. May come twice, where a worker died and Dask ran it again."""

    report: BlockReport


@dataclass(frozen=True, slots=True)
class BlockAdvanced:
    """Some steps of a block that is still running have ended."""

    report: BlockReport


@dataclass(frozen=True, slots=True)
class BlockWaiting:
    """A block has nothing to do but wait for a retry, and holds no thread.

    Parameters
    ----------
    number : int
        The block.
    done : int
        Children it has begun.
    busy : float
        Seconds of work so far.
    """

    number: int
    done: int
    busy: float


@dataclass(frozen=True, slots=True)
class BlockReached:
    """A careful block is about to begin a child.

    Parameters
    ----------
    number : int
        The block.
    index : int
        The child.
    """

    number: int
    index: int


@dataclass(frozen=True, slots=True)
class BlockLost:
    """A block cannot be run: the infrastructure under it died.

    Parameters
    ----------
    number : int
        The block that is to blame, not one that merely reads it.
    reason : str
        One line for people.
    divisible : bool
        Whether fewer children might fare better: a worker died under the block.
    others : tuple of int
        Blocks whose results cannot be had because of it.
    stale : bool
        Whether nothing died, but a block it reads was run again, after a worker's
        death, and gave fewer children than the first time.
    when : float, optional
        Seconds since the epoch at which that was noticed.
    worker : str, optional
        Address of the worker that died with it, the last one of several.
    of_items : bool
        Whether nothing died, but items that its children are mapped over cannot be
        unpickled on its worker; which of them is not known.
    """

    number: int
    reason: str
    divisible: bool
    others: tuple[int, ...] = ()
    stale: bool = False
    when: float | None = None
    worker: str | None = None
    of_items: bool = False


@dataclass(frozen=True, slots=True)
class ReportLost:
    """Blocks of plain nodes ended; their reports and their results are lost.

    Parameters
    ----------
    numbers : tuple of int
        The blocks.
    """

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ResultsLost:
    """Results of blocks that had ended were lost with their worker.

    Parameters
    ----------
    numbers : tuple of int
        The blocks.
    """

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TriedLong:
    """What was tried before others of its kind takes longer than a moment."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The run was asked to stop, or cannot go on.

    Parameters
    ----------
    reason : str
        One line for people.
    crashed : bool
        Whether the infrastructure under the whole run died.
    """

    reason: str
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class Added:
    """A function flow has added nodes.

    Parameters
    ----------
    nodes : tuple of Node
        In the order of their numbers. Their values are kept until `Dropped` says that
        nobody will ask for them.
    """

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Nobody will ask for the values of some nodes, nor add a node that reads them.

    Parameters
    ----------
    nodes : tuple of int
        The nodes.
    """

    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """No more nodes will be added."""


Event = (
    Started
    | Resized
    | BlockDone
    | BlockAdvanced
    | BlockWaiting
    | BlockReached
    | BlockLost
    | ReportLost
    | ResultsLost
    | TriedLong
    | StopAsked
    | Added
    | Dropped
    | Closed
)


# -- commands ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assignment:
    """A block to run, or a result that stands in for one.

    Parameters
    ----------
    block : Block
        What to run.
    reads : tuple of int
        Numbers of the blocks whose results are its arguments, in order.
    given : dict of int to Segment, optional
        If set, nothing runs: this is the result.
    annotations : mapping of str to object
        Dask annotations.
    """

    block: Block
    reads: tuple[int, ...]
    given: dict[int, Segment] | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Submit:
    """Run these blocks; one graph.

    Parameters
    ----------
    assignments : tuple of Assignment
        In an order that respects `reads`.
    hold : frozenset of int
        Blocks whose results are kept until released.
    """

    assignments: tuple[Assignment, ...]
    hold: frozenset[int]


@dataclass(frozen=True, slots=True)
class Release:
    """Forget the results of these blocks: nothing will read them any more."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """Every node has its state."""


Command = Submit | Release | Finish
