"""Open steps: steps whose inputs are ready, and the segments they fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from prefect_dask_core.engine.block import Block, Step
from prefect_dask_core.engine.caching import within
from prefect_dask_core.engine.effects import Shell
from prefect_dask_core.engine.opening import open_feed
from prefect_dask_core.engine.quick import QuickStep, is_quick, quick_step
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.tallies import sum_tallies
from prefect_dask_core.engine.task_run import TaskRun
from prefect_dask_core.results.keeping import KEEPING, STAGED_IN
from prefect_dask_core.results.kept import KeptValues, StoredValues
from prefect_dask_core.results.places import own_prefix
from prefect_dask_core.results.store import ResultStore
from prefect_dask_core.run_ids import run_name
from prefect_dask_core.states import Completed, Failed, State


class OpenStep:
    """A step whose inputs are ready, and the segment it fills."""

    def __init__(
        self,
        step: Step,
        block: Block,
        arguments: Sequence[Any],
        segments: dict[int, Segment],
        variables: Mapping[str, Any],
        shell: Shell,
    ) -> None:
        self.step = step
        self.now = shell.now
        self.feeds = [
            (item, open_feed(item, arguments, segments, step.mapped))
            for item in step.inputs
        ]
        self.segment = segments[step.node] = Segment(block.start)
        self.segment.open(block.stop - block.start)
        fixed = [
            tally
            for _, feed in self.feeds
            if feed.constant_tally and (tally := feed.tally(block.start)) is not None
        ]
        self.base = sum_tallies(fixed)
        self.changing = [feed for _, feed in self.feeds if not feed.constant_tally]
        self.keyed = [(i.key, feed) for i, feed in self.feeds if i.key is not None]
        self._is_iterated_over = step.measured or step.flattened
        task = step.task
        self.variables: dict[str, Any] = {
            **variables,
            **step.variables,
            "task_name": task.name,
            "task_slug": step.slug,
            "task_tags": task.tags,
        }
        self.options, self.keeper = within(task, self.variables.get(KEEPING))
        as_declared = self.options is task.options and self.keeper is None
        if self.keeper is not None and self.keeper.store is not None:
            self._prepare_keeping(self.keeper.store, block.stop - block.start)
        self.quick: QuickStep | None = None
        plain = not step.paused and step.refusal is None
        if plain and as_declared and is_quick(task):
            calls = shell.quick_calls(task, self.variables, step.mapped)
            self.quick = quick_step(
                task,
                self.keyed,
                self.changing,
                self.base,
                self.segment,
                calls,
                self._is_iterated_over,
            )

    def _prepare_keeping(self, store: ResultStore, count: int) -> None:
        """Let the segment know where values are that are in the store."""
        assert self.keeper is not None
        segment = self.segment
        start = segment.start if self.step.mapped else None
        staged_in = self.variables.get(STAGED_IN)
        prefix = own_prefix(self.variables)
        segment.kept = KeptValues(store, prefix, start, staged_in)
        if not self.keeper.in_memory:
            segment.values = StoredValues(segment.kept, count)

    def begin(self, index: int) -> TaskRun:
        """The task run of one child, or of a plain node."""
        tally = self.base
        for feed in self.changing:
            more = feed.tally(index)
            if more is not None:
                tally = tally + more
        mapped = self.step.mapped
        number = index if mapped else None
        name = run_name(self.variables, self.step.task.name, number)
        variables = {
            **self.variables,
            "map_index": number,
            "task_full_name": name,
        }
        pause = self.step.paused.get(index)
        if pause is not None:
            variables["resume"] = True
            variables["is_waiting"] = pause == "Waiting"
        return TaskRun(
            task=self.step.task,
            name=name,
            tally=tally,
            upstream=partial(self._upstream, index),
            inputs=partial(self._inputs, index),
            variables=variables,
            now=self.now,
            refusal=self.step.refusal,
            resumed=pause is not None,
            settings=self.options,
            keeper=self.keeper,
        )

    def _inputs(self, index: int) -> dict[str, Any]:
        return {key: feed.value(index) for key, feed in self.keyed}

    def _upstream(self, index: int) -> dict[Any, State]:
        """States above, by edge, a fan-out's by edge and index."""
        found: dict[Any, State] = {}
        for item, feed in self.feeds:
            key = item.edge if item.edge is not None else item.name
            for number, state in feed.states(index):
                found[key if number is None else (key, number)] = state
        return found

    def put(self, run: TaskRun, index: int, state: State) -> None:
        """Record the end of a run.

        Others may iterate over what they map over before those read it that come later:
        what can be iterated over only once becomes a list, before anybody has it.
        """
        if self._is_iterated_over:
            state = _with_list(state)
        offset = index - self.segment.start
        made = run.attempts_made
        self.segment.put(offset, state, run.begin, run.end, made, run.waits)
        if run.kept is not None and isinstance(state, Completed):
            assert self.keeper is not None
            self.segment.keep(offset, run.kept, self.keeper.in_memory)


def _with_list(state: State) -> State:
    """A state whose value can be iterated over again and again."""
    data = state.data
    if not state.is_successful() or not hasattr(data, "__next__"):
        return state
    try:
        return state.replace(data=list(data))
    except Exception as error:  # iterating over a value may run any code of the user's
        message = f"its value cannot be iterated over: {error!r}"
        return Failed(message, data=error, timestamp=state.timestamp)
