"""Control flow: branches that run or are skipped, and what brings them together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from prefect_dask_core.arguments import has_task, unwrap
from prefect_dask_core.blocks import TaskBlock, first_of
from prefect_dask_core.context import GraphBuilder, context, tags
from prefect_dask_core.edges import Annotation
from prefect_dask_core.errors import GraphError, OptionTypeError, OptionValueError
from prefect_dask_core.flow_graph import FlowGraph
from prefect_dask_core.lazy import refuse_lazy
from prefect_dask_core.signals import PAUSE, SKIP
from prefect_dask_core.tasks import Constant, Task
from prefect_dask_core.triggers import all_finished, all_successful, not_all_skipped

#: For what runs outside of a task run, which has a logger of its own.
_LOGGER: Final = logging.getLogger(__name__)


class CompareValue(Task):
    """Task that is skipped unless its input equals a value.

    Parameters
    ----------
    value : object
        The value.
    **options
        Options of the task.
    """

    def __init__(self, value: Any, **options: Any) -> None:
        self.value = value
        super().__init__(**{"name": f'CompareValue: "{value}"', **options})

    def run(self, value: Any) -> None:
        """Skip unless the values are equal."""
        if value != self.value:
            raise SKIP(f"{value!r} is not {self.value!r}, so this branch is skipped.")


class case(TaskBlock):
    """A ``with`` block whose tasks run only if a task gives a value.

    Parameters
    ----------
    task : Task
        What decides.
    value : object
        The value with which the tasks of the block run; with any other they are
        skipped, and so is what comes after them unless it says otherwise.

    Notes
    -----
    Every task that comes after no other of the block waits for the comparison.
    Parameters and constants are not part of a block. Source of the rules: ``case`` of
    Prefect 1.x.

    Examples
    --------
    >>> from prefect_dask_core import Flow, Parameter, SequentialTaskRunner, task
    >>> @task
    ... def shout(text):
    ...     return text.upper()
    >>> with Flow("loud or not") as flow:
    ...     text = Parameter("text")
    ...     with case(text, "hello"):
    ...         loud = shout(text)
    ...     said = merge(loud, text)
    >>> runner = SequentialTaskRunner()
    >>> flow.run(text="hello", task_runner=runner)[said].result()
    'HELLO'
    >>> flow.run(text="bye", task_runner=runner)[said].result()
    'bye'
    """

    def __init__(self, task: Any, value: Any) -> None:
        if isinstance(task, bool):
            raise OptionTypeError(
                f"case() was given {task!r} to compare, the same in every run; "
                "a comparison of tasks is a task if it is written "
                "task.is_equal(other), not task == other."
            )
        if isinstance(value, Task | Annotation):
            raise OptionTypeError(
                f"case(..., {value!r}): the value is compared with what the task "
                "gives, so it cannot be a task; compare two tasks with "
                "case(a.is_equal(b), True)."
            )
        refuse_lazy(value, "was given as the value of case(...)")
        super().__init__()
        self.task = task
        self.value = value

    def __enter__(self) -> None:
        self._open()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        tasks, flow = self._close(), self._flow
        if kind is not None or flow is None or not tasks:
            return
        # Bound outside of this block, so a part of the one around.
        comparison = CompareValue(self.value, name=f"case({self.value})")
        comparison.bind(self.task, flow=flow)
        for task in first_of(tasks, flow):
            task.set_upstream(comparison, flow=flow)

    def __repr__(self) -> str:
        return f"case({self.task!r}, {self.value!r})"


def switch(condition: Any, cases: Mapping[Any, Any], mapped: bool = False) -> None:
    """Let a task run only if a condition gives its value.

    Parameters
    ----------
    condition : Task
        What decides.
    cases : mapping of object to Task
        Value of the condition -> the task that runs with it; the others are skipped.
    mapped : bool
        Whether to decide item by item.

    Raises
    ------
    OptionTypeError
        If `cases` is no mapping, or a branch is no task: a constant never runs, so it
        cannot be skipped.

    Examples
    --------
    >>> from prefect_dask_core import Flow, Parameter, SequentialTaskRunner, task
    >>> @task
    ... def plain():
    ...     return "a page"
    >>> @task
    ... def rich():
    ...     return "a picture"
    >>> with Flow("show") as flow:
    ...     text, picture = plain(), rich()
    ...     switch(Parameter("device"), {"terminal": text, "browser": picture})
    >>> state = flow.run(device="browser", task_runner=SequentialTaskRunner())
    >>> state[picture].result(), state[text].is_skipped()
    ('a picture', True)
    """
    flow = _active_flow("switch")
    if not isinstance(cases, Mapping):
        raise OptionTypeError(
            f"switch(..., {cases!r}): expected a mapping of the values of the "
            "condition to the tasks that run with them, such as {'a': first}."
        )
    for value, branch in cases.items():
        if _is_constant(branch):
            raise OptionTypeError(
                f"the branch for {value!r} is {branch!r}, but expected a task; a "
                "plain value cannot be skipped."
            )
        with tags("switch"):
            comparison = CompareValue(value)
        comparison.bind(condition, mapped=mapped, flow=flow)
        flow.set_dependencies(branch, upstream_tasks=[comparison], mapped=mapped)


def as_bool(value: Any) -> bool:
    """Truth of a value."""
    return bool(value)


def ifelse(
    condition: Any, true_task: Any, false_task: Any, mapped: bool = False
) -> None:
    """Let one of two tasks run, and skip the other.

    Parameters
    ----------
    condition : Task
        What decides, by its truth.
    true_task, false_task : Task or None
        The branches; `None` for nothing to do.
    mapped : bool
        Whether to decide item by item.

    Examples
    --------
    >>> from prefect_dask_core import Flow, Parameter, SequentialTaskRunner, Task
    >>> with Flow("either way") as flow:
    ...     full, empty = Task("full")(), Task("empty")()
    ...     ifelse(Parameter("rows"), full, empty)
    >>> state = flow.run(rows=[1, 2], task_runner=SequentialTaskRunner())
    >>> state[full].is_skipped(), state[empty].is_skipped()
    (False, True)
    """
    flow = _active_flow("ifelse")
    truth = Task(as_bool).bind(condition, mapped=mapped, flow=flow)
    branches = {True: true_task, False: false_task}
    cases = {value: task for value, task in branches.items() if task is not None}
    switch(truth, cases, mapped=mapped)


def first_not_none(**results: Any) -> Any:
    """First of ``task_1``, ``task_2``, ... that is not `None`, in numeric order."""
    in_order = (results[f"task_{number}"] for number in range(1, len(results) + 1))
    return next((result for result in in_order if result is not None), None)


def merge(
    *tasks: Any, flow: GraphBuilder | None = None, mapped: bool = False, **options: Any
) -> Task:
    """Task that gives the value of the branch that ran.

    Parameters
    ----------
    *tasks : Task or value
        The branches. The first value that is not `None` is given, in the order of the
        arguments, and `None` if there is none.
    flow : Flow, optional
        The flow; the active one unless given.
    mapped : bool
        Whether to merge item by item.
    **options
        Options of the task. Unless given its trigger is `not_all_skipped`: with all
        branches skipped it is skipped too. A plain value is never skipped.

    Raises
    ------
    OptionValueError
        If ``skip_on_upstream_skip=True`` is given, as it would always be skipped.

    Examples
    --------
    >>> from prefect_dask_core import Flow, Parameter, SequentialTaskRunner, task
    >>> @task
    ... def half(n):
    ...     return n // 2
    >>> @task
    ... def triple(n):
    ...     return 3 * n + 1
    >>> with Flow("one step of Collatz") as flow:
    ...     n = Parameter("n")
    ...     halved, tripled = half(n), triple(n)
    ...     ifelse(n % 2, tripled, halved)
    ...     step = merge(halved, tripled)
    >>> flow.run(n=7, task_runner=SequentialTaskRunner())[step].result()
    22
    """
    if options.get("skip_on_upstream_skip") or options.get("propagate_skip"):
        raise OptionValueError(
            "merge(skip_on_upstream_skip=True) would be skipped whenever one of its "
            "branches is; leave the option out."
        )
    options.pop("propagate_skip", None)
    options["skip_on_upstream_skip"] = False
    options.setdefault("name", "Merge")
    if options.get("trigger") is None:
        # A constant has no state, so a trigger could not count it as not skipped.
        plain = any(map(_is_constant, tasks))
        options["trigger"] = all_successful if plain else not_all_skipped
    inputs = {f"task_{number}": given for number, given in enumerate(tasks, start=1)}
    return Task(first_not_none, **options).bind(mapped=mapped, flow=flow, **inputs)


def is_value(result: Any) -> bool:
    """Whether a result is neither `None` nor an exception."""
    return result is not None and not isinstance(result, BaseException)


class FilterTask(Task):
    """Task that keeps some items of a list.

    Parameters
    ----------
    filter_func : callable (item) -> bool, optional
        Whether to keep an item; unless given, `None` and exceptions are dropped.
    log_func : callable (item) -> str, optional
        Gives the line that is logged for a dropped item; an empty one is not.
    **options
        Options of the task. Unless given its trigger is `all_finished` and skips do
        not reach it, so it can tidy up what a fan-out left.

    Examples
    --------
    >>> from prefect_dask_core import Flow, SequentialTaskRunner, task
    >>> @task
    ... def inverse(x):
    ...     return 1 / x
    >>> with Flow("tidy") as flow:
    ...     good = FilterTask()(inverse.map([1, 0, 4]))
    >>> flow.run(task_runner=SequentialTaskRunner())[good].result()
    [1.0, 0.25]
    """

    def __init__(
        self,
        filter_func: Callable[[Any], object] | None = None,
        log_func: Callable[[Any], str] | None = None,
        **options: Any,
    ) -> None:
        if filter_func is not None and not callable(filter_func):
            raise OptionTypeError(
                f"FilterTask({filter_func!r}): expected a callable that takes an item "
                "and says whether to keep it."
            )
        self.filter_func = filter_func or is_value
        self.log_func = log_func
        if not {"skip_on_upstream_skip", "propagate_skip"} & set(options):
            options["skip_on_upstream_skip"] = False
        super().__init__(**{"trigger": all_finished, **options})

    def run(self, task_results: Iterable[Any]) -> list[Any]:
        """Keep the items for which the function is true."""
        kept = []
        for item in task_results:
            if self.filter_func(item):
                kept.append(item)
            elif self.log_func is not None:
                line = self.log_func(item)
                if line:
                    (context.get("logger") or _LOGGER).info(line)
        return kept


def pause_task(
    message: str | None = None, duration: timedelta | float | None = None
) -> None:
    """Pause the task whose body calls it, unless it was resumed.

    Parameters
    ----------
    message : str, optional
        Message of the state.
    duration : timedelta or number, optional
        Time after which the task is meant to go on, for whoever resumes it; a bare
        number is in seconds. It is added to now and kept as ``state[task].start_time``,
        and is all that it changes: nothing waits for it, and ``flow.run(resume=state)``
        goes on at any time.

    Raises
    ------
    PAUSE
        Unless ``context.resume`` is set.

    Notes
    -----
    A resumed body starts from its beginning, so what stands before the call is done
    twice; a second call in one body does not pause again.

    Examples
    --------
    >>> from prefect_dask_core import Flow, SequentialTaskRunner, task
    >>> @task
    ... def approve():
    ...     pause_task("somebody has to look at this")
    ...     return "approved"
    >>> with Flow("approval") as flow:
    ...     approved = approve()
    >>> paused = flow.run(task_runner=SequentialTaskRunner())
    >>> paused.is_paused()
    True
    >>> flow.run(resume=paused, task_runner=SequentialTaskRunner())[approved].result()
    'approved'
    """
    if context.get("resume"):
        return
    if duration is None:
        raise PAUSE(message)
    length = duration.total_seconds() if isinstance(duration, timedelta) else duration
    raise PAUSE(message, start_time=time.time() + length)


def _is_constant(given: Any) -> bool:
    value = unwrap(given, mapped=False).value
    return isinstance(value, Constant) or not has_task(value)


def _active_flow(function: str) -> FlowGraph:
    flow: FlowGraph | None = context.get("flow")
    if flow is None:
        raise GraphError(
            f"{function}() adds tasks to a flow, and there is none; call it inside "
            "`with Flow(...)`."
        )
    return flow
