"""Future lists: futures in a row, of the children of a mapped run or of any runs."""

from __future__ import annotations

import collections
import operator
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

from prefect_dask_core.displays import counts_html, titled_html
from prefect_dask_core.engine.children import Children
from prefect_dask_core.errors import OptionValueError
from prefect_dask_core.futures import (
    Awaitable,
    Handle,
    PrefectFuture,
    end_of,
    left_until,
    until_done,
    wait_all,
)
from prefect_dask_core.runners.own_threads import in_own_thread
from prefect_dask_core.states import State

R = TypeVar("R")


class FutureList(Awaitable, Sequence[PrefectFuture[R]], Generic[R]):
    """Futures in a row: of the children of a mapped run, or of any runs.

    Notes
    -----
    The number of children may be unknown until what they are mapped over has ended:
    ``len``, an index and a loop wait for that, not for the children. Nothing but
    `result` fetches a value.

    Examples
    --------
    >>> from prefect_dask_core import SequentialTaskRunner, flow, task
    >>> @task
    ... def double(x):
    ...     return 2 * x
    >>> @flow(task_runner=SequentialTaskRunner())
    ... def doubled():
    ...     futures = double.map([1, 2, 3])
    ...     return len(futures), futures[-1].result(), futures[:2].result()
    >>> doubled()
    (3, 6, [2, 4])
    """

    __slots__ = ("_futures", "_handle", "_length")

    def __init__(
        self, futures: Iterable[PrefectFuture[R]] = (), handle: Handle | None = None
    ) -> None:
        self._handle = handle
        self._futures = None if handle is not None else list(futures)
        self._length: int | None = None

    def __len__(self) -> int:
        if self._futures is not None:
            return len(self._futures)
        if self._length is None:
            self._length = self._count()
        return self._length

    def _count(self) -> int:
        """Number of children, waited for."""
        handle = self._handle
        assert handle is not None
        handle.session.wait_child(handle.node, None)
        found = handle.session.child_count(handle.node)
        if found is not None:
            return found
        # It ended without children, for a reason that its state tells.
        ended = handle.note(handle.session.state(handle.node))
        if not ended.is_successful():
            raise handle.error(ended)
        return 0

    @overload
    def __getitem__(self, index: int) -> PrefectFuture[R]: ...

    @overload
    def __getitem__(self, index: slice) -> FutureList[R]: ...

    def __getitem__(self, index: int | slice) -> PrefectFuture[R] | FutureList[R]:
        if isinstance(index, slice):
            return FutureList(self[i] for i in range(*index.indices(len(self))))
        try:
            index = operator.index(index)
        except TypeError:
            raise TypeError(
                f"{self!r} is read by an int or a slice, not by {index!r}; its values "
                "are those of .result()."
            ) from None
        if self._futures is not None:
            return self._futures[index]
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"future {index} of {self!r}, which has {length}.")
        assert self._handle is not None
        return PrefectFuture(self._handle, index % length)

    def __iter__(self) -> Iterator[PrefectFuture[R]]:
        return (self[index] for index in range(len(self)))

    def __add__(self, other: Iterable[PrefectFuture[R]]) -> FutureList[R]:
        if not isinstance(other, FutureList | list | tuple):
            return NotImplemented
        return FutureList([*self, *other])

    @property
    def state(self) -> State:
        """State of the mapped run, with those of its children; made when looked at."""
        handle = self._handle
        if handle is None:
            raise AttributeError("futures of several runs have no common state.")
        found = handle.session.state(handle.node)
        return handle.note(found)

    def is_single(self) -> bool:
        """Whether these are the children of one mapped run."""
        return self._handle is not None

    @property
    def states(self) -> Sequence[State]:
        """State of each at this moment."""
        if self._handle is not None:
            found = self.state.states
            if isinstance(found, Sequence):
                return found
        return [future.state for future in self]

    def progress(self) -> dict[str, int]:
        """How many are in a state of which name; fetches no value.

        Examples
        --------
        >>> FutureList([]).progress()
        {}
        """
        found = self.states
        if isinstance(found, Children):
            return found.counts()
        return dict(collections.Counter(type(state).__name__ for state in found))

    def wait_until(self, end: float | None) -> bool:
        """Wait until a moment of `time.monotonic`; whether all have ended."""
        if self._handle is not None:
            return self._handle.session.wait([self._handle.node], left_until(end))
        assert self._futures is not None
        return wait_all(self._futures, end)

    def result(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> list[Any]:
        """Values of all, in order, waited for.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.
        raise_on_failure : bool
            Whether the exception of the first that did not succeed is raised; else it
            stands in the place of its value.

        Returns
        -------
        list
            One value per run. Of a mapped run that failed before it had children, the
            exception alone, unless it is raised.

        Raises
        ------
        TimeoutError
            If they have not all ended in time.
        """
        if timeout is not None and timeout < 0:
            raise OptionValueError(f"timeout={timeout!r}, but it cannot be negative.")
        if not self.wait_until(end_of(timeout)):
            raise TimeoutError(f"{self!r}: not all ended within {timeout} seconds.")
        if self._futures is not None:
            return [f.result(raise_on_failure=raise_on_failure) for f in self._futures]
        handle = self._handle
        assert handle is not None
        found = handle.note(handle.session.state(handle.node))
        if not found.is_mapped():
            return self._without_children(handle, found, raise_on_failure)
        if raise_on_failure:
            for index, child in enumerate(found.states or ()):
                if not child.is_successful():
                    raise handle.error(child, index)
        values: list[Any] = handle.session.value(handle.node)
        return values

    def _without_children(
        self, handle: Handle, ended: State, raise_on_failure: bool
    ) -> list[Any]:
        """What a mapped run has that ended before it had children."""
        if ended.is_successful():
            return []
        error = handle.error(ended)  # it says why
        if raise_on_failure:
            raise error
        return [error]

    def __await__(self) -> Generator[Any, None, list[R]]:
        return self._awaited().__await__()

    async def _awaited(self) -> list[R]:
        if self._handle is not None:
            await until_done(PrefectFuture(self._handle))
        for future in self._futures or ():
            await until_done(future)
        return await in_own_thread(self.result)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FutureList) and self._handle is not None:
            return self._handle is other._handle
        if isinstance(other, FutureList | list):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self._handle is not None:
            return f"<FutureList: children of {self._handle.name}>"
        return f"<FutureList: {len(self)} futures>"

    def _repr_html_(self) -> str:
        # The number of children may be unknown, and a display does not wait for it.
        if self._handle is not None and self.state.states is None:
            return titled_html(self._handle.name, self.state._repr_html_())
        title = f"{len(self)} futures" if self._handle is None else self._handle.name
        return titled_html(title, f"<div>{counts_html(self.progress())}</div>")

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} cannot be pickled: futures belong to the flow run that they "
            "were made in. Give them to .submit or .map as an argument, or send "
            ".result()."
        )


#: Another word for `FutureList`.
PrefectFutureList = FutureList


def node_of(future: PrefectFuture[Any] | FutureList[Any]) -> Handle | None:
    """Node that a future or a mapped list stands for as a whole, if it does."""
    if isinstance(future, FutureList):
        return future._handle
    return future._handle if future._index is None else None
