"""Random flows, and what became of a run in a form that can be compared."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from hypothesis import strategies as st

from prefect_dask_core import Flow, Task, context, unmapped
from prefect_dask_core.edges import Annotation
from prefect_dask_core.errors import MissingResult
from prefect_dask_core.signals import FAIL, RETRY, SKIP
from prefect_dask_core.states import Mapped
from prefect_dask_core.triggers import (
    all_failed,
    all_finished,
    all_successful,
    any_failed,
    any_successful,
    not_all_skipped,
    some_failed,
    some_successful,
)

TRIGGERS = (
    all_successful,
    all_successful,
    all_successful,
    all_finished,
    all_finished,
    all_failed,
    any_failed,
    any_successful,
    not_all_skipped,
    some_failed(at_least=1),
    some_successful(at_least=0.5),
)
#: What the attempts of a run do; the last one repeats.
SCRIPTS = (
    ("ok",),
    ("ok",),
    ("ok",),
    ("ok",),
    ("fail",),
    ("fail", "ok"),
    ("signal",),
    ("skip",),
    ("again", "ok"),
)


def seen(value):
    """A value as text that is the same wherever it was computed."""
    if isinstance(value, BaseException):
        return f"{type(value).__name__}({value})"
    if isinstance(value, list):
        return f"[{','.join(map(seen, value))}]"
    return str(value)


class Body:
    """A body that digests its inputs, unless its script says otherwise.

    Parameters
    ----------
    name : str
        Part of the value, so that no two bodies give the same one.
    script : sequence of str
        What its attempts do.
    by_index : dict of int to sequence of str
        Scripts of single children.
    width : int or None
        Number of items of the value; `None` for a value that is no collection.
    """

    def __init__(self, name, script=("ok",), by_index=None, width=None):
        self.__name__ = name
        self.script = script
        self.by_index = by_index or {}
        self.width = width

    def __call__(self, **inputs):
        script = self.by_index.get(context.map_index, self.script)
        act = script[min(context.task_run_count, len(script)) - 1]
        text = f"{self.__name__}({','.join(f'{k}={seen(inputs[k])}' for k in inputs)})"
        digest = f"{self.__name__}:{zlib.crc32(text.encode()):x}"
        if act == "fail":
            raise ValueError(digest)
        if act == "signal":
            raise FAIL(digest)
        if act == "skip":
            raise SKIP(digest)
        if act == "again":
            raise RETRY(digest)
        if self.width is None:
            return digest
        return [f"{digest}#{i}" for i in range(self.width)]


@dataclass
class Drawn:
    """One task of a random flow."""

    name: str
    mapped: bool
    inputs: list  # of (kind, number or constant): see `random_flows`
    options: dict = field(default_factory=dict)
    body: Body | None = None


@st.composite
def random_flows(draw, max_size=7, mapped=True, troubles=True):
    """A flow of tasks that read earlier ones, plainly or child by child."""
    size = draw(st.integers(1, max_size))
    drawn = []
    for number in range(size):
        is_mapped = mapped and draw(st.booleans())
        above = st.integers(0, number - 1) if number else st.nothing()
        plain = st.one_of(
            st.tuples(st.just("data"), above),
            st.tuples(st.just("order"), above),
            st.tuples(st.just("constant"), st.sampled_from([1, "ab", [1, 2]])),
        )
        inputs = draw(st.lists(plain, max_size=3))
        if is_mapped:
            # A constant or an earlier task; some lengths fit together, some do not.
            constant = st.sampled_from([0, 1, 3, 3, 3, 9]).map(lambda n: list(range(n)))
            kinds = st.one_of(
                st.tuples(st.just("each constant"), constant),
                st.tuples(st.just("each"), above),
                st.tuples(st.just("each"), above),
                st.tuples(st.just("flat"), above),
                st.tuples(st.just("each order"), above),
            )
            inputs = [*draw(st.lists(kinds, min_size=1, max_size=2)), *inputs]
            if not any(
                kind.startswith("each c") or kind in ("each", "flat")
                for kind, _ in inputs
            ):
                inputs.append(("each constant", [0, 1, 2]))
        scripts = st.sampled_from(SCRIPTS if troubles else SCRIPTS[:1])
        by_index = {}
        if is_mapped and troubles:
            by_index = draw(st.dictionaries(st.integers(0, 4), scripts, max_size=2))
        body = Body(
            f"t{number}",
            script=("ok",) if is_mapped and draw(st.booleans()) else draw(scripts),
            by_index=by_index,
            width=draw(st.sampled_from([None, 0, 3, 3, 3, 4])),
        )
        options = {
            "retries": draw(st.sampled_from([0, 0, 1])),
            "trigger": draw(st.sampled_from(TRIGGERS)) if troubles else all_successful,
            "skip_on_upstream_skip": draw(st.booleans()),
        }
        drawn.append(Drawn(f"t{number}", is_mapped, inputs, options, body))
    return drawn


def build(drawn):
    """The flow, and its tasks in the order of their numbers."""
    flow = Flow("random")
    tasks = []
    for spec in drawn:
        task = Task(spec.body, name=spec.name, **spec.options)
        inputs, above = {}, []
        for position, (kind, what) in enumerate(spec.inputs):
            key = f"x{position}"
            if kind == "data":
                inputs[key] = unmapped(tasks[what])
            elif kind == "constant":
                inputs[key] = unmapped(what)
            elif kind == "order":
                above.append(unmapped(tasks[what]))
            elif kind == "each order":
                above.append(tasks[what])
            elif kind == "each":
                inputs[key] = tasks[what]
            elif kind == "flat":
                inputs[key] = Annotation(tasks[what], mapped=True, flattened=True)
            else:
                inputs[key] = what
        flow.set_dependencies(
            task, keyword_tasks=inputs, upstream_tasks=above, mapped=spec.mapped
        )
        tasks.append(task)
    return flow, tasks


def is_valid(drawn):
    """Whether no lengths of constants contradict each other, which nothing runs."""
    for spec in drawn:
        constants = {len(w) for kind, w in spec.inputs if kind == "each constant"}
        elsewhere = any(k in ("each", "flat", "each order") for k, _ in spec.inputs)
        if len(constants) > 1 and not elsewhere:
            return False
    return True


def told(state, values=True):
    """What is known of a run, in a form that can be compared."""
    if isinstance(state, Mapped):
        attempts = [state.states.attempts(i) for i in range(len(state))]
        return "Mapped", [told(child, values) for child in state], attempts
    value = None
    if values and state.is_final():
        try:
            value = seen(state.result(raise_on_failure=False))
        except MissingResult:
            value = "missing"
    return type(state).__name__, state.name, state.message, value


def told_all(state, tasks, values=True):
    """What is known of all tasks of a flow run, and of the run."""
    return (
        type(state).__name__,
        state.message,
        [told(state[task], values) for task in tasks],
    )
