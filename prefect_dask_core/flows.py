"""Flows: a graph of tasks, and how it is run."""

from __future__ import annotations

import inspect
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from prefect_dask_core.diagnostics import diagnostics
from prefect_dask_core.displays import titled_html
from prefect_dask_core.edges import Edge
from prefect_dask_core.errors import OptionTypeError, OptionValueError
from prefect_dask_core.flow_graph import FlowGraph
from prefect_dask_core.flow_options import (
    FlowHandler,
    OlderFlowAttribute,
    TerminalHandler,
    flow_handlers,
    flow_result,
    one_mapping,
    one_runner,
    parameters_given,
    refuse_older_flow_options,
)
from prefect_dask_core.function_flows import FunctionFlow
from prefect_dask_core.late_imports import import_late
from prefect_dask_core.monitor.watchers import check_progress
from prefect_dask_core.results.result import Result
from prefect_dask_core.runners.base import TaskRunner
from prefect_dask_core.serialization import describe_flow, hash_of
from prefect_dask_core.states import State
from prefect_dask_core.tasks import Task

if TYPE_CHECKING:
    from prefect_dask_core import drawing, execution
    from prefect_dask_core.engine.compile import FlowCollection
    from prefect_dask_core.recording import Asked
else:
    drawing = import_late("prefect_dask_core.drawing")
    execution = import_late("prefect_dask_core.execution")


class Flow(FlowGraph):
    """Tasks and the edges between them, to be run as a whole.

    Parameters
    ----------
    name : str
        Name of the flow.
    tasks : iterable of Task, optional
        Tasks to begin with.
    edges : iterable of Edge, optional
        Edges to begin with.
    reference_tasks : iterable of Task, optional
        Tasks that decide the final state; those at the end of the flow unless given.
    validate : bool, optional
        Whether to look for cycles at once.
    task_runner : task runner, optional
        Where the flow runs unless `run` is told otherwise; `executor` is an older
        spelling.
    result : Result, optional
        Where tasks without a `result` of their own keep their values; each of them
        then keeps its value, unless its `persist_result` is `False`. Parameters and
        what the package made (a list of tasks, a resource) keep none.
        `result_handler` is an older spelling.
    state_handlers : sequence of callables (flow, old, new) -> State or None, optional
        Called at each change of the state of a run, in order; a returned state
        replaces the new one.
    on_failure : callable (flow, state), optional
        Called when a run fails.
    terminal_state_handler : callable (flow, state, states), optional
        Called with the final state and the states of the reference tasks; a returned
        state replaces the final one.
    version, description : str, optional
        For people. Flows of different versions are not equal.

    Raises
    ------
    UnknownOptionError
        If an option is unknown; also a `TypeError`.
    OptionValueError
        If an option asks for what only a server could do (`schedule`, `storage`,
        `run_config`, `environment`); also a `ValueError`.

    Notes
    -----
    How a flow is built and asked is told by `FlowGraph`. What is set on a flow that is
    made, as ``flow.executor = ...``, is checked as the option of that name.

    Examples
    --------
    >>> from prefect_dask_core import Flow, task
    >>> @task
    ... def extract():
    ...     return [1, 2]
    >>> @task
    ... def total(numbers, start=0):
    ...     return sum(numbers, start)
    >>> with Flow("sums") as flow:
    ...     result = total(extract(), start=10)
    >>> flow.run()[result].result()
    13
    """

    schedule = OlderFlowAttribute()
    storage = OlderFlowAttribute()
    run_config = OlderFlowAttribute()
    environment = OlderFlowAttribute()

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Make a graph flow; of a function, a function flow (decision C1)."""
        if "fn" in options or (args and callable(args[0])):
            return FunctionFlow(*args, **options)
        return super().__new__(cls)

    def __init__(
        self,
        name: str,
        *,
        tasks: Iterable[Task] | None = None,
        edges: Iterable[Edge] | None = None,
        reference_tasks: Iterable[Task] | None = None,
        validate: bool | None = None,
        task_runner: TaskRunner | None = None,
        executor: TaskRunner | None = None,
        result: Result | None = None,
        result_handler: Any = None,
        state_handlers: Sequence[FlowHandler] | None = None,
        on_failure: Callable[[Any, State], None] | None = None,
        terminal_state_handler: TerminalHandler | None = None,
        version: str | None = None,
        description: str | None = None,
        **older: Any,
    ) -> None:
        if older:
            known = inspect.signature(Flow.__init__).parameters
            refuse_older_flow_options(name, older, [*known][1:-1])
        super().__init__(
            name,
            tasks=tasks,
            edges=edges,
            reference_tasks=reference_tasks,
            validate=validate,
        )
        self.task_runner = one_runner(name, task_runner, executor)
        self.result = flow_result(name, result, result_handler)
        self.state_handlers = flow_handlers(name, state_handlers, on_failure)
        self.terminal_state_handler = terminal_state_handler
        self.version = version
        self.description = description

    @property
    def task_runner(self) -> TaskRunner | None:
        """Where the flow runs unless `run` is told otherwise."""
        return self._task_runner

    @task_runner.setter
    def task_runner(self, task_runner: TaskRunner | None) -> None:
        self._task_runner = one_runner(self.name, task_runner, None)

    @property
    def executor(self) -> TaskRunner | None:
        """Older spelling of `task_runner`."""
        return self.task_runner

    @executor.setter
    def executor(self, executor: TaskRunner | None) -> None:
        self.task_runner = executor

    @property
    def result(self) -> Result | None:
        """Where tasks without a `result` of their own keep their values."""
        return self._result

    @result.setter
    def result(self, result: Result | None) -> None:
        self._result = flow_result(self.name, result, None)

    @property
    def result_handler(self) -> Any:
        """Older spelling of `result`."""
        return self.result

    @result_handler.setter
    def result_handler(self, result_handler: Any) -> None:
        self._result = flow_result(self.name, None, result_handler)

    def run(
        self,
        parameters: Mapping[str, Any] | None = None,
        *,
        task_runner: TaskRunner | None = None,
        executor: TaskRunner | None = None,
        return_tasks: Task | Iterable[Task] | None = None,
        context: Mapping[str, Any] | None = None,
        resume: State | str | uuid.UUID | None = None,
        task_states: Mapping[Task, State] | None = None,
        task_contexts: Mapping[Task, Mapping[str, Any]] | None = None,
        flow_run_name: str | None = None,
        progress: bool | None = None,
        ledger: Asked = None,
        **more_parameters: Any,
    ) -> State:
        """Run the flow and wait for its end.

        Parameters
        ----------
        parameters : mapping, optional
            Values of the flow's parameters by name; also as keywords.
        task_runner : task runner, optional
            Where the tasks run. The flow's own unless given, else the current
            `distributed.Client` if there is one, else threads of this process.
            `executor` is an older spelling.
        return_tasks : Task or iterable of Task, optional
            Tasks whose values are kept besides those of the last and the reference
            tasks, however large they are.
        context : mapping, optional
            Context variables for the tasks.
        resume : State, str or UUID, optional
            State of an earlier run of this flow, that was paused or failed. What
            completed then stands, child by child; the rest runs again, and with it
            what reads it. Paused tasks find ``context.resume`` set, those paused by
            `WAIT` also ``context.is_waiting``. Parameters are those of the earlier
            run unless given; one with another value runs what depends on it again.
            The id of a run does the same after the death of its client, its scheduler
            or its workers: the run goes on under its id, with what the ledger knows
            and what its tasks have stored.
        task_states : mapping of Task to State, optional
            Finished states to take as they are; their tasks do not run.
        task_contexts : mapping of Task to mapping, optional
            Context variables of single tasks, over those of `context`.
        flow_run_name : str, optional
            Name of the run in the context of its tasks.
        progress : bool, optional
            Whether to show how the run goes: as lines that change on a terminal, as log
            records of level INFO elsewhere. Unless given, as `dask.config` says under
            ``prefect-dask-core.progress``, where ``None`` means yes.
        ledger : Ledger, str, path or bool, optional
            Where the run is recorded: a ledger, or its file or URL; `True` for that of
            `dask.config`, or if it names none, the default file. Unless given, as
            `dask.config` says under ``prefect-dask-core.ledger.url``; nowhere, if that
            is not set.
        **more_parameters
            Values of parameters whose names are none of the above.

        Returns
        -------
        State
            State of the run. ``state[task]`` is a task's state, ``state[task][i]`` a
            child's; ``state.result()`` the values of the reference tasks, by task.
            A task that fails raises nothing here: ``state.states.failures()`` lists
            what failed, ``state.states.counts()`` counts all task runs.

        Raises
        ------
        FlowParameterError
            If an unknown parameter is given, or a required one is not; also a
            `ValueError`.
        OptionTypeError
            If an option has the wrong type, or a parameter is given twice; also a
            `TypeError`.
        OptionValueError
            If an option asks for what only a server could do; also a `ValueError`.
        GraphError
            If `return_tasks`, `task_states` or `task_contexts` names what is no task of
            the flow, or `resume` is no state of a run of it; also a `ValueError`.
        ParameterBindError
            If an argument that the body of a task requires is not bound; also a
            `TypeError`.
        LedgerError
            If the ledger cannot be opened; `UnknownRunError` if it has no run of the
            id that is resumed.
        ResumeError
            If the run of that id is of another flow or still runs, or a parameter is
            missing that was not kept; also a `ValueError`.
        CycleError
            If the edges form a cycle; also a `ValueError`.
        MappingLengthMismatch, MappingMissingIterable
            If constants that a task is mapped over have different lengths, or none;
            also a `ValueError`. Lengths that only the run tells fail the task instead.
        UnpicklableTaskError
            If a task, an argument, a parameter or a context variable cannot travel to
            the workers of the runner; also a `TypeError`.
        ClusterMismatchError
            If a worker lacks this package, or has another version of it or of Python;
            also a `RuntimeError`.
        RuntimeError
            Inside the flow's own ``with`` block.

        Examples
        --------
        >>> from prefect_dask_core import Flow, Parameter, task
        >>> @task
        ... def double(x):
        ...     return 2 * x
        >>> with Flow("twice") as flow:
        ...     doubled = double(Parameter("x"))
        >>> state = flow.run(x=4)
        >>> state, state[doubled].result()
        (Completed('all reference tasks succeeded.'), 8)
        """
        self._require_closed("run")
        given = self._parameters_given(parameters, more_parameters)
        for option, value in (
            ("context", context),
            ("task_states", task_states),
            ("task_contexts", task_contexts),
        ):
            one_mapping(self.name, option, value)
        check_progress(self.name, progress)
        runner = one_runner(self.name, task_runner, executor)
        if runner is None:
            runner = self.task_runner
        options = execution.RunOptions(
            given,
            runner,
            return_tasks,
            context,
            resume,
            task_states,
            flow_run_name,
            task_contexts,
            progress,
            ledger,
        )
        return execution.run_flow(self, options)

    def compile(
        self,
        parameters: Mapping[str, Any] | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        **more_parameters: Any,
    ) -> FlowCollection:
        """Compile the flow to a Dask collection.

        Parameters
        ----------
        parameters, context, **more_parameters
            As for `run`.

        Returns
        -------
        FlowCollection
            `dask.compute` gives the state that `run` would; `dask.visualize` draws
            the graph.

        Examples
        --------
        >>> import dask
        >>> from prefect_dask_core import Flow, task
        >>> @task
        ... def double(x):
        ...     return 2 * x
        >>> with Flow("twice") as flow:
        ...     doubled = double.map([1, 2])
        >>> (state,) = dask.compute(flow.compile())
        >>> state[doubled].result()
        [2, 4]
        """
        self._require_closed("compile")
        given = self._parameters_given(parameters, more_parameters)
        variables = one_mapping(self.name, "context", context)
        return execution.compile_flow(self, given, variables or {})

    def _parameters_given(
        self, parameters: Mapping[str, Any] | None, more: Mapping[str, Any]
    ) -> dict[str, Any]:
        declared = {parameter.name for parameter in self.parameters()}
        options = [*inspect.signature(Flow.run).parameters][1:-1] if more else []
        return parameters_given(self.name, parameters, more, declared, options)

    # -- looking at it ----------------------------------------------------------

    def to_mermaid(self, flow_state: State | None = None) -> str:
        """Draw the flow as text for Mermaid, which many web pages show as a picture.

        Parameters
        ----------
        flow_state : State, optional
            State of a run, to colour the tasks and show children, as for `visualize`.

        Examples
        --------
        >>> from prefect_dask_core import Flow, task
        >>> @task
        ... def extract():
        ...     return [1, 2]
        >>> @task
        ... def double(x):
        ...     return 2 * x
        >>> with Flow("etl") as flow:
        ...     doubled = double.map(extract())
        >>> print(flow.to_mermaid())
        flowchart TD
            extract_1(["extract"])
            double_1["double #lt;map#gt;"]
            extract_1 -.->|"x"| double_1
        """
        return drawing.mermaid(drawing.picture_of(self, flow_state))

    def visualize(
        self,
        flow_state: State | None = None,
        filename: str | None = None,
        format: str | None = None,
        horizontal: bool = False,
    ) -> Any:
        """Draw the flow with Graphviz.

        Parameters
        ----------
        flow_state : State, optional
            State of a run, to colour the tasks. A mapped task is then drawn child by
            child, and with more than 20 children as one box that says how many are in
            which state.
        filename : str, optional
            File to draw into; its suffix may say the format.
        format : str, optional
            Format, such as ``"svg"``; PDF if neither this nor a suffix says another.
        horizontal : bool
            Whether it goes from left to right instead of downwards.

        Returns
        -------
        graphviz.Digraph
            A notebook shows it as a picture; its method ``view()`` opens a window.

        Raises
        ------
        ImportError
            Without the library graphviz, which comes with the extra ``viz``.

        Notes
        -----
        Constants that are bound to an input are not drawn. A dashed arrow is mapped.
        """
        graph = drawing.digraph(drawing.picture_of(self, flow_state), horizontal)
        if filename is not None:
            drawing.save_picture(graph, filename, format)
        return graph

    def _repr_html_(self) -> str:
        picture = drawing.picture_html(drawing.picture_of(self))
        return titled_html(self.name, picture)

    def serialize(self, build: bool = False) -> dict[str, Any]:
        """Describe the flow as plain data that JSON can hold.

        Parameters
        ----------
        build : bool
            Whether to store the flow too. There is no storage to store it in.

        Raises
        ------
        OptionValueError
            If ``build=True``.
        CycleError
            If the edges form a cycle.
        """
        if build:
            raise OptionValueError(
                f"flow {self.name!r} has no storage that build=True could store it in; "
                "write it into a file with flow.save(path)."
            )
        return describe_flow(self)

    def serialized_hash(self, build: bool = False) -> str:
        """SHA-256 of `serialize`: the same for flows that were built alike."""
        return hash_of(self.serialize(build))

    def diagnostics(self, include_secret_names: bool = False) -> str:
        """Facts for a report of a problem, as JSON text; see `diagnostics`."""
        return diagnostics(self, include_secret_names)

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the flow into a file, and return the file's path.

        Parameters
        ----------
        path : str or path, optional
            The file; ``<name>.flow`` in the current folder unless given. What stood
            there is replaced only when the new content is complete.
        """
        if path is None:
            path = re.sub(r"[^\w.-]+", "-", self.name) + ".flow"
        found = Path(path)
        blob = cloudpickle.dumps(self)
        aside = found.with_name(f"{found.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            aside.write_bytes(blob)
            os.replace(aside, found)
        finally:
            aside.unlink(missing_ok=True)
        return found

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Flow:
        """Read a flow that `save` wrote.

        Loading runs code of the file, so load only what you trust. The file can be
        read by the Python and the packages that wrote it, perhaps by no others.

        Raises
        ------
        OptionTypeError
            If the file holds something else.
        """
        found = cloudpickle.loads(Path(path).read_bytes())
        if not isinstance(found, Flow):
            raise OptionTypeError(f"{path} holds a {type(found).__name__}, no flow.")
        return found

    def __eq__(self, other: object) -> bool:
        same = super().__eq__(other)
        if same is True and isinstance(other, Flow):
            return self.version == other.version
        return same

    def _require_closed(self, action: str) -> None:
        if self.is_open:
            raise RuntimeError(
                f"flow {self.name!r} cannot {action} inside its own `with` block, "
                "where it is not complete; do it after the block."
            )
