"""Effects: what a task run asks of its surroundings, and the answers it gets.

The pipeline decides; it never calls user code, waits or reads a clock itself. It
yields one of these records, and whoever runs it sends the answer back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Call:
    """Call user code.

    Parameters
    ----------
    function : callable
        May be a coroutine function.
    args, kwargs
        Its arguments.
    timeout : float, optional
        Seconds after which the call is ended.
    variables : mapping
        Context variables visible to the code.
    log_prints : bool
        Whether what the code prints goes to the logger of its run.
    isasync : bool
        Whether it is a coroutine function, so that others may run meanwhile.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    log_prints: bool = False
    isasync: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Go on at a later time, without holding a worker thread meanwhile.

    Parameters
    ----------
    until : float
        Seconds since the epoch.
    """

    until: float


@dataclass(frozen=True, slots=True)
class Returned:
    """The call returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """The call raised."""

    error: BaseException


class QuickRaised(Raised):
    """A quick call raised.

    Of a class of its own, which no body gets to see: a quick call gives the value of
    the body as it is, and a body may return any value, a `Raised` too.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Overran:
    """The call was ended, because it reached its limit.

    Parameters
    ----------
    timeout : float
        The limit in seconds.
    left_behind : bool
        Whether the code could not be stopped and still runs.
    """

    timeout: float
    left_behind: bool = False


Effect = Call | Wait
Answer = Returned | Raised | Overran | None


class QuickCalls(Protocol):
    """Calls bodies of one step, one after the other, in the calling thread."""

    def __call__(
        self,
        body: Callable[..., Any],
        inputs: dict[str, Any],
        index: int,
        begin: float,
        by_keyword: bool,
    ) -> Any:
        """Value of the body, or `QuickRaised`.

        Parameters
        ----------
        body : callable
            Takes its inputs by keyword, or as one dict.
        inputs : dict
            By parameter.
        index : int
            The child.
        begin : float
            The time now, in seconds since the epoch.
        by_keyword : bool
            How the body takes them.
        """


class AsyncCalls(Protocol):
    """Calls of coroutine functions that run at the same time, for one block."""

    #: Most that are begun before one has to end.
    most: int

    def begin(self, call: Call) -> int:
        """Begin a call; the number under which its answer will come."""

    def ended(self, until: float | None) -> list[tuple[int, Answer]]:
        """Answers that have come; waits for one, at longest until a time."""


class Shell(Protocol):
    """What a runner offers to the blocks it runs."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def call(self, call: Call) -> Answer:
        """Call user code; whatever it raises is an answer."""

    def async_calls(self) -> AsyncCalls | None:
        """What runs coroutines of a block side by side; `None` where they take turns.

        Whoever waits there lends its thread to others.
        """

    def quick_calls(
        self, task: Any, variables: Mapping[str, Any], mapped: bool
    ) -> QuickCalls | None:
        """What calls bodies that need no more than that; `None` if it cannot.

        Parameters
        ----------
        task : Task
            The definition.
        variables : mapping
            Context variables of all runs of the step.
        mapped : bool
            Whether the runs are children.
        """

    def wait(self, until: float) -> None:
        """Wait, and let other work use the thread meanwhile."""
