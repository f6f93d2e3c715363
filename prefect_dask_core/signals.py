"""Signals: what a body may raise to end its attempt in a state of its choice.

They derive from `BaseException`, so that `except Exception` in a body does not
swallow them (Prefect 1.x, from 0.15 on).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from prefect_dask_core.states import (
    NO_DATA,
    AwaitingRetry,
    Completed,
    Failed,
    Looped,
    Paused,
    Skipped,
    State,
    TriggerFailed,
    ValidationFailed,
)


class PrefectStateSignal(BaseException):
    """Base of all signals; raise one of its subclasses.

    Parameters
    ----------
    message : str, optional
        Message of the state.
    data : object, optional
        Data of the state; the signal itself unless given.
    result : object, optional
        Older spelling of `data`.
    **fields
        Further fields of the state, such as ``start_time`` of `PAUSE` and `RETRY`
        (seconds since the epoch, or a `datetime.datetime`).

    Examples
    --------
    >>> SUCCESS("found it", data=7).to_state().result()
    7
    >>> FAIL("no such file").to_state()
    Failed('no such file')
    >>> SKIP("nothing to do").to_state().result() is None
    True
    """

    #: Class of the state that the signal gives.
    state_class: ClassVar[type[State]]
    #: Name of the state, where it differs from that of its class.
    state_name: ClassVar[str | None] = None

    def __init__(
        self,
        message: str | None = None,
        data: Any = NO_DATA,
        *,
        result: Any = NO_DATA,
        **fields: Any,
    ) -> None:
        super().__init__(*(() if message is None else (message,)))
        kind = type(self).__name__
        if not hasattr(self, "state_class"):
            raise TypeError(
                f"{kind} gives no state; raise one of the signals FAIL, SUCCESS, "
                "SKIP, RETRY, LOOP, PAUSE, WAIT, or set `state_class`."
            )
        if isinstance(fields.get("start_time"), datetime):
            fields["start_time"] = fields["start_time"].timestamp()
        fields.setdefault("name", self.state_name)
        try:
            # Made at once, so that a wrong field is reported where it was written.
            self._state = self.state_class(message, data, result=result, **fields)
        except TypeError as error:
            hint = ""
            if "duration" in fields and issubclass(self.state_class, Paused):
                hint = "; pause_task(message, duration=...) pauses for a time"
            raise TypeError(
                f"the signal {kind} cannot be made: {error}{hint}"
            ) from None

    @property
    def message(self) -> str | None:
        """Message of the state."""
        return self._state.message

    @property
    def state(self) -> State:
        """The state the signal gives, without a time."""
        return self.to_state()

    def to_state(self, timestamp: float | None = None) -> State:
        """State that a run takes when its body raises the signal.

        Parameters
        ----------
        timestamp : float, optional
            Seconds since the epoch at which the run enters the state.
        """
        state = self._state
        if state.timestamp is None and timestamp is not None:
            state = state.replace(timestamp=timestamp)
        if state.data is NO_DATA:
            state = state.replace(data=self._default_data())
        return state

    def _default_data(self) -> Any:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Without calling __init__, which a subclass may have given other parameters.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(
    cls: type[PrefectStateSignal], args: tuple[Any, ...], values: dict[str, Any]
) -> PrefectStateSignal:
    signal = cls.__new__(cls, *args)
    signal.__dict__.update(values)
    return signal


class FAIL(PrefectStateSignal):
    """The attempt failed; retried like an exception while retries remain."""

    state_class = Failed


class TRIGGERFAIL(FAIL):
    """The trigger of the task refused."""

    state_class = TriggerFailed


class VALIDATIONFAIL(FAIL):
    """The value did not pass its validation."""

    state_class = ValidationFailed


class SUCCESS(PrefectStateSignal):
    """The run is complete; `data` is its value."""

    state_class = Completed


class SKIP(PrefectStateSignal):
    """The run is skipped, and tasks below it skip too unless they say otherwise.

    The value is `None` unless `data` is given.
    """

    state_class = Skipped

    def _default_data(self) -> Any:
        return None


class DONTRUN(SKIP):
    """Older word for `SKIP`."""


class RETRY(PrefectStateSignal):
    """Attempt again, even beyond the retries of the task.

    At once, unless ``start_time=`` says when; the retry delay of the task does not
    count.
    """

    state_class = AwaitingRetry


class LOOP(PrefectStateSignal):
    """Run the body again at once, with `data` as ``context.task_loop_result``."""

    state_class = Looped


class PAUSE(PrefectStateSignal):
    """Pause until somebody resumes the run.

    A ``start_time=`` is a note in the state, of when that is meant to be.
    """

    state_class = Paused


class WAIT(PAUSE):
    """Pause, and let the tasks below wait; resumed with ``context.is_waiting``."""

    state_name = "Waiting"


class ENDRUN(PrefectStateSignal):
    """End the run in a given state, without any retry.

    Parameters
    ----------
    state : State
        The state the run ends in.
    """

    def __init__(self, state: State) -> None:
        if not isinstance(state, State):
            raise TypeError(
                f"ENDRUN takes the state in which the run ends, and got {state!r}; "
                "write for instance ENDRUN(Completed(data=3))."
            )
        BaseException.__init__(
            self, *(() if state.message is None else [state.message])
        )
        self._state = state

    def to_state(self, timestamp: float | None = None) -> State:
        """State that was given, with a time if it had none."""
        if self._state.timestamp is None and timestamp is not None:
            return self._state.replace(timestamp=timestamp)
        return self._state


_SIGNALS: dict[type[State], type[PrefectStateSignal]] = {
    signal.state_class: signal
    for signal in (
        FAIL,
        TRIGGERFAIL,
        VALIDATIONFAIL,
        SUCCESS,
        SKIP,
        RETRY,
        LOOP,
        PAUSE,
    )
}


def signal_from_state(state: State) -> type[PrefectStateSignal]:
    """Class of the signal that gives a state of this kind.

    Raises
    ------
    ValueError
        If no signal gives such a state.

    Examples
    --------
    >>> signal_from_state(Skipped()).__name__, signal_from_state(Failed()).__name__
    ('SKIP', 'FAIL')
    """
    if type(state) is Paused and state.name == WAIT.state_name:
        return WAIT
    try:
        return _SIGNALS[type(state)]
    except KeyError:
        raise ValueError(
            f"no signal gives the state {state!r}; the states with a signal are "
            f"{', '.join(sorted(kind.__name__ for kind in _SIGNALS))}."
        ) from None
