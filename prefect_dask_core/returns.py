"""Returns: the state that what a flow function returned means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from prefect_dask_core.annotations import Quote
from prefect_dask_core.engine.summary import counts_of, failures_of
from prefect_dask_core.engine.views import RunView
from prefect_dask_core.future_lists import FutureList, node_of
from prefect_dask_core.futures import Handle, PrefectFuture, child_of
from prefect_dask_core.lineage import AssetRecord
from prefect_dask_core.resolving import with_results
from prefect_dask_core.states import (
    NO_DATA,
    Cancelled,
    Completed,
    Failed,
    Paused,
    State,
    TriggerFailed,
)

#: So many names of runs stand in a message.
NAMES_TOLD: Final = 20


class RunStates(Mapping[str, State]):
    """States of the runs of a flow run, by their names.

    Parameters
    ----------
    states : mapping of str to State
        The states.
    assets : tuple of AssetRecord
        What was done to assets, in the order in which the runs ended.
    view : RunView, optional
        What is shown of the run.

    Examples
    --------
    >>> states = RunStates({"load-0": Completed(), "load-1": Failed("no")})
    >>> states.counts(), states.failures()
    ({'Completed': 1, 'Failed': 1}, [('load-1', Failed('no'))])
    """

    __slots__ = ("_states", "assets", "view")

    def __init__(
        self,
        states: Mapping[str, State],
        assets: tuple[AssetRecord, ...] = (),
        view: RunView | None = None,
    ) -> None:
        self._states = dict(states)
        self.assets = assets
        self.view = view

    def __getitem__(self, name: str) -> State:
        try:
            return self._states[name]
        except KeyError:
            known = ", ".join(list(self._states)[:NAMES_TOLD]) or "none"
            if len(self._states) > NAMES_TOLD:
                known += f" and {len(self._states) - NAMES_TOLD} more"
            raise KeyError(
                f"no run of this flow is called {name!r}, but: {known}."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)

    def counts(self) -> dict[str, int]:
        """Number of task runs by the class of their state; each child is one."""
        return counts_of(self._states.values())

    def failures(self) -> list[tuple[str, State]]:
        """Name and state of each task run that failed or crashed, a child's too.

        Those whose trigger refused them are among them.
        """
        named = self._states.items()
        return [pair for name, state in named for pair in failures_of(name, state)]

    def __reduce__(self) -> tuple[Any, ...]:
        return RunStates, (self._states, self.assets, self.view)


def returned_state(value: Any) -> State:
    """State of a flow run whose function returned a value; waits for futures in it.

    Notes
    -----
    Source of the rules: Prefect 3 and decisions F1 and F2. A state is taken as it is,
    but for that of a mapped run, whose children decide. Futures and states only, alone
    or in a list, tuple or set, decide together. In anything else futures are replaced:
    by their results, or by the state of what did not succeed.

    Examples
    --------
    >>> returned_state(3).result(), returned_state([Completed(data=1)]).result()
    (3, [1])
    >>> returned_state([Completed(data=1), Failed("no")])
    Failed('1 of 2 runs did not succeed: 1 failed.')
    """
    if isinstance(value, State) and not value.is_mapped():
        return value
    if isinstance(value, Quote):
        return Completed(data=value.value)
    if _decides(value):
        return _aggregate(value)
    return Completed(data=with_results(value))


def _decides(value: Any) -> bool:
    if isinstance(value, PrefectFuture | FutureList | State):
        return True
    return (
        isinstance(value, list | tuple | set)
        and bool(value)
        and all(isinstance(i, PrefectFuture | FutureList | State) for i in value)
    )


class _Ended(NamedTuple):
    """A run that decides how the flow ended: a state, and of which node or child."""

    state: State
    handle: Handle | None = None
    number: int | None = None

    @property
    def future(self) -> PrefectFuture[Any] | None:
        """The future of the run; `None` of a state that was returned."""
        return None if self.handle is None else PrefectFuture(self.handle, self.number)

    def told(self) -> str:
        """The run and why it did not succeed, as the end of a message."""
        if self.handle is None:
            return ""
        name = PrefectFuture[Any](self.handle, self.number).name
        above = ""
        if isinstance(self.state, TriggerFailed) and self.state.data is NO_DATA:
            above = self.handle.told_above(self.number)
        return f" {name}: {self.state.message}{above}"

    def error(self) -> Any:
        """What made it fail."""
        return (self.future or self.state).result(raise_on_failure=False)


def _ended(value: Any) -> Iterator[_Ended]:
    if isinstance(value, State):
        states = list(value.states or ()) if value.is_mapped() else [value]
        yield from map(_Ended, states)
    elif isinstance(value, PrefectFuture | FutureList):
        value.wait()
        if isinstance(value, FutureList) and not value.is_single():
            yield from (run for future in value for run in _ended(future))
            return
        state = value.state
        if isinstance(value, FutureList):
            handle, index = node_of(value), None
        else:
            handle, index = child_of(value)
        if state.is_mapped():
            children = enumerate(state.states or ())
            yield from (_Ended(child, handle, number) for number, child in children)
        else:
            yield _Ended(state, handle, index)
    else:
        yield from (run for item in value for run in _ended(item))


def _aggregate(value: Any) -> State:
    runs = list(_ended(value))
    states = [run.state for run in runs]
    bad = [run for run in runs if not run.state.is_successful()]
    if not bad:
        return Completed(data=_results(value), states=states)
    counts = {
        "failed": sum(s.state.is_failed() or s.state.is_crashed() for s in bad),
        "cancelled": sum(s.state.is_cancelled() for s in bad),
        "paused": sum(s.state.is_paused() for s in bad),
    }
    counts["unfinished"] = len(bad) - sum(counts.values())
    told = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
    noun = "run" if len(states) == 1 else "runs"
    message = f"{len(bad)} of {len(states)} {noun} did not succeed: {told}."
    first = next((run for run in bad if run.state.is_final()), None)
    error = None
    if first is not None:
        message += first.told()
        error = first.error()
    if counts["cancelled"]:
        return Cancelled(message, data=error, states=states)
    if counts["paused"]:
        return Paused(message, states=states)
    if error is None:
        return Failed(message, states=states)
    return Failed(message, data=error, states=states)


def _results(value: Any) -> Any:
    """Values in the place of futures and states that have all succeeded."""
    if isinstance(value, PrefectFuture | FutureList | State):
        return value.result()
    found = [
        item.result() if isinstance(item, PrefectFuture | FutureList | State) else item
        for item in value
    ]
    try:
        kind = type(value)
        return kind._make(found) if hasattr(kind, "_make") else kind(found)
    except TypeError:  # a set of what cannot be hashed
        return found
