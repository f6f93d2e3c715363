"""The sequential session: each node runs when it is added, in the calling thread.

It defines what a session means; those of the other runners have to agree with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from prefect_dask_core.engine.block_results import result_of
from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.plan import Node
from prefect_dask_core.engine.resume import Kept
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.session import Request
from prefect_dask_core.engine.views import Look, WholeLook
from prefect_dask_core.engine.whole import (
    Outcome,
    kept_outcomes,
    measure,
    run_node,
    state_of,
)
from prefect_dask_core.runners.shell import ThreadShell
from prefect_dask_core.states import Cancelled, State


class SequentialSession:
    """Runs what is added at once; see `engine.session.Session`.

    Parameters
    ----------
    variables : mapping of str to object
        Context variables that every run sees.
    run_id : str
        Id of the flow run.
    """

    def __init__(self, variables: Mapping[str, Any], run_id: str) -> None:
        self.run_id = run_id
        self.outcome: State | None = None
        self._variables = variables
        self._shell = ThreadShell()
        self._outcomes: dict[int, list[Outcome]] = {}
        self._nodes: list[Node] = []
        self._cancelled: str | None = None

    def add(self, request: Request) -> int:
        """Run a node to its end and return its number."""
        number = len(self._nodes)
        node = Node(
            number,
            request.name,
            request.task,
            request.task.identity,
            request.inputs,
            request.mapped,
            constant=False,
        )
        self._nodes.append(node)
        if self._cancelled is not None:
            cancelled = Cancelled(self._cancelled, timestamp=time.time())
            self._outcomes[number] = _ended(node, cancelled)
            return number
        for item in request.inputs:
            if item.mapped and item.node is not None:
                for above in self._outcomes[item.node]:
                    measure(above)
        # Until it ends it counts as stopped: a person at the keyboard ends it with an
        # exception, and a flow whose limit passes leaves it behind in its thread.
        stopped = Cancelled("stopped while it ran.", timestamp=time.time())
        self._outcomes[number] = _ended(node, stopped)
        outcome = run_node(
            node,
            self._outcomes,
            {**self._variables, **request.variables},
            self._shell,
            measured=False,
            tolerated=request.tolerated,
        )
        self._outcomes[number] = [outcome._replace(name=request.name)]
        return number

    def look(self) -> Look:
        """What is known of the nodes, for any thread to read."""
        return WholeLook(self._nodes, self._outcomes)

    def state(self, node: int) -> State:
        """Final state of a node."""
        return state_of(self._outcomes[node])

    def wait(self, nodes: Collection[int], timeout: float | None = None) -> bool:
        """Whether all are final, which they are."""
        return True

    def on_final(self, node: int, call: Callable[[], None]) -> None:
        """Call at once."""
        call()

    def wait_child(
        self, node: int, index: int | None, timeout: float | None = None
    ) -> bool:
        """Whether a child has ended, which it has."""
        return True

    def on_child_final(self, node: int, index: int, call: Callable[[], None]) -> None:
        """Call at once."""
        call()

    def child_count(self, node: int) -> int | None:
        """Number of children; `None` for a node that has none."""
        first = self._outcomes[node][0]
        return first.length if first.fanout else None

    def child_state(self, node: int, index: int) -> State:
        """State of a child."""
        outcomes = self._outcomes[node]
        segments = [outcome.result.segments[node] for outcome in outcomes]
        return Children(outcomes[0].length, segments)[index]

    def value(self, node: int, index: int | None = None) -> Any:
        """Value of a node or child."""
        state = self.state(node) if index is None else self.child_state(node, index)
        return state.result()

    def drop(self, node: int) -> None:
        """Forget the value of a node: its readers have all run."""
        self._outcomes[node] = [
            outcome._replace(
                result=result_of({node: outcome.result.segments[node].without_values()})
            )
            for outcome in self._outcomes[node]
        ]

    def cancel(self, reason: str) -> None:
        """Let what is added from now on end as `Cancelled`."""
        self._cancelled = reason

    def close(self) -> Sequence[State]:
        """States of all nodes."""
        return [self.state(node) for node in range(len(self._nodes))]


def _ended(node: Node, state: State) -> list[Outcome]:
    """Outcome of a node that did not run."""
    segment = Segment(0)
    segment.open(1)
    now = state.timestamp or 0.0
    segment.put(0, state, now, now, attempts=0)
    return kept_outcomes(node, Kept((segment,)))
