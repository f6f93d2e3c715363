"""A function flow on a Dask cluster: nodes are added while it runs."""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dask.highlevelgraph import HighLevelGraph
from distributed import Client, Future

from prefect_dask_core.engine.block import BlockReport
from prefect_dask_core.engine.book import all_ended
from prefect_dask_core.engine.events import (
    Added,
    Assignment,
    BlockDone,
    Event,
    Started,
)
from prefect_dask_core.engine.growing import GrowingDriver
from prefect_dask_core.engine.plan import Node
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.errors import (
    UnpicklableTaskError,
)
from prefect_dask_core.runners.dask_run import DaskRun
from prefect_dask_core.runners.fetching import ChildValues
from prefect_dask_core.states import Failed, State
from prefect_dask_core.tasks import Task


class DaskSession(DaskRun):
    """A function flow on a client; see `driven.Engine`."""

    def __init__(
        self,
        client: Client,
        driver: GrowingDriver,
        variables: Mapping[str, Any],
        run_id: str,
        own_client: bool,
        stack: contextlib.ExitStack,
    ) -> None:
        super().__init__(client, driver, variables, run_id, own_client)
        self._stack = stack
        self._hurried = threading.Event()
        self._child_values = ChildValues(client)
        # Held while an event is carried out: what holds values changes in steps.
        self._feeding = threading.RLock()

    def post(self, event: Event) -> None:
        """Put an event beside the reports of the workers."""
        self._messages.put(event)

    def hurry(self) -> None:
        """Gather no more."""
        self._hurried.set()

    def _rest(self, seconds: float) -> None:
        self._hurried.wait(seconds)
        self._hurried.clear()

    def prepare(self, task: Task[..., Any]) -> None:
        """Pickle the definition, and ask the workers for a place that it needs."""
        self._builder.packer.pack_task(task)
        if self._note_place(task):
            self._workforce.threads()

    def drive(self, told: Callable[[], None]) -> None:
        """Feed events until the driver has finished."""
        self._client.subscribe_topic(self._topic, self._messages.put)
        self._teller.began(self._driver)
        self._feed(Started(self._workforce.threads()))
        while not self._driver.finished:
            self._step()
            told()
        if self._client.status == "running":
            self._bring_home()

    def _next_events(self) -> Iterator[Event]:
        """Events, those of nodes that were added one after the other as one."""
        added: list[Node] = []
        for event in super()._next_events():
            if isinstance(event, Added):
                added.extend(event.nodes)
                continue
            if added:
                yield Added(tuple(added))
                added = []
            yield event
        if added:
            yield Added(tuple(added))

    def _feed(self, event: Event) -> None:
        with self._feeding:
            super()._feed(event)
        if isinstance(event, Added):
            self._teller.added(event.nodes, self._driver)

    def _graph(self, assignments: Sequence[Assignment]) -> HighLevelGraph:
        try:
            return super()._graph(assignments)
        except UnpicklableTaskError:
            return super()._graph([self._sendable(one) for one in assignments])

    def _sendable(self, assignment: Assignment) -> Assignment:
        """A block, or one that has failed in the place of one that cannot travel."""
        try:
            self._builder.add(assignment, {}, {})
            return assignment
        except UnpicklableTaskError as error:
            block = assignment.block
            failed = Failed(str(error), data=error, timestamp=time.time())
            given = {
                step.node: all_ended(block.start, block.stop, failed)
                for step in block.steps
            }
            done = block.stop - block.start
            self.post(BlockDone(BlockReport(block.number, given, done, 0.0)))
            return Assignment(block, (), given)

    def value(self, node: int, index: int | None) -> Any:
        """Value of a node, or of one child, which brings some beside it along."""
        if index is None:
            for segment in self._driver.segments(node):
                if segment.values is None:
                    segment.values = self._elsewhere(node, segment)
            return self._driver.state(node).result()
        children = self._driver.children(node)
        assert children is not None
        found = children.locate(index)
        if found is None or found[0].values is not None:
            return children[index].result()
        return self._value_of_child(node, *found)

    def _value_of_child(self, node: int, segment: Segment, offset: int) -> Any:
        blob = self._child_values.known(node, segment.start, offset)
        if blob is not None:
            return pickle.loads(blob)
        while future := self._holder(node, segment.start):
            try:
                return self._child_values.fetch(future, node, segment.start, offset)
            except Exception:
                # Its block may have been run anew meanwhile.
                if self._holder(node, segment.start) is future:
                    raise
        return segment.state(offset).result()

    def _holder(self, node: int, start: int) -> Future[Any] | None:
        with self._feeding:
            return super()._holder(node, start)

    def close(self, outcome: State | None = None) -> None:
        """Forget the run; on a client of the user's what is kept stays readable."""
        self._child_values.clear()
        self._clean_up(outcome)
        self._stack.close()
