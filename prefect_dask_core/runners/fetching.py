"""Fetching: brings values home that have stayed on the cluster."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections import deque
from collections.abc import Sequence
from itertools import chain
from sys import getsizeof
from typing import Any, Final, NamedTuple

from dask.sizeof import sizeof
from dask.typing import Key
from distributed import Client, Future, Worker

from prefect_dask_core.engine.block_results import BlockResult, PlainValue, segment_in
from prefect_dask_core.engine.segments import Segment, is_success
from prefect_dask_core.errors import MissingResult
from prefect_dask_core.runners.travelling import dumped

#: Bytes of values that come along with the first one of a block that is asked for.
AT_FIRST: Final = 16_384
#: Most bytes of values that come along with the one of a child that is asked for.
AHEAD: Final = 262_144
#: Most of these that a flow run keeps: the code may read several maps side by side.
WINDOWS: Final = 8


class Fetch:
    """Brings the values of a segment home; keeps them alive on the cluster."""

    def __init__(self, future: Future[Any], node: int) -> None:
        self._future = future
        self._node = node

    def __call__(self) -> Sequence[Any]:
        """The values; `MissingResult` if they are gone."""
        try:
            result = self._future.result(timeout=None)
        except Exception as error:
            raise MissingResult(
                "the value stayed on the cluster and cannot be fetched any more "
                f"({type(error).__name__}: {error}). Ask for it while the cluster "
                "lives and its client is open."
            ) from error
        values: Sequence[Any] = segment_in(result, self._node).values
        return values


class Window(NamedTuple):
    """Values of consecutive children of a block, each pickled by itself.

    Parameters
    ----------
    first : int
        Place of the first of them among the children of the block.
    blobs : tuple of bytes or None
        One per child; `None` for one that has no value.
    """

    first: int
    blobs: tuple[bytes | None, ...]

    def blob(self, offset: int) -> bytes | None:
        """The pickled value of the child at a place, `None` if it is not here."""
        position = offset - self.first
        return self.blobs[position] if 0 <= position < len(self.blobs) else None

    def size(self) -> int:
        """Bytes of all."""
        return sum(map(getsizeof, self.blobs))


class Reach(NamedTuple):
    """How far to read on from a child.

    Parameters
    ----------
    limit : int
        Most bytes of the values together.
    after, before : bool
        Whether those after it come along, and, where there is room left, those before.
    """

    limit: int
    after: bool = True
    before: bool = True


def reach(last: Window | None, offset: int) -> Reach:
    """How far to read on, by what was read last of the same block.

    Little at first, and twice as much each time that the reading goes on in order: of
    values that are read here and there most of what comes along is for nothing.

    Examples
    --------
    >>> reach(None, 5)
    Reach(limit=16384, after=True, before=True)
    >>> last = Window(4, (b"x" * 30_000,))
    >>> reach(last, 5)
    Reach(limit=60066, after=True, before=False)
    >>> reach(last, 3).after, reach(last, 9).limit
    (False, 16384)
    """
    if last is None:
        return Reach(AT_FIRST)
    limit = min(max(2 * last.size(), AT_FIRST), AHEAD)
    if offset == last.first + len(last.blobs):
        return Reach(limit, before=False)
    if offset == last.first - 1:
        return Reach(limit, after=False)
    return Reach(AT_FIRST)


class ChildValues:
    """Brings values of children home, those beside them along with them.

    Parameters
    ----------
    client : Client
        Client of the cluster.

    Notes
    -----
    Whoever reads a child most often reads the next one then. A task that picked the
    value of each took 11 ms, since what a client submits waits for what it has just
    sent, and waited for a thread where all were busy. So a worker is asked directly,
    for several at once (`reach`). At most `WINDOWS` of these are kept, as bytes: a
    value that is read twice is made twice, and nobody sees what another changed in it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._windows: dict[tuple[int, int], Window] = {}

    def known(self, node: int, start: int, offset: int) -> bytes | None:
        """The pickled value of a child, if it came along with another's.

        Parameters
        ----------
        node, start, offset : int
            The mapped node, the first child of the block, and the place of the child
            among those of the block.
        """
        with self._lock:
            window = self._windows.get((node, start))
        return None if window is None else window.blob(offset)

    def fetch(self, future: Future[Any], node: int, start: int, offset: int) -> Any:
        """Value of one child, from the cluster.

        Parameters
        ----------
        future : Future
            Of the block that the child was in.
        node, start, offset : int
            As for `known`.
        """
        with self._lock:
            last = self._windows.get((node, start))
        found = self._asked(future, node, offset, reach(last, offset))
        if isinstance(found, PlainValue):
            return found.value
        blob = None if found is None else found.blob(offset)
        if found is None or blob is None:
            # Dask knows where it is, or computes it again.
            picked = self._client.submit(_pick, future, node, offset, pure=False)
            return picked.result()
        with self._lock:
            self._windows.pop((node, start), None)
            if found.size() <= AHEAD:
                self._windows[node, start] = found
            while len(self._windows) > WINDOWS:
                del self._windows[next(iter(self._windows))]
        return pickle.loads(blob)

    def _asked(
        self, future: Future[Any], node: int, offset: int, how_far: Reach
    ) -> Window | PlainValue | None:
        """What a worker that has the block answers, `None` if there is none."""
        try:
            holders = self._client.who_has([future]).get(future.key)
            if not holders:
                return None
            told = self._client.run(
                values_near,
                future.key,
                node,
                offset,
                how_far,
                workers=[holders[0]],
                on_error="ignore",
            )
        except OSError:
            return None  # no connection: whoever asks next is told
        found: Window | PlainValue | None = told.get(holders[0])
        return found

    def clear(self) -> None:
        """Let go of what was read ahead."""
        with self._lock:
            self._windows.clear()


async def values_near(
    key: Key, node: int, offset: int, how_far: Reach, dask_worker: Worker
) -> Window | PlainValue | None:
    """Values of a child and of those beside it; runs on the worker that has them.

    Parameters
    ----------
    key : object
        Key of the block.
    node, offset : int
        The mapped node, and the place of the child among those of the block.
    how_far : Reach
        How far to read on from it.
    dask_worker : Worker
        Filled in by Dask.

    Returns
    -------
    Window, PlainValue or None
        The value alone if it is larger than `AHEAD`; `None` if it is not here, or
        cannot be pickled.
    """
    result = dask_worker.data.get(key)
    if not isinstance(result, BlockResult) or node not in result.segments:
        return None
    segment = result.segments[node]
    if not isinstance(segment.values, list):
        return None  # a store has them, and reading it takes time
    if sizeof(segment.values[offset]) > AHEAD:
        return PlainValue(segment.values[offset])
    # The worker goes on meanwhile.
    return await asyncio.to_thread(window_around, segment, offset, how_far)


def window_around(segment: Segment, offset: int, how_far: Reach) -> Window | None:
    """What is sent of a segment when one of its children is asked for.

    Those after it as far as there is room, then those before it.

    Parameters
    ----------
    segment : Segment
        Children of a block, with a list of their values.
    offset : int
        Place of the child.
    how_far : Reach
        How far to read on; the child itself is sent in any case.

    Returns
    -------
    Window or None
        `None` if the value of the child cannot be pickled.

    Examples
    --------
    >>> from prefect_dask_core.states import Completed
    >>> segment = Segment(start=20)
    >>> segment.open(3)
    >>> for offset in range(3):
    ...     segment.put(offset, Completed(data="x" * 100), 1.0, 2.0)
    >>> window = window_around(segment, 1, Reach(400))
    >>> window.first, len(window.blobs)
    (1, 2)
    >>> window_around(segment, 1, Reach(400, after=False)).first
    0
    """
    try:
        asked = dumped(segment.values[offset])
    except Exception:
        return None
    blobs: deque[bytes | None] = deque([asked])
    room = how_far.limit - getsizeof(asked)
    first = offset
    after = range(offset + 1, len(segment)) if how_far.after else ()
    before = range(offset - 1, -1, -1) if how_far.before else ()
    for position in chain(after, before):
        blob = None
        if is_success(segment, position):
            blob = _dumped_within(segment.values[position], room)
            if blob is None:
                break
        room -= getsizeof(blob)
        if position > offset:
            blobs.append(blob)
        else:
            blobs.appendleft(blob)
            first = position
    return Window(first, tuple(blobs))


def _dumped_within(value: Any, room: int) -> bytes | None:
    """A value as bytes, `None` if it takes too much room, or cannot be pickled."""
    if sizeof(value) > room:
        return None  # a large one is not pickled for nothing
    try:
        blob = dumped(value)
    except Exception:
        return None
    return blob if getsizeof(blob) <= room else None


def _pick(result: Any, node: int, offset: int) -> Any:
    """Value of one child; runs where the block's result is."""
    return segment_in(result, node).value(offset)
