"""States: what is known of a task run or a flow run at one moment.

A state is a value: frozen, small and picklable. Its class says what happened in the
words of the graph generations (`Skipped`, `TriggerFailed`), its `type` says it in the
words of the function generations (`StateType.COMPLETED`).
"""

from __future__ import annotations

import enum
import html
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, NamedTuple

from prefect_dask_core.errors import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    MissingResult,
    PausedRun,
    ReportError,
    RunError,
    UnfinishedRun,
)


class StateType(str, enum.Enum):
    """The kinds of states of the function generations."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    CANCELLED = "CANCELLED"
    CANCELLING = "CANCELLING"
    PAUSED = "PAUSED"


class _NoData(enum.Enum):
    """The type of `NO_DATA`; an enum, so that it stays one object when pickled."""

    NO_DATA = "NO_DATA"

    def __repr__(self) -> str:
        return "NO_DATA"


#: The data of a state that carries none. `None` is a value a task may well return.
NO_DATA: Final = _NoData.NO_DATA


class DataReference:
    """Data of a state that lives elsewhere, and how to get it.

    Subclasses belong to the layer that knows the place: a runner, a store.
    """

    __slots__ = ()

    def load(self) -> Any:
        """Fetch the value.

        Raises
        ------
        MissingResult
            If the place is gone or never held the value; the message says which
            option would have kept it.
        """
        raise MissingResult(f"{self!r} cannot be loaded")


class Missing(DataReference):
    """Data that was not kept, with the advice what would have kept it."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"Missing({self.reason!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Missing) and other.reason == self.reason

    def __hash__(self) -> int:
        return hash(self.reason)

    def load(self) -> Any:
        """Raise `MissingResult` with the reason."""
        raise MissingResult(self.reason)


class RunFacts(NamedTuple):
    """How a run came to its state.

    Parameters
    ----------
    attempts : int
        Attempts at the run, each a call of the body; 0 of a run whose body was not
        called, as one that its trigger refused or whose value was in a cache, and
        where no worker told of any, as after a crash. What a resumed run keeps has
        those that it had.
    begin, end : float, optional
        When the first attempt began and the run ended, in seconds since the epoch;
        `None` where that is not known. A run that never began has an end alone.
    worker : str, optional
        Address of the Dask worker that ran it last; `None` without a cluster.
    """

    attempts: int
    begin: float | None
    end: float | None
    worker: str | None

    @property
    def seconds(self) -> float | None:
        """Seconds from begin to end, waits for further attempts included.

        `None` unless both are known.
        """
        if self.begin is None or self.end is None:
            return None
        return self.end - self.begin


#: Names of states whose runs mostly called no body; those of others mostly did once.
_UNTRIED: Final = frozenset({"Cached", "TriggerFailed"})


def usual_attempts(name: str) -> int:
    """Attempts of a run by the name of its state's class, unless others are noted.

    Of a million runs that are refused, or taken from a store, none needs a note.

    Examples
    --------
    >>> usual_attempts("Failed"), usual_attempts("TriggerFailed")
    (1, 0)
    """
    return 0 if name in _UNTRIED else 1


class State:
    """What is known of a run.

    Parameters
    ----------
    message : str, optional
        One line for people.
    data : object, optional
        The value of a successful run, the exception of a failed one, or a
        `DataReference` to either.
    result : object, optional
        Older spelling of `data`.
    name : str, optional
        Name shown to people; the name of the class unless given.
    timestamp : float, optional
        Seconds since the epoch at which the run entered the state.
    states : mapping or sequence of State, optional
        The states below this one: of the tasks of a flow run (by task), or of the
        children of a mapped task (by index). ``state[key]`` reads them.

    Attributes
    ----------
    run : RunFacts or None
        Attempts, begin, end and worker of the run that ended in this state, as a runner
        tells them: ``state[task][7].run.worker``. `None` of a flow run, of a mapped
        task as a whole, and of a state that somebody made.

    Examples
    --------
    >>> done = Completed("all good", data=3)
    >>> done.is_successful(), done.type.value, done.result()
    (True, 'COMPLETED', 3)
    >>> Skipped("not today").is_successful()
    True
    """

    __slots__ = ("_frames", "data", "message", "name", "run", "states", "timestamp")

    type: ClassVar[StateType] = StateType.PENDING
    #: Colour of the state in every picture (from a colour-blind safe palette).
    color: ClassVar[str] = "#9aa5b1"

    message: str | None
    data: Any
    name: str
    timestamp: float | None
    states: Mapping[Any, State] | Sequence[State] | None
    run: RunFacts | None
    _frames: TracebackType | None

    def __init__(
        self,
        message: str | None = None,
        data: Any = NO_DATA,
        *,
        result: Any = NO_DATA,
        name: str | None = None,
        timestamp: float | None = None,
        states: Mapping[Any, State] | Sequence[State] | None = None,
    ) -> None:
        if result is not NO_DATA:
            if data is not NO_DATA:
                raise TypeError(
                    f"{type(self).__name__} was given both data= and result=, which "
                    "are two spellings of one argument; give data= only."
                )
            data = result
        put = object.__setattr__
        put(self, "message", message)
        put(self, "data", data)
        put(self, "name", name or type(self).__name__)
        put(self, "timestamp", timestamp)
        put(self, "states", states)
        put(self, "run", None)
        put(self, "_frames", _frames_of(data))

    # -- a value ----------------------------------------------------------------

    def __setattr__(self, attribute: str, value: Any) -> None:
        raise AttributeError(
            f"a state cannot be changed; {attribute!r} can be given to "
            "state.replace(...), which returns a new state."
        )

    def __delattr__(self, attribute: str) -> None:
        raise AttributeError(f"a state cannot be changed; {attribute!r} stays.")

    @classmethod
    def _fields(cls) -> tuple[str, ...]:
        """Names of all fields, those of parent classes first."""
        names: list[str] = []
        for klass in reversed(cls.__mro__):
            names.extend(vars(klass).get("__slots__", ()))
        names.remove("_frames")  # worked out from the data
        return tuple(names)

    def replace(self, **changes: Any) -> State:
        """A copy of the state in which some fields differ.

        Examples
        --------
        >>> Failed("no").replace(message="still no")
        Failed('still no')
        """
        if "result" in changes:
            changes["data"] = changes.pop("result")
        unknown = sorted(set(changes) - set(self._fields()))
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no field {unknown[0]!r}; its fields are "
                f"{', '.join(n for n in self._fields() if n[0] != '_')}."
            )
        copy = object.__new__(type(self))
        for field in self._fields():
            value = changes.get(field, getattr(self, field))
            object.__setattr__(copy, field, value)
        frames = self._frames if copy.data is self.data else _frames_of(copy.data)
        object.__setattr__(copy, "_frames", frames)
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (
            type(self),
            tuple(getattr(self, field) for field in self._fields()),
        )

    def __eq__(self, other: object) -> bool:
        """Same class, name and data; messages, times and facts do not count."""
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, State)
        ignored = {"message", "timestamp", "states", "run", "_above"}
        return all(
            _same(getattr(self, field), getattr(other, field))
            for field in self._fields()
            if field not in ignored
        )

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    def __repr__(self) -> str:
        label = type(self).__name__
        if self.name != label:
            label = f"{label}[{self.name}]"
        return f"{label}({self.message!r})" if self.message else f"{label}()"

    def _repr_html_(self) -> str:
        below: Any = getattr(self.states, "view", None) or self.states
        show = getattr(below, "_repr_html_", None)
        told = "" if not self.message else f" {html.escape(self.message)}"
        head = (
            f'<div><span style="background:{self.color};display:inline-block;'
            "width:0.8em;height:0.8em;border-radius:2px;border:1px solid #7d8894;"
            f'margin-right:0.4em"></span><b>{html.escape(self.name)}</b>{told}</div>'
        )
        if show is None:
            return head
        # A flow run names its state itself.
        found: str = show()
        return head + found if below is self.states else found

    def report(self, path: str | os.PathLike[str] = "report.html") -> Path:
        """Write one page of HTML about the flow run that ended in this state.

        The page has a summary, timelines, the graph, durations, failures with their
        tracebacks, and what was logged. It needs no network and no cluster.

        Parameters
        ----------
        path : str or path, optional
            The file; what stands there is replaced.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ReportError
            If this is not the state of a flow run.
        """
        view = getattr(self.states, "view", None)
        if view is None:
            raise ReportError(
                f"{self!r} is not the state of a flow run, so there is no run to "
                "report; use what flow.run(...) or a flow with return_state=True "
                "returned."
            )
        found: Path = view.report(path)
        return found

    # -- the states below -------------------------------------------------------

    def __getitem__(self, key: Any) -> State:
        if self.states is None:
            raise TypeError(
                f"{self!r} has no states below it: only the state of a flow run "
                "(by task) and of a mapped task (by index) can be indexed."
            )
        return self.states[key]

    def __len__(self) -> int:
        return 0 if self.states is None else len(self.states)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.states or ())

    def __bool__(self) -> bool:
        return True

    @property
    def run_id(self) -> str | None:
        """Id of the flow run that ended in this state; `None` of any other state.

        It is the one that ``resume=`` takes, and that a ledger has.
        """
        view = getattr(self.states, "view", None)
        return None if view is None else str(view.info.run_id)

    @property
    def map_states(self) -> Sequence[State] | None:
        """States of the children of a mapped task, one per child, in index order."""
        return None if isinstance(self.states, Mapping) else self.states

    @property
    def assets(self) -> tuple[Any, ...]:
        """What a flow run did to assets: records with asset, event, run, upstream."""
        return tuple(getattr(self.states, "assets", ()))

    # -- predicates of all generations ------------------------------------------

    def is_pending(self) -> bool:
        """Whether the run has not begun."""
        return isinstance(self, Pending)

    def is_scheduled(self) -> bool:
        """Whether the run waits for a time, a slot or a person."""
        return isinstance(self, Scheduled | Queued)

    def is_submitted(self) -> bool:
        """Whether the run was handed to a runner and has not begun."""
        return isinstance(self, Submitted)

    def is_queued(self) -> bool:
        """Whether the run waits for a slot of a limit."""
        return isinstance(self, Queued)

    def is_paused(self) -> bool:
        """Whether the run waits for somebody to resume it."""
        return self.type is StateType.PAUSED

    def is_retrying(self) -> bool:
        """Whether the run waits for, or is in, an attempt after the first."""
        return isinstance(self, AwaitingRetry | Retrying)

    def is_running(self) -> bool:
        """Whether the body is running."""
        return isinstance(self, Running)

    def is_cancelling(self) -> bool:
        """Whether the run was asked to stop and has not stopped yet."""
        return self.type is StateType.CANCELLING

    def is_finished(self) -> bool:
        """Whether the run came to an end, including one pass of a loop."""
        return isinstance(self, Finished)

    def is_final(self) -> bool:
        """Whether the run ended for good."""
        return isinstance(self, Finished) and not isinstance(self, Looped)

    def is_looped(self) -> bool:
        """Whether one pass of a loop ended."""
        return isinstance(self, Looped)

    def is_successful(self) -> bool:
        """Whether the run completed; a skipped one did."""
        return isinstance(self, Completed)

    def is_completed(self) -> bool:
        """Whether the run completed; a skipped one did."""
        return isinstance(self, Completed)

    def is_cached(self) -> bool:
        """Whether the value was taken from an earlier run."""
        return isinstance(self, Cached)

    def is_mapped(self) -> bool:
        """Whether the run is the parent of children."""
        return isinstance(self, Mapped)

    def is_skipped(self) -> bool:
        """Whether the run was skipped, by itself or from upstream."""
        return isinstance(self, Skipped)

    def is_failed(self) -> bool:
        """Whether the run failed by its own code; see also `is_crashed`."""
        return isinstance(self, Failed)

    def is_crashed(self) -> bool:
        """Whether the infrastructure under the run died."""
        return isinstance(self, Crashed)

    def is_cancelled(self) -> bool:
        """Whether the run was stopped on request."""
        return isinstance(self, Cancelled)

    def is_meta_state(self) -> bool:
        """Whether the state says where a run is kept rather than how it goes."""
        return isinstance(self, Submitted | Queued)

    # -- classes ----------------------------------------------------------------

    @classmethod
    def children(
        cls, include_self: bool = False, names_only: bool = False
    ) -> list[Any]:
        """All classes below this one, depth first."""
        found: list[Any] = [cls] if include_self else []
        for child in cls.__subclasses__():
            found.extend(child.children(include_self=True))
        return [klass.__name__ for klass in found] if names_only else found

    @classmethod
    def parents(cls, include_self: bool = False, names_only: bool = False) -> list[Any]:
        """All state classes above this one, nearest first."""
        found = [klass for klass in cls.__mro__ if issubclass(klass, State)]
        found = found if include_self else found[1:]
        return [klass.__name__ for klass in found] if names_only else found

    # -- result -----------------------------------------------------------------

    def result(self, raise_on_failure: bool = True) -> Any:
        """Value of the run.

        Parameters
        ----------
        raise_on_failure : bool
            Whether the exception of an unsuccessful run is raised or returned.

        Returns
        -------
        object
            The value; for a mapped task a list, one item per child, where an
            unsuccessful child stands as its exception; for a skipped run `None`
            unless the skip carried data.

        Raises
        ------
        UnfinishedRun, PausedRun
            If the run has not ended.
        MissingResult
            If the run completed and its value is out of reach.
        Exception
            The exception of an unsuccessful run, or `FailedRun`, `CrashedRun`,
            `CancelledRun` if it has none.
        """
        if self.is_paused():
            raise PausedRun(f"the run is paused: {self!r}; resume it first.")
        if not self.is_final():
            raise UnfinishedRun(f"the run has not finished: {self!r}.")
        if isinstance(self, Mapped):
            return [child.result(raise_on_failure=False) for child in self]
        if self.is_successful():
            return self._value(_loaded(self.data))
        try:
            error = self._error(_loaded(self.data))
        except MissingResult:
            error = self._error(NO_DATA)  # the message still says what happened
        if raise_on_failure:
            # Else each look would add its own frames to those of the run.
            holder: State = self
            while isinstance(holder.data, State):
                holder = holder.data
            if error is holder.data:
                error = error.with_traceback(holder._frames)
            raise error
        return error

    @property
    def frames(self) -> TracebackType | None:
        """Traceback of the exception in `data`, as it was when the state was made.

        What raises the exception again, as `result` does, adds frames of its own to
        the traceback of the exception itself.
        """
        return self._frames

    def _value(self, data: Any) -> Any:
        if data is not NO_DATA:
            return data
        if self.is_skipped():
            return None
        raise MissingResult(f"{self!r} carries no data.")

    def _error(self, data: Any) -> BaseException:
        if isinstance(data, BaseException):
            return data
        if isinstance(data, State):
            return data._error(data.data)
        kind: type[RunError] = CancelledRun
        if isinstance(self, Failed):
            kind = FailedRun
        elif isinstance(self, Crashed):
            kind = CrashedRun
        said = data if isinstance(data, str) else self.message
        return kind(said or f"the run ended as {self!r}.")


def _loaded(data: Any) -> Any:
    return data.load() if isinstance(data, DataReference) else data


def _frames_of(data: Any) -> TracebackType | None:
    return data.__traceback__ if isinstance(data, BaseException) else None


def _restore(cls: type[State], values: tuple[Any, ...]) -> State:
    """Make a state from the values of its fields, as unpickling does."""
    state = object.__new__(cls)
    for field, value in zip(cls._fields(), values, strict=True):
        object.__setattr__(state, field, value)
    object.__setattr__(state, "_frames", _frames_of(state.data))
    return state


def _same(left: Any, right: Any) -> bool:
    """Whether two data are equal; arrays, whose ``==`` is no bool, by identity."""
    if left is right:
        return True
    if isinstance(left, BaseException) and isinstance(right, BaseException):
        return type(left) is type(right) and _same(left.args, right.args)
    try:
        return bool(left == right)
    except Exception:  # a user's type may refuse the question in any way
        return False


# -- not begun ---------------------------------------------------------------------


class Pending(State):
    """Not begun."""

    __slots__ = ()
    type = StateType.PENDING


class Submitted(Pending):
    """Handed to a runner, not begun."""

    __slots__ = ()


class Queued(Pending):
    """Waiting for a slot of a limit."""

    __slots__ = ()
    type = StateType.SCHEDULED


class Scheduled(Pending):
    """Waiting for a time.

    Parameters
    ----------
    start_time : float, optional
        Seconds since the epoch at which the run may begin; `None`: no time is known.
    """

    __slots__ = ("start_time",)
    type = StateType.SCHEDULED
    start_time: float | None

    def __init__(
        self,
        message: str | None = None,
        data: Any = NO_DATA,
        *,
        start_time: float | None = None,
        **common: Any,
    ) -> None:
        super().__init__(message, data, **common)
        object.__setattr__(self, "start_time", start_time)


class Resume(Scheduled):
    """Resumed after a pause, to begin again."""

    __slots__ = ()


class Paused(Scheduled):
    """Waiting for somebody to resume it."""

    __slots__ = ()
    type = StateType.PAUSED
    color = "#cc79a7"


class AwaitingRetry(Scheduled):
    """Failed, and waiting for the next attempt.

    Parameters
    ----------
    run_count : int
        Attempts made so far.
    """

    __slots__ = ("run_count",)
    color = "#e69f00"
    run_count: int

    def __init__(
        self,
        message: str | None = None,
        data: Any = NO_DATA,
        *,
        run_count: int = 1,
        **common: Any,
    ) -> None:
        super().__init__(message, data, **common)
        object.__setattr__(self, "run_count", run_count)


# -- under way ---------------------------------------------------------------------


class Running(State):
    """The body is running."""

    __slots__ = ()
    type = StateType.RUNNING
    color = "#56b4e9"


class Retrying(Running):
    """The body is running in an attempt after the first."""

    __slots__ = ()
    color = "#e69f00"


class Cancelling(Running):
    """Asked to stop, not stopped yet."""

    __slots__ = ()
    type = StateType.CANCELLING


# -- ended -------------------------------------------------------------------------


class Finished(State):
    """Came to an end; only its subclasses occur."""

    __slots__ = ()
    type = StateType.COMPLETED


class Looped(Finished):
    """One pass of a loop ended; the next follows at once.

    Parameters
    ----------
    loop_count : int
        Passes made so far.
    """

    __slots__ = ("loop_count",)
    loop_count: int

    def __init__(
        self,
        message: str | None = None,
        data: Any = NO_DATA,
        *,
        loop_count: int = 1,
        **common: Any,
    ) -> None:
        super().__init__(message, data, **common)
        object.__setattr__(self, "loop_count", loop_count)


class Completed(Finished):
    """Ended with a value."""

    __slots__ = ()
    color = "#009e73"


class Cached(Completed):
    """Completed with the value of an earlier run.

    Parameters
    ----------
    hashed_inputs : mapping of str to str, optional
        Token of each input of the earlier run (`cache_validators.tokens`).
    cached_parameters : mapping of str to object, optional
        Parameters of the earlier flow run.
    cached_result_expiration : float or datetime, optional
        Seconds since the epoch from which on the value is too old; `None` is never.

    Examples
    --------
    >>> Cached(data=3, cached_result_expiration=60.0).cached_result_expiration
    60.0
    """

    __slots__ = ("cached_parameters", "cached_result_expiration", "hashed_inputs")
    color = "#006d50"
    hashed_inputs: Mapping[str, str] | None
    cached_parameters: Mapping[str, Any] | None
    cached_result_expiration: float | None

    def __init__(
        self,
        message: str | None = None,
        data: Any = NO_DATA,
        *,
        hashed_inputs: Mapping[str, str] | None = None,
        cached_parameters: Mapping[str, Any] | None = None,
        cached_result_expiration: float | datetime | None = None,
        **common: Any,
    ) -> None:
        super().__init__(message, data, **common)
        if isinstance(cached_result_expiration, datetime):
            cached_result_expiration = cached_result_expiration.timestamp()
        put = object.__setattr__
        put(self, "hashed_inputs", hashed_inputs)
        put(self, "cached_parameters", cached_parameters)
        put(self, "cached_result_expiration", cached_result_expiration)


class Materialized(Completed):
    """Completed, with what the body said of its assets.

    Parameters
    ----------
    asset_metadata : mapping of str to mapping
        By the key of an asset.
    """

    __slots__ = ("asset_metadata",)
    asset_metadata: Mapping[str, Mapping[str, Any]]

    def __init__(
        self,
        message: str | None = None,
        data: Any = NO_DATA,
        *,
        asset_metadata: Mapping[str, Mapping[str, Any]] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(message, data, **{"name": "Completed", **common})
        object.__setattr__(self, "asset_metadata", dict(asset_metadata or {}))


class Mapped(Completed):
    """Parent of children, which have a state each.

    The parent completes even where children fail, as in all graph generations; ask
    the children (``state[i]``), or iterate over them.
    """

    __slots__ = ()


class Skipped(Completed):
    """Did not run, by its own wish or because a task above was skipped."""

    __slots__ = ()
    color = "#b8c4bd"


class Failed(Finished):
    """Ended with an exception of the user's code, or refused."""

    __slots__ = ()
    type = StateType.FAILED
    color = "#d55e00"


class TimedOut(Failed):
    """Ran longer than its limit."""

    __slots__ = ()
    color = "#a34700"


class TriggerFailed(Failed):
    """Did not run, because of how the tasks above it ended.

    What ``result()`` raises has the exception of the first failure above as its cause,
    where a runner knows it.
    """

    __slots__ = ("_above",)
    color = "#f0a37a"
    #: Gives what made the first run above fail; set by who knows the runs above.
    _above: Callable[[], BaseException | None] | None

    def __init__(
        self, message: str | None = None, data: Any = NO_DATA, **common: Any
    ) -> None:
        super().__init__(message, data, **common)
        object.__setattr__(self, "_above", None)

    def _error(self, data: Any) -> BaseException:
        error = super()._error(data)
        if self._above is not None and error is not data:
            error.__cause__ = self._above()
        return error


class ValidationFailed(Failed):
    """The value did not pass its validation."""

    __slots__ = ()


class Crashed(Finished):
    """The infrastructure under the run died: a worker, the scheduler, the network."""

    __slots__ = ()
    type = StateType.CRASHED
    color = "#000000"


class Cancelled(Finished):
    """Stopped on request."""

    __slots__ = ()
    type = StateType.CANCELLED
    color = "#6f6f6f"


#: The graph generations' word for `Completed`.
Success = Completed


def counts_as_failure(state: State) -> bool:
    """Whether triggers take the state for a failure: failed or crashed.

    Examples
    --------
    >>> [counts_as_failure(s) for s in (Failed(), Crashed(), Cancelled(), Skipped())]
    [True, True, False, False]
    """
    return isinstance(state, Failed | Crashed)
