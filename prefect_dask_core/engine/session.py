"""Sessions: what a running function flow asks of its runner, node by node.

A graph flow is planned as a whole; a function flow adds its nodes while it runs. Both
become the same nodes. The sequential runner's session defines what the methods mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from prefect_dask_core.engine.plan import Input
from prefect_dask_core.engine.views import Look
from prefect_dask_core.states import State
from prefect_dask_core.tasks import Task

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Request(NamedTuple):
    """One node that a running flow adds.

    Parameters
    ----------
    task : Task
        The definition.
    name : str
        Name of the run, such as ``"load-3"``.
    inputs : tuple of Input
        In the order of the call; `Input.node` is the number of an earlier request of
        the same session. What has no key only comes first.
    mapped : bool
        Whether it expands into children.
    variables : mapping of str to object
        Context variables of this run, over those of the flow run.
    tolerated : frozenset of int
        Nodes above that were wrapped in `allow_failure`: the run starts whatever
        became of them, and an unsuccessful one gives its exception as its value.
    annotations : mapping of str to object
        Dask annotations: ``resources``, ``priority``, ``workers``, ``retries``,
        ``allow_other_workers``.
    """

    task: Task
    name: str
    inputs: tuple[Input, ...]
    mapped: bool = False
    variables: Mapping[str, Any] = _NOTHING
    tolerated: frozenset[int] = frozenset()
    annotations: Mapping[str, Any] = _NOTHING


class Session(Protocol):
    """One running function flow, or the scope of a task that submits, on one runner."""

    run_id: str
    #: How the flow ended; set before `close`, for whoever watches the run. `None` if
    #: that is not known: tasks that submit have a session, too.
    outcome: State | None

    def look(self) -> Look:
        """What is known of the nodes, for any thread to read."""

    def add(self, request: Request) -> int:
        """Add a node and return its number; never blocks on a node above."""

    def state(self, node: int) -> State:
        """State of a node: pending or running until it is final.

        That of a mapped node is `Mapped` with the states of its children, which are
        made when somebody looks at them.
        """

    def wait(self, nodes: Collection[int], timeout: float | None = None) -> bool:
        """Wait until all of some nodes are final; whether they are.

        Parameters
        ----------
        nodes : collection of int
            The nodes.
        timeout : float, optional
            The longest wait, in seconds.
        """

    def on_final(self, node: int, call: Callable[[], None]) -> None:
        """Call once a node is final; at once if it is."""

    def child_count(self, node: int) -> int | None:
        """Number of children of a mapped node; `None` while it is not known."""

    def wait_child(
        self, node: int, index: int | None, timeout: float | None = None
    ) -> bool:
        """Wait until a child has ended; whether it has.

        Parameters
        ----------
        node : int
            A mapped node.
        index : int or None
            The child; `None`: wait until the number of children is known.
        timeout : float, optional
            The longest wait, in seconds.
        """

    def on_child_final(self, node: int, index: int, call: Callable[[], None]) -> None:
        """Call once a child has ended; at once if it has."""

    def child_state(self, node: int, index: int) -> State:
        """State of one child of a mapped node."""

    def value(self, node: int, index: int | None = None) -> Any:
        """Value of a final node, or of one child; fetches no more than that."""

    def drop(self, node: int) -> None:
        """Say that nobody holds the future of a node any more.

        Its value may be released as soon as its last reader is final.
        """

    def cancel(self, reason: str) -> None:
        """Start nothing more; unfinished runs end as `Cancelled`."""

    def close(self) -> Sequence[State]:
        """Wait for everything that was added; one state per node (decision F11)."""
