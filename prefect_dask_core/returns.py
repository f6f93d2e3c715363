"""Returns: the state that what a flow function returned means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prefect_dask_core.annotations import Quote
from prefect_dask_core.engine.views import RunView
from prefect_dask_core.futures import FutureList, PrefectFuture
from prefect_dask_core.lineage import AssetRecord
from prefect_dask_core.scopes import with_results
from prefect_dask_core.states import Cancelled, Completed, Failed, Paused, State


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
            known = ", ".join(self._states) or "none"
            raise KeyError(
                f"no run of this flow is called {name!r}, but: {known}."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)

    def __reduce__(self) -> tuple[Any, ...]:
        return RunStates, (self._states, self.assets, self.view)


def returned_state(value: Any) -> State:
    """State of a flow run whose function returned a value; waits for futures in it.

    Notes
    -----
    Source of the rules: Prefect 3 and decisions F1 and F2. A state is taken as it is.
    Futures and states only, alone or in a list, tuple or set, decide together. In
    anything else they are replaced: by their results, or by the state of what did not
    succeed.

    Examples
    --------
    >>> returned_state(3).result(), returned_state([Completed(data=1)]).result()
    (3, [1])
    >>> returned_state([Completed(data=1), Failed("no")])
    Failed('1 of 2 runs did not succeed: 1 failed.')
    """
    if isinstance(value, State):
        return value
    if isinstance(value, Quote):
        return Completed(data=value.value)
    if _decides(value):
        return _aggregate(value)
    return Completed(data=with_results(value))


def _decides(value: Any) -> bool:
    if isinstance(value, PrefectFuture | FutureList):
        return True
    return (
        isinstance(value, list | tuple | set)
        and bool(value)
        and all(isinstance(i, PrefectFuture | FutureList | State) for i in value)
    )


def _states_of(value: Any) -> list[State]:
    if isinstance(value, State):
        return [value]
    if isinstance(value, FutureList):
        value.wait()
        if value.is_single() and not value.state.is_mapped():
            return [value.state]
        return list(value.states)
    if isinstance(value, PrefectFuture):
        value.wait()
        state = value.state
        return list(state.states or ()) if state.is_mapped() else [state]
    return [state for item in value for state in _states_of(item)]


def _aggregate(value: Any) -> State:
    states = _states_of(value)
    bad = [state for state in states if not state.is_successful()]
    if not bad:
        return Completed(data=_results(value), states=states)
    counts = {
        "failed": sum(s.is_failed() or s.is_crashed() for s in bad),
        "cancelled": sum(s.is_cancelled() for s in bad),
        "paused": sum(s.is_paused() for s in bad),
    }
    counts["unfinished"] = len(bad) - sum(counts.values())
    told = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
    runs = "run" if len(states) == 1 else "runs"
    message = f"{len(bad)} of {len(states)} {runs} did not succeed: {told}."
    ended = [state for state in bad if state.is_final()]
    first = ended[0].result(raise_on_failure=False) if ended else None
    if counts["cancelled"]:
        return Cancelled(message, data=first, states=states)
    if counts["paused"]:
        return Paused(message, states=states)
    if first is None:
        return Failed(message, states=states)
    return Failed(message, data=first, states=states)


def _results(value: Any) -> Any:
    """Values in the place of futures and states that have all succeeded."""
    if isinstance(value, PrefectFuture | FutureList):
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
