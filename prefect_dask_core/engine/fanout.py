"""Fan-out: how many children a mapped node has, and how they are cut into blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prefect_dask_core.engine.plan import Input, Node, items_of
from prefect_dask_core.engine.templates import PART, nodes_of
from prefect_dask_core.errors import MappingLengthMismatch, MappingMissingIterable
from prefect_dask_core.states import State

#: Seconds of work a block is cut for.
AIM: Final = 0.25
#: Blocks per thread that the rest of a fan-out is cut into at least.
BLOCKS_PER_THREAD: Final = 4
#: Seconds of work below which a block is not divided: Dask's own cost of a task, some
#: milliseconds with its messages, would be the larger part. Without it the last
#: thousand of 100,000 tiny children were 60 blocks.
LEAST_WORK: Final = 0.005
#: Seconds that a block takes besides its children: the first call of a body, memory
#: that nobody has touched yet. Children of 2 µs, alone in their blocks, took 15 to 50.
BLOCK_COST: Final = 30e-6
#: Seconds that a block of children takes at least, whatever was measured.
LEAST_BUSY: Final = 5e-6
#: Most children of a block, so that a report stays a small message.
MOST_CHILDREN: Final = 20_000
#: Most blocks of one fan-out that are on the scheduler at a time.
MOST_IN_FLIGHT: Final = 1_000
#: Children up to which a fan-out's values come home although nobody asked for them and
#: only the same block reads them. Of more, they live no longer than their child runs.
MOST_BROUGHT: Final = 1_000
#: Seconds from which a child is so long that Dask's own cost of its task is nothing.
LONG: Final = 1.0
#: First blocks where there is no worker: an adaptive cluster starts some for them.
MOST_UNTRIED: Final = 100


def common_length(name: str, lengths: Mapping[str, int | None]) -> int:
    """Number of children of a mapped task.

    Parameters
    ----------
    name : str
        Name of the task, for messages.
    lengths : mapping of str to int or None
        Per mapped input, its length; `None` for a value that cannot be iterated and
        is the same for every child.

    Raises
    ------
    MappingLengthMismatch
        If two inputs have different lengths (decision C4).
    MappingMissingIterable
        If no input has a length.

    Examples
    --------
    >>> common_length("load", {"path": 3, "mode": None})
    3
    >>> common_length("load", {"path": 3, "mode": 2})
    Traceback (most recent call last):
    ...
    prefect_dask_core.errors.MappingLengthMismatch: task 'load' is mapped over inputs \
of different lengths: path has 3, mode has 2. Give inputs of equal length, or wrap \
what is the same for every child in unmapped(...).
    """
    known = {key: length for key, length in lengths.items() if length is not None}
    if not known:
        inputs = ", ".join(lengths) or "none"
        raise MappingMissingIterable(
            f"task {name!r} is mapped, but none of its mapped inputs ({inputs}) can "
            "be iterated over: a list, tuple, dict, set, range or generator is "
            "needed; strings and bytes stand for themselves. Call the task without "
            ".map, or pass a collection."
        )
    if len(set(known.values())) > 1:
        told = ", ".join(f"{key} has {length}" for key, length in known.items())
        raise MappingLengthMismatch(
            f"task {name!r} is mapped over inputs of different lengths: {told}. Give "
            "inputs of equal length, or wrap what is the same for every child in "
            "unmapped(...)."
        )
    return next(iter(known.values()))


def mapped_length(
    node: Node,
    length_above: Callable[[Input], int | Exception | None],
    skipped_above: Callable[[Input], str | None],
) -> int | Exception:
    """Number of children of a mapped node, or why it cannot have any.

    Parameters
    ----------
    node : Node
        A mapped node.
    length_above : callable
        Gives, for an input from a node above, the number of its children or items,
        `None` if its value stands for itself, or why there is nothing to map over.
    skipped_above : callable
        Gives, for an input that is the same for all children, the name of the task
        above if it was skipped: the whole task is then skipped with it.
    """
    if node.task.options.skip_on_upstream_skip:
        for item in node.inputs:
            above = None if item.node is None else skipped_above(item)
            if above is not None and not _is_of_items(node, item):
                return MappingMissingIterable(
                    f"task {node.name!r} has no children: {above!r} was skipped."
                )
    lengths: dict[str, int | None] = {}
    for position, item in enumerate(node.inputs):
        if not item.mapped:
            continue
        if item.node is None:
            items = items_of(item.value)
            length: int | None = None if items is None else len(items)
        else:
            found = length_above(item)
            if isinstance(found, Exception):
                return found
            length = found
        lengths[item.key or f"input {position}"] = length
    try:
        return common_length(node.name, lengths)
    except (MappingLengthMismatch, MappingMissingIterable) as error:
        return error


def _is_of_items(node: Node, part: Input) -> bool:
    """Whether an input only backs templates among the items that are mapped over.

    What was skipped then skips those children that it was to be given to.
    """
    if part.value is not PART:
        return False
    whole = [
        item.value for item in node.inputs if item.node is None and not item.mapped
    ]
    return not any(part.node in set(nodes_of(value)) for value in whole)


def nothing_to_map(name: str, above: str, state: State) -> MappingMissingIterable:
    """Why a task whose upstream gave no value has no children."""
    return MappingMissingIterable(
        f"task {name!r} has nothing to map over: {above!r} ended as {state!r}."
    )


def elements_in(
    name: str, above: str, counts: Sequence[int | None]
) -> int | MappingMissingIterable:
    """Number of elements of a fan-out, or why nobody knows it.

    Parameters
    ----------
    name : str
        Name of the task that maps over them.
    above : str
        Name of the task that gives them.
    counts : sequence of int or None
        Elements of each of its blocks; `None` if they could not be counted.
    """
    known = [count for count in counts if count is not None]
    if len(known) == len(counts):
        return sum(known)
    return MappingMissingIterable(
        f"task {name!r} has nothing to map over: values of {above!r} were lost with "
        "their workers before their elements were counted; run the flow again."
    )


@dataclass(slots=True)
class Pace:
    """What is known of how long children take.

    Parameters
    ----------
    seconds : float or None
        Moving mean of the seconds per child; `None` until one was measured.
    """

    seconds: float | None = None

    def observe(self, children: int, busy: float) -> None:
        """Take in a measurement; later ones weigh more than earlier ones."""
        if children <= 0:
            return
        measured = max(busy - BLOCK_COST, LEAST_BUSY) / children
        if self.seconds is None:
            self.seconds = measured
        else:
            # Half weight: durations often drift along the index.
            self.seconds = 0.5 * self.seconds + 0.5 * measured


def block_size(remaining: int, threads: int, pace: Pace) -> int:
    """Number of children of the next block.

    Parameters
    ----------
    remaining : int
        Children not yet in a block.
    threads : int
        Worker threads; 0 counts as 1.
    pace : Pace
        Measurements so far. Before the first one, blocks hold one child.

    Examples
    --------
    >>> block_size(100_000, 2, Pace())
    1
    >>> block_size(100_000, 2, Pace(seconds=0.0001))
    2500
    >>> block_size(100, 2, Pace(seconds=0.001)), block_size(100, 2, Pace(9.0))
    (13, 1)
    >>> block_size(100, 2, Pace(seconds=0.0001))
    50
    """
    if pace.seconds is None:
        return min(1, remaining)
    fair = -(-remaining // (BLOCKS_PER_THREAD * max(threads, 1)))
    wanted = int(AIM / pace.seconds)
    least = int(LEAST_WORK / pace.seconds)
    return max(1, min(wanted, max(fair, least), MOST_CHILDREN, remaining))


def most_in_flight(threads: int, finished: int, are_long: bool = False) -> int:
    """Blocks of one fan-out that may be on the scheduler at a time.

    One per thread until it is known how long a child takes: tiny ones are over before
    a second could begin. Then two, so that no thread runs dry, and one more for each
    that ended: the sizes of the first ones rest on few measurements.

    An adaptive cluster grows by the work that it sees waiting. So long children go out
    all at once, as they would without blocks, and some where there is no worker yet.

    Parameters
    ----------
    threads : int
        Worker threads.
    finished : int
        Blocks of the fan-out that ended.
    are_long : bool
        Whether children are long.

    Examples
    --------
    >>> most_in_flight(threads=2, finished=0), most_in_flight(2, 10)
    (2, 14)
    >>> most_in_flight(threads=0, finished=0), most_in_flight(2, 10, are_long=True)
    (100, 1000)
    """
    if are_long:
        return MOST_IN_FLIGHT
    if not threads and not finished:
        return MOST_UNTRIED
    each = 2 if finished else 1
    return min(each * max(threads, 1) + finished, MOST_IN_FLIGHT)
