"""Blocks: consecutive children, through one or more nodes, run as one unit of work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.sources import StepInput
from prefect_dask_core.tasks import Task

#: How often a careful block tells how far it is: a worker that dies leaves one part of
#: so many as suspects, where halving would need five deaths to come as far.
CAREFUL_PIECES: Final = 32
# Of a type that can be pickled, though nobody may add to them.
NOT_PAUSED: Final[Mapping[int, str]] = {}
NO_VARIABLES: Final[Mapping[str, Any]] = {}


class Step(NamedTuple):
    """One node, as a block runs it.

    Parameters
    ----------
    node : int
        Index of the node in the plan.
    task : Task
        Its definition.
    slug : str
        Its slug in the flow.
    inputs : tuple of StepInput
        One per edge and constant.
    mapped : bool
        Whether the block runs children of it.
    measured : bool
        Whether other nodes map over its value: its items are then kept beside it.
    flattened : bool
        Whether other nodes map over its flattened value or children.
    refusal : Exception or None
        Why its children cannot exist; its parent is judged instead.
    paused : mapping of int to str
        Runs that are resumed from a pause, by index: the name of the pause. The index
        of a plain node is 0.
    variables : mapping of str to object
        Context variables of its runs, over those of the flow run.
    """

    node: int
    task: Task
    slug: str
    inputs: tuple[StepInput, ...]
    mapped: bool
    measured: bool = False
    flattened: bool = False
    refusal: Exception | None = None
    paused: Mapping[int, str] = NOT_PAUSED
    variables: Mapping[str, Any] = NO_VARIABLES


class Block(NamedTuple):
    """What one unit of work runs.

    Parameters
    ----------
    number : int
        Its number in the run.
    steps : tuple of Step
        In order; a later one may read an earlier one through `Local`.
    start, stop : int
        Children it runs; 0 and 1 for plain nodes.
    aim : float
        Seconds of work it was cut for; 0: it hands nothing back.
    keep : frozenset of int
        Nodes whose values later blocks read.
    careful : bool
        Whether it tells how far it has come, because a child of it may kill its worker.
    awaited : bool
        Whether the run goes on when it ends. If not, all that reads it is submitted
        already, and its report may come a little later, together with others.
    lean : bool
        Whether the values of nodes that are not in `keep` are dropped child by child.
    parts : tuple of int
        Positions of the steps of plain nodes at which others begin that do not read
        the ones before. Each part waits for itself alone, and may be handed back.
    apart : bool
        Whether what its children are mapped over is pickled item by item, because one
        of them may not be unpickled on its worker.
    """

    number: int
    steps: tuple[Step, ...]
    start: int
    stop: int
    aim: float
    keep: frozenset[int]
    careful: bool = False
    awaited: bool = True
    lean: bool = False
    parts: tuple[int, ...] = ()
    apart: bool = False

    def ways(self) -> Iterator[tuple[int, int, int]]:
        """What it runs in turn: an index, and the steps it goes from and to.

        Examples
        --------
        >>> list(Block(0, ("a", "b"), 5, 7, 0.0, frozenset()).ways())
        [(5, 0, 2), (6, 0, 2)]
        >>> list(Block(0, ("a", "b", "c"), 0, 1, 0.0, frozenset(), parts=(1,)).ways())
        [(0, 0, 1), (0, 1, 3)]
        """
        if not self.parts:
            for index in range(self.start, self.stop):
                yield index, 0, len(self.steps)
            return
        first = 0
        for last in (*self.parts, len(self.steps)):
            yield 0, first, last
            first = last


def careful_piece(start: int, stop: int) -> int:
    """Children of a careful block between two times that it tells how far it is.

    Examples
    --------
    >>> careful_piece(0, 3_200), careful_piece(0, 20)
    (100, 1)
    """
    return -(-(stop - start) // CAREFUL_PIECES)


class BlockReport(NamedTuple):
    """What became of a block, without the values that stay behind.

    Parameters
    ----------
    number : int
        The block.
    segments : dict of int to Segment
        By node; `values` only where they are small enough to travel. Plain nodes that
        were handed back are not there.
    done : int
        Children or parts it ran; those after were handed back.
    busy : float
        Seconds of work, waits not counted.
    """

    number: int
    segments: dict[int, Segment]
    done: int
    busy: float
