"""Function flows: a function that calls and submits tasks, and how it is run."""

from __future__ import annotations

import asyncio
import functools
import inspect
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from prefect_dask_core.attributes import OptionAttribute
from prefect_dask_core.bodies import P, R, TaskBody
from prefect_dask_core.calling import called_after, value_of
from prefect_dask_core.displays import text, titled_html
from prefect_dask_core.errors import (
    DeclarationError,
    OptionTypeError,
    OptionValueError,
)
from prefect_dask_core.function_options import (
    FlowOptions,
    change_flow_options,
    make_flow_options,
)
from prefect_dask_core.hooks import Hook
from prefect_dask_core.late_imports import import_late
from prefect_dask_core.runners.drive import (
    drive,
    drive_async,
    drive_async_generator,
    drive_generator,
)
from prefect_dask_core.states import State
from prefect_dask_core.validation import Validator

if TYPE_CHECKING:
    from prefect_dask_core import (
        drawing,
        flow_drawing,
        flow_runs,
        function_runs,
        recording,
        resumptions,
    )
    from prefect_dask_core.drawing import Picture
    from prefect_dask_core.function_runs import FunctionRun
    from prefect_dask_core.recording import Asked
else:
    drawing = import_late("prefect_dask_core.drawing")
    flow_drawing = import_late("prefect_dask_core.flow_drawing")
    flow_runs = import_late("prefect_dask_core.flow_runs")
    function_runs = import_late("prefect_dask_core.function_runs")
    recording = import_late("prefect_dask_core.recording")
    resumptions = import_late("prefect_dask_core.resumptions")

HookT = TypeVar("HookT", bound=Callable[..., Any])


class FunctionFlow(TaskBody, Generic[P, R]):
    """A function with options that calls and submits tasks.

    Parameters
    ----------
    fn : callable
        The function: plain, asynchronous, a generator, or a method.
    name : str, optional
        Name of the flow; that of the function, with dashes, unless given.
    **options
        Options by name; ``help(FlowOptions)`` tells of each.

    Notes
    -----
    Tasks that are called in the function run at once, in this process. Those that are
    submitted or mapped run on the flow's runner; the flow ends when all of them have.

    Examples
    --------
    >>> from prefect_dask_core import SequentialTaskRunner, flow, task
    >>> @task
    ... def square(x):
    ...     return x * x
    >>> @flow(task_runner=SequentialTaskRunner())
    ... def squares(n):
    ...     total = square(n)
    ...     return total, square.map(range(n)).result()
    >>> squares(3)
    (9, [0, 1, 4])
    >>> squares(3, return_state=True)["square-0"].result()
    9
    """

    _kind = "flow"

    name: OptionAttribute[str] = OptionAttribute()
    version: OptionAttribute[str | None] = OptionAttribute()
    description: OptionAttribute[str | None] = OptionAttribute()
    flow_run_name: OptionAttribute[Any] = OptionAttribute()
    retries: OptionAttribute[int] = OptionAttribute()
    retry_delay_seconds: OptionAttribute[float | tuple[float, ...]] = OptionAttribute()
    task_runner: OptionAttribute[Any] = OptionAttribute()
    timeout_seconds: OptionAttribute[float | None] = OptionAttribute()
    log_prints: OptionAttribute[bool | None] = OptionAttribute()
    should_validate_parameters: OptionAttribute[bool | None] = OptionAttribute(
        "validate_parameters"
    )
    on_completion_hooks: OptionAttribute[tuple[Hook, ...]] = OptionAttribute(
        "on_completion"
    )
    on_failure_hooks: OptionAttribute[tuple[Hook, ...]] = OptionAttribute("on_failure")
    on_cancellation_hooks: OptionAttribute[tuple[Hook, ...]] = OptionAttribute(
        "on_cancellation"
    )
    on_crashed_hooks: OptionAttribute[tuple[Hook, ...]] = OptionAttribute("on_crashed")
    on_running_hooks: OptionAttribute[tuple[Hook, ...]] = OptionAttribute("on_running")

    def __init__(
        self, fn: Callable[P, R], name: str | None = None, **options: Any
    ) -> None:
        self._set_body(fn)
        own = self.__dict__
        own["options"] = make_flow_options(own["_fn"], {"name": name, **options})
        # Read now, so that a reserved name is refused where it is written.
        _ = self.body_signature
        if self.options.validate_parameters:
            _ = self.validator  # read now, too: it may refuse an annotation

    @property
    def validator(self) -> Validator:
        """What checks and converts arguments, made once."""
        own = self.__dict__
        found: Validator | None = own.get("_validator")
        if found is None:
            option = self.options.validate_parameters
            found = own["_validator"] = Validator(
                self.name, self.fn, self.body_signature, option
            )
        return found

    @property
    def options(self) -> FlowOptions:
        """The options, one record."""
        found: FlowOptions | None = self.__dict__.get("options")
        if found is None:
            raise DeclarationError("a flow was used before it was complete.")
        return found

    # -- calls ------------------------------------------------------------------

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(
        self,
        /,
        *args: Any,
        return_state: Literal[True],
        wait_for: Any = None,
        **kw: Any,
    ) -> State: ...
    @overload
    def __call__(self, /, *args: Any, wait_for: Any, **kwargs: Any) -> R: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the flow.

        Parameters
        ----------
        *args, **kwargs
            Arguments of the function; futures and states in them are replaced by
            their values. Also ``return_state=True``, for the final state instead of
            the value, and ``wait_for=``, futures that come first.

        Returns
        -------
        object
            The value; futures in it are replaced by their results. Of an asynchronous
            function a coroutine, of a generator function a generator.

        Raises
        ------
        ParameterBindError
            If the arguments do not fit the signature; no run is made then.
        UpstreamTaskError
            If an argument is the future of a run that did not succeed.
        Exception
            What made the run fail.
        """
        return_state = bool(kwargs.pop("return_state", False))
        wait_for = kwargs.pop("wait_for", None)
        bound = self._bind(args, kwargs)
        return self._run(function_runs.FunctionRun(self, bound, wait_for), return_state)

    def resume(
        self,
        run_id: str | uuid.UUID,
        parameters: Mapping[str, Any] | None = None,
        *,
        ledger: Asked = None,
        return_state: bool = False,
    ) -> Any:
        """Let a run go on that did not end well, or whose process died.

        Parameters
        ----------
        run_id : str or uuid.UUID
            Id of the run; with a ledger its first characters will do.
        parameters : mapping of str to object, optional
            Arguments of the function by name. Those of the first run hold unless given;
            without a ledger nobody knows them.
        ledger : Ledger, str, path or bool, optional
            Where the run is recorded; see `Flow.run`.
        return_state : bool
            Whether to return the final state instead of the value.

        Returns
        -------
        object
            As a call of the flow.

        Raises
        ------
        UnknownRunError
            If the ledger has no such run.
        ResumeError
            If the run is of another flow, still runs, or has a parameter that was not
            kept and is not given.

        Notes
        -----
        The function runs again from its begin, under the id of the run. Its task runs
        have the names they had, as long as it submits in the same order, and each
        takes the value that it had stored; whatever was not stored runs again.
        """
        options = self.options
        found = resumptions.find_run(
            recording.ledger_of(
                options.name, options.ledger if ledger is None else ledger
            ),
            options.name,
            "function",
            run_id,
        )
        names = self.body_signature.names
        given = found.parameters(dict(parameters or {}), names)
        found.tell_if_unknown(options.name, given, names)
        run = function_runs.FunctionRun(
            self, self._bind((), given), resumed=found, ledger=ledger
        )
        return self._run(run, return_state)

    def _run(self, run: FunctionRun, return_state: bool) -> Any:
        if self.isgenerator:
            return self._iterate(run, return_state)
        if self.isasync:
            return called_after(self.name, _end_async(run, return_state))
        state = drive(flow_runs.run_function(run))
        return state if return_state else value_of(state)

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return self.body_signature.bind(args, kwargs, self.name, "flow")

    def _iterate(self, run: FunctionRun, return_state: bool) -> Any:
        if return_state:
            raise OptionValueError(
                f"flow {self.name!r} yields its values, so a call of it has no state "
                "to return; read it to its end, or return a list."
            )
        steps = flow_runs.run_function(run)
        if inspect.isasyncgenfunction(self.fn):
            return drive_async_generator(steps, function_runs.call_function, value_of)
        return drive_generator(steps, function_runs.call_function, value_of)

    # -- variants ---------------------------------------------------------------

    def with_options(self, **options: Any) -> FunctionFlow[P, R]:
        """Flow over the same function with other options; `None` leaves the old one.

        Examples
        --------
        >>> FunctionFlow(len, name="a").with_options(retries=2).retries
        2
        """
        twin = self._twin()
        twin.__dict__["options"] = change_flow_options(self.options, options)
        if twin.options.validate_parameters:
            _ = twin.validator
        return twin

    def _twin(self) -> FunctionFlow[P, R]:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.__dict__.pop("_validator", None)
        return twin

    def __get__(self, instance: Any, owner: type | None = None) -> FunctionFlow[..., R]:
        """Flow of a class, bound like a method; the function itself stays as it is."""
        bound = self._bound_to(instance, owner)
        if bound is None:
            return self
        twin = self._twin()
        twin.__dict__.update(_fn=bound, _bound=True)
        twin.__dict__.pop("_signature", None)
        return twin

    def validate_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as their annotations want them; see `FlowOptions`.

        Raises
        ------
        ParameterBindError
            If they do not fit the signature.
        ParameterTypeError
            If one cannot be converted.
        """
        return self.validator(
            self.body_signature.bind((), parameters, self.name, "flow")
        )

    def serialize_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as plain data that JSON can hold; what has none, by its `repr`."""
        return {name: _as_json(value) for name, value in parameters.items()}

    # -- drawing ----------------------------------------------------------------

    def visualize(self, *args: Any, **kwargs: Any) -> Any:
        """Draw the tasks that the function calls, with Graphviz.

        Parameters
        ----------
        *args, **kwargs
            Arguments of the function. It runs, but its tasks do not: their calls give
            `Task.viz_return_value`, or something that can only be handed on.

        Returns
        -------
        graphviz.Digraph
            A notebook shows it as a picture; its method ``view()`` opens a window.

        Raises
        ------
        VisualizationUnsupportedError
            If a task is submitted or mapped, or the value of one is used.
        """
        return drawing.digraph(self._picture(args, kwargs), False)

    async def avisualize(self, *args: Any, **kwargs: Any) -> Any:
        """Draw the tasks that the function calls; see `visualize`."""
        picture = await asyncio.to_thread(self._picture, args, kwargs)
        return drawing.digraph(picture, False)

    def generate_mermaid_graph(self, *args: Any, **kwargs: Any) -> str:
        """Drawing of the tasks that the function calls, as Mermaid text.

        Examples
        --------
        >>> import warnings
        >>> from prefect_dask_core import task
        >>> @task
        ... def load():
        ...     return [1]
        >>> @flow
        ... def etl():
        ...     return task(len, name="count")(load())
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     print(etl.generate_mermaid_graph())
        flowchart TD
            load_0(["load-0"])
            count_0(["count-0"])
            load_0 --> count_0
        """
        return drawing.mermaid(self._picture(args, kwargs))

    def _picture(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Picture:
        bound = self.body_signature.bind(args, kwargs, self.name, "flow")
        return flow_drawing.picture_of_flow(self, bound)

    # -- hooks ------------------------------------------------------------------

    def on_running(self, fn: HookT) -> HookT:
        """Add a hook that is called at each attempt; for use as a decorator."""
        return self._add_hook("on_running", fn)

    def on_completion(self, fn: HookT) -> HookT:
        """Add a hook that is called at a success; for use as a decorator."""
        return self._add_hook("on_completion", fn)

    def on_failure(self, fn: HookT) -> HookT:
        """Add a hook that is called at the final failure; for use as a decorator."""
        return self._add_hook("on_failure", fn)

    def on_cancellation(self, fn: HookT) -> HookT:
        """Add a hook that is called when a run was stopped; for use as a decorator."""
        return self._add_hook("on_cancellation", fn)

    def on_crashed(self, fn: HookT) -> HookT:
        """Add a hook that is called when a run crashed; for use as a decorator."""
        return self._add_hook("on_crashed", fn)

    def _add_hook(self, option: str, fn: HookT) -> HookT:
        hooks = (*getattr(self.options, option), fn)
        self.__dict__["options"] = change_flow_options(self.options, {option: hooks})
        return fn

    def __repr__(self) -> str:
        return f"<Flow: {self.name}>"

    def _repr_html_(self) -> str:
        # Its tasks are known only when it runs.
        signature = text(f"{self.name}{inspect.signature(self.fn)}")
        about = text(self.options.description or "")
        return titled_html(self.name, f"<code>{signature}</code><div>{about}</div>")


async def _end_async(run: FunctionRun, return_state: bool) -> Any:
    state = await drive_async(flow_runs.run_function(run))
    return state if return_state else value_of(state)


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    return repr(value)


@overload
def flow(fn: Callable[P, R], **options: Any) -> FunctionFlow[P, R]: ...
@overload
def flow(
    fn: None = None, **options: Any
) -> Callable[[Callable[P, R]], FunctionFlow[P, R]]: ...
def flow(fn: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a flow of a function: ``@flow`` or ``@flow(retries=2)``.

    Parameters
    ----------
    fn : callable, optional
        The function.
    **options
        Options by name; ``help(FlowOptions)`` tells of each.

    Examples
    --------
    >>> @flow(name="greeting")
    ... def greet(name):
    ...     return f"hello {name}"
    >>> greet("you"), greet.name
    ('hello you', 'greeting')
    """
    if fn is None:
        return functools.partial(flow, **options)
    if isinstance(fn, str):
        raise OptionTypeError(f"@flow was given {fn!r}; write @flow(name={fn!r}).")
    return FunctionFlow(fn, **options)
