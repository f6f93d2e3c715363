"""Tasks: a function together with its options, and what a call of one means."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import itertools
import os
import uuid
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from typing import (
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    NoReturn,
    TypeVar,
    overload,
)

from prefect_dask_core.assets import Asset
from prefect_dask_core.attributes import (
    LoggerAttribute,
    OptionAttribute,
    add_older_attributes,
    method_of_tasks,
)
from prefect_dask_core.bodies import (
    NOT_PICKLED,
    P,
    R,
    TaskBody,
    do_nothing,
    key_of,
)
from prefect_dask_core.calls import Future, Futures, caller
from prefect_dask_core.context import GraphBuilder, context, current_group, current_tags
from prefect_dask_core.edges import Annotation
from prefect_dask_core.errors import (
    DeclarationError,
    GraphError,
    MissingContextError,
    OptionTypeError,
)
from prefect_dask_core.hooks import Hook
from prefect_dask_core.lazy import refuse_lazy
from prefect_dask_core.operators import BODIES, OperatorMixin
from prefect_dask_core.options import StateHandler, TaskOptions
from prefect_dask_core.records import TaskRun
from prefect_dask_core.results.policies import CachePolicy
from prefect_dask_core.results.result import PLACE_OF_RUN, Result
from prefect_dask_core.results.sources import source_text, source_token
from prefect_dask_core.results.store import ResultStore
from prefect_dask_core.serialization import describe_task
from prefect_dask_core.signatures import is_annotated_as, number_of_outputs
from prefect_dask_core.spellings import (
    ALL_NAMES,
    change_options,
    make_options,
    nearest,
)
from prefect_dask_core.states import State
from prefect_dask_core.unused import warn_of_exclusions

T = TypeVar("T")
TaskT = TypeVar("TaskT", bound="Task")
HookT = TypeVar("HookT", bound=Callable[..., Any])

#: Options that `with_options` keeps where it is given an empty or no value.
_KEPT_IF_EMPTY: Final = frozenset(
    {
        "name",
        "description",
        "tags",
        "cache_key_fn",
        "cache_expiration",
        "on_running",
        "on_completion",
        "on_failure",
        "retry_condition_fn",
        "viz_return_value",
        "asset_deps",
    }
)
_KEPT_IF_NONE: Final = frozenset(
    {"timeout_seconds", "timeout", "cache_result_in_memory"}
)


#: Tells processes apart; one that was forked off has the same, and another id.
_PROCESS: Final = uuid.uuid4().hex
_NUMBERS: Final = itertools.count()


class Task(TaskBody, OperatorMixin, Generic[P, R]):
    """A function with options, or a subclass with a method ``run``.

    Parameters
    ----------
    fn : callable or str, optional
        The function; a string is the name of the task.
    **options
        Options by any of their spellings: `name`, `retries`, `timeout_seconds`,
        `trigger`, `cache_for`, `target`, ... ``help(TaskOptions)`` tells of each, as
        does ``docs/task_options.md``.

    Notes
    -----
    Inside ``with Flow(...)`` a call binds a copy of the task into the flow and returns
    the copy. Elsewhere it runs the task at once, in this process, with its retries,
    its limit and its hooks, and returns the value. `submit` and `map` hand runs to the
    runner of the function flow, or of the body, that they stand in.

    Examples
    --------
    >>> double = Task(lambda x: 2 * x, name="double", retries=1)
    >>> double(4), double.retries, double.max_retries
    (8, 1, 1)
    >>> class Add(Task):
    ...     def run(self, x, y=1):
    ...         return x + y
    >>> Add(name="plus")(2)
    3
    """

    name: OptionAttribute[str] = OptionAttribute()
    slug: OptionAttribute[str | None] = OptionAttribute()
    description: OptionAttribute[str | None] = OptionAttribute()
    tags: OptionAttribute[frozenset[str]] = OptionAttribute()
    version: OptionAttribute[str | None] = OptionAttribute()
    group: OptionAttribute[str] = OptionAttribute()
    retries: OptionAttribute[int] = OptionAttribute()
    retry_delay_seconds: OptionAttribute[float | tuple[float, ...]] = OptionAttribute()
    timeout_seconds: OptionAttribute[float | None] = OptionAttribute()
    trigger: OptionAttribute[Any] = OptionAttribute()
    skip_on_upstream_skip: OptionAttribute[bool] = OptionAttribute()
    state_handlers: OptionAttribute[tuple[StateHandler, ...]] = OptionAttribute()
    nout: OptionAttribute[int | None] = OptionAttribute()
    cache_for: OptionAttribute[timedelta | None] = OptionAttribute()
    #: The one in effect, where none was given too.
    cache_validator: OptionAttribute[Any] = OptionAttribute("validator")
    cache_key: OptionAttribute[str | None] = OptionAttribute()
    persist_result: OptionAttribute[bool | None] = OptionAttribute()
    result: OptionAttribute[Result | None] = OptionAttribute()
    target: OptionAttribute[Any] = OptionAttribute()
    task_run_name: OptionAttribute[Any] = OptionAttribute()
    log_prints: OptionAttribute[bool | None] = OptionAttribute()
    retry_jitter_factor: OptionAttribute[float | None] = OptionAttribute()
    retry_condition_fn: OptionAttribute[Any] = OptionAttribute()
    viz_return_value: OptionAttribute[Any] = OptionAttribute()
    annotations: OptionAttribute[Mapping[str, Any]] = OptionAttribute()
    asset_deps: OptionAttribute[tuple[Asset, ...]] = OptionAttribute()
    cache_policy: OptionAttribute[CachePolicy | None] = OptionAttribute()
    cache_key_fn: OptionAttribute[Any] = OptionAttribute()
    cache_expiration: OptionAttribute[timedelta | None] = OptionAttribute()
    refresh_cache: OptionAttribute[bool | None] = OptionAttribute()
    result_storage: OptionAttribute[ResultStore | None] = OptionAttribute()
    result_storage_key: OptionAttribute[Any] = OptionAttribute()
    result_serializer: OptionAttribute[Any] = OptionAttribute()
    cache_result_in_memory: OptionAttribute[bool] = OptionAttribute()
    #: The hooks; the methods without the ending add one.
    on_running_hooks: OptionAttribute[tuple[Hook, ...]] = OptionAttribute("on_running")
    on_completion_hooks: OptionAttribute[tuple[Hook, ...]] = OptionAttribute(
        "on_completion"
    )
    on_failure_hooks: OptionAttribute[tuple[Hook, ...]] = OptionAttribute("on_failure")
    on_commit_hooks: OptionAttribute[tuple[Hook, ...]] = OptionAttribute("on_commit")
    on_rollback_hooks: OptionAttribute[tuple[Hook, ...]] = OptionAttribute(
        "on_rollback"
    )

    #: In a run that of the run, as `get_run_logger`; elsewhere one of the task's name.
    logger = LoggerAttribute()

    #: Whether the package made the task to carry an argument.
    auto_generated: ClassVar[bool] = False
    #: Whether the task makes or cleans up a resource, so is never taken as done.
    is_resource: ClassVar[bool] = False
    #: Which of ``"init"``, ``"setup"`` and ``"cleanup"`` it does to a resource.
    resource_role: ClassVar[str | None] = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in ALL_NAMES:
            if name in vars(cls) and not isinstance(vars(cls)[name], property):
                raise OptionTypeError(
                    f"the class {cls.__name__} sets {name!r}, an option of tasks, as "
                    f"an attribute; give it as super().__init__({name}=...)."
                )

    def __new__(cls: type[TaskT], *args: Any, **kwargs: Any) -> TaskT:
        """Warn of tasks given to the constructor of a subclass: they do not run."""
        if cls.__init__ is not Task.__init__ and (args or kwargs):
            _warn_of_tasks(cls, args, kwargs)
        return super().__new__(cls)

    def __init__(
        self, fn: Callable[..., Any] | str | None = None, **options: Any
    ) -> None:
        if isinstance(fn, str):
            if options.get("name") is not None:
                raise OptionTypeError(
                    f"a task was given two names, {fn!r} and {options['name']!r}."
                )
            fn, options["name"] = None, fn
        own = self.__dict__
        self._set_body(fn)
        derived = {key: make() for key, make in self._derived().items()}
        given = {
            name: value
            for name, value in options.items()
            if not (value is None and name in derived)
        }
        made = make_options({**derived, **given}, derived["name"])
        own["options"] = made
        if "cache_policy" in given:
            self._check_policy()
        own["options"] = self._labelled_options()
        unused = context.get("_unused_tasks")
        if unused and not self.auto_generated:
            unused[-1][id(self)] = self

    @property
    def identity(self) -> str:
        """What tells this task from all others, its own copies too.

        A pickled task keeps it, so the states of a run are found by a task wherever
        either of them has been.
        """
        own = self.__dict__
        found: str | None = own.get("_identity")
        if found is None:
            found = own["_identity"] = f"{_PROCESS}-{os.getpid()}-{next(_NUMBERS)}"
        return found

    @property
    def task_key(self) -> str:
        """Name of the code: that of the function, and a hash of what it does."""
        return key_of(self)

    @property
    def source_code(self) -> str | None:
        """Text of the function; `None` where it cannot be had."""
        return source_text(self.fn)

    @property
    def source_token(self) -> str:
        """Token of what the function does; see `results.sources`."""
        found: str | None = self.__dict__.get("_source_token")
        return source_token(self.fn) if found is None else found

    def note_source(self) -> None:
        """Take the token of the source along when the task is sent."""
        self.__dict__["_source_token"] = source_token(self.fn)

    @property
    def options(self) -> TaskOptions:
        """The options, one record; the very same object in copies without changes."""
        found: TaskOptions | None = self.__dict__.get("options")
        if found is None:
            raise DeclarationError(
                f"{type(self).__name__}.__init__ must call super().__init__(...) "
                "before the task is used."
            )
        return found

    def _derived(self) -> dict[str, Callable[[], Any]]:
        """What options are where they are not given."""
        fn = self.__dict__["_fn"]
        if fn is None or fn is do_nothing:
            kind = type(self).__name__
            return {"name": lambda: kind, "nout": self._declared_nout}
        return {
            "name": lambda: getattr(fn, "__name__", type(fn).__name__),
            "description": lambda: inspect.getdoc(fn),
            "nout": self._declared_nout,
        }

    def _declared_nout(self) -> int | None:
        annotation = self.body_signature.signature.return_annotation
        # A string is only looked up if it may be a tuple: most are not.
        if isinstance(annotation, str) and "uple" in annotation:
            annotation = self.outputs()
        return number_of_outputs(annotation)

    # -- calls ------------------------------------------------------------------

    @overload
    def __call__(
        self: Task[P, Coroutine[Any, Any, T]],
        /,
        *args: Any,
        return_state: Literal[True],
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State]: ...
    @overload
    def __call__(
        self, /, *args: Any, return_state: Literal[True], **kwargs: Any
    ) -> State: ...
    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, /, *args: Any, wait_for: Any, **kwargs: Any) -> R: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Bind a copy into the active flow, or run the task now.

        Parameters
        ----------
        *args, **kwargs
            Arguments of the body. Also ``wait_for=`` or ``upstream_tasks=`` (what
            comes first), ``task_args=`` (options of this call), ``mapped=``; inside
            ``with Flow(...)`` ``flow=``; elsewhere ``return_state=``.

        Returns
        -------
        object
            Inside ``with Flow(...)`` the bound copy; elsewhere the value, of a
            coroutine function a coroutine, of a generator function a generator; with
            ``return_state=True`` the state of the run.

        Raises
        ------
        ParameterBindError
            If the arguments do not fit the signature.
        UpstreamTaskError
            If an argument is the future of a run that did not succeed.
        Exception
            What made the run fail.
        """
        flow = self._flow_of_call(kwargs)
        if flow is None:
            return caller().call(self, args, kwargs)
        mapped = bool(kwargs.get("mapped"))
        twin = self._copy_for_call(kwargs.pop("task_args", None), mapped)
        return twin.bind(*args, flow=flow, **kwargs)

    def _flow_of_call(self, kwargs: dict[str, Any]) -> GraphBuilder | None:
        active: GraphBuilder | None = context.get("flow")
        if "flow" not in kwargs:
            return active
        # Without an active flow a body may have an argument of this name.
        is_argument = "flow" in self.body_signature.names or not hasattr(
            kwargs["flow"], "set_dependencies"
        )
        if active is None and is_argument:
            return None
        return kwargs.pop("flow") or active

    def _copy_for_call(
        self: TaskT, task_args: Mapping[str, Any] | None, mapped: bool = False
    ) -> TaskT:
        self._mark_used()
        twin = self.copy(**(task_args or {}))
        if mapped and twin.nout is not None:
            # What a mapped task gives are its children's values, in a list.
            twin.__dict__["options"] = change_options(twin.options, {"nout": None})
        return twin

    @overload
    def submit(
        self, /, *args: Any, return_state: Literal[True], **kwargs: Any
    ) -> State: ...
    @overload
    def submit(
        self: Task[P, Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any
    ) -> Future[T]: ...
    @overload
    def submit(self, /, *args: Any, **kwargs: Any) -> Future[R]: ...
    @method_of_tasks
    def submit(self, /, *args: Any, **kwargs: Any) -> Any:
        """Hand a run of the task to the runner of the running flow; do not wait.

        Parameters
        ----------
        *args, **kwargs
            Arguments of the body; futures inside them, however deep, come first and
            are replaced by their values. Also ``wait_for=``, ``task_args=`` and
            ``return_state=``.

        Returns
        -------
        PrefectFuture
            The run; with ``return_state=True``, its final state.

        Raises
        ------
        MissingContextError
            Outside of a running function flow or task; also a `RuntimeError`.
        """
        if context.get("flow") is not None:
            raise MissingContextError(
                f"task {self.name!r} was submitted inside `with Flow(...)`, which "
                "builds a graph and runs nothing; call it there."
            )
        return caller().submit(self, args, kwargs)

    @overload
    def map(
        self, /, *args: Any, return_state: Literal[True], **kwargs: Any
    ) -> list[State]: ...
    @overload
    def map(
        self: Task[P, Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any
    ) -> Futures[T]: ...
    @overload
    def map(self, /, *args: Any, **kwargs: Any) -> Futures[R]: ...
    @method_of_tasks
    def map(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the task once per item of its arguments.

        Parameters
        ----------
        *args, **kwargs
            Collections of equal length, or what gives them: tasks inside ``with
            Flow(...)``, futures elsewhere. Strings, bytes, what cannot be iterated and
            what stands in `unmapped` are the same for every child. Also ``wait_for=``
            or ``upstream_tasks=``, ``task_args=``; inside ``with Flow(...)`` ``flow=``,
            elsewhere ``return_state=`` and ``deferred=``.

        Returns
        -------
        Task or FutureList
            Inside ``with Flow(...)`` the bound copy; in a running flow or task the
            futures of the children, which may be of unknown number yet; with
            ``return_state=True`` their final states.

        Raises
        ------
        MissingContextError
            Elsewhere; also a `RuntimeError`.
        """
        flow = self._flow_of_call(kwargs)
        if flow is None:
            return caller().map(self, args, kwargs)
        twin = self._copy_for_call(kwargs.pop("task_args", None), mapped=True)
        return twin.bind(*args, mapped=True, flow=flow, **kwargs)

    @method_of_tasks
    def bind(
        self: TaskT,
        *args: Any,
        mapped: bool = False,
        upstream_tasks: Iterable[Any] | None = None,
        wait_for: Iterable[Any] | None = None,
        flow: GraphBuilder | None = None,
        **kwargs: Any,
    ) -> TaskT:
        """Bind arguments to this very task in a flow, and return it."""
        flow = self._flow(flow)
        self.body_signature.refuse_in_graph(self.name)
        inputs = self.body_signature.bind(args, kwargs, self.name)
        self.__dict__["options"] = self._labelled_options()
        first = [*_as_list(upstream_tasks), *_as_list(wait_for)]
        flow.set_dependencies(
            self, upstream_tasks=first, keyword_tasks=inputs, mapped=mapped
        )
        return self

    def _flow(self, flow: GraphBuilder | None) -> GraphBuilder:
        found = flow or context.get("flow")
        if found is None:
            raise GraphError(
                f"task {self.name!r} cannot be bound without a flow; do it inside "
                "`with Flow(...)`, or give flow=."
            )
        active: GraphBuilder = found
        return active

    def _mark_used(self) -> None:
        for made in context.get("_unused_tasks", ()):
            made.pop(id(self), None)

    def apply_async(
        self,
        /,
        args: tuple[Any, ...] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wait_for: Any = None,
        dependencies: Mapping[str, Any] | None = None,
    ) -> NoReturn:
        """Leave a run to a task server; refused, as there is none yet."""
        self._refuse_to_defer("apply_async")

    def delay(self, /, *args: Any, **kwargs: Any) -> NoReturn:
        """Leave a run to a task server; refused, as there is none yet."""
        self._refuse_to_defer("delay")

    def serve(self, task_runner: Any = None) -> NoReturn:
        """Run what was left to a task server; refused, as there is none yet."""
        self._refuse_to_defer("serve")

    async def aserve(self, task_runner: Any = None) -> NoReturn:
        """Run what was left to a task server; refused, as there is none yet."""
        self._refuse_to_defer("aserve")

    def _refuse_to_defer(self, method: str) -> NoReturn:
        raise MissingContextError(
            f"task {self.name!r}: .{method}() needs a task server, which is not "
            "supported yet; use .submit() or .map() inside a flow, or a plain call."
        )

    async def create_run(
        self,
        client: Any = None,
        id: uuid.UUID | None = None,
        parameters: Mapping[str, Any] | None = None,
        flow_run_context: Any = None,
        parent_task_run_context: Any = None,
        wait_for: Any = None,
        extra_task_inputs: Mapping[str, Any] | None = None,
        deferred: bool = False,
    ) -> TaskRun:
        """Record of a run of the task that has not begun.

        Parameters
        ----------
        client : object, optional
            Ignored: there is no server that would be told.
        id : uuid.UUID, optional
            Id of the run.
        parameters : mapping of str to object, optional
            Arguments of the body; futures in them are recorded as ``task_inputs``.
        flow_run_context, parent_task_run_context : optional
            Runs that it belongs to; those around the caller unless given.
        wait_for : future or iterable of futures, optional
            What comes first.
        extra_task_inputs : mapping of str to iterable of uuid.UUID, optional
            Added to ``task_inputs``.
        deferred : bool
            Whether the state is `Scheduled` instead of `Pending`.

        Returns
        -------
        TaskRun
            The record.
        """
        found = caller().record(self, id, parameters or {}, wait_for, deferred)
        inputs = dict(found.task_inputs)
        for key, ids in (extra_task_inputs or {}).items():
            inputs[key] = inputs.get(key, frozenset()) | frozenset(ids)
        changes: dict[str, Any] = {"task_inputs": inputs}
        if flow_run_context is not None:
            changes["flow_run_id"] = flow_run_context.flow_run.id
        if parent_task_run_context is not None:
            parent = parent_task_run_context.task_run.id
            inputs["__parents__"] = frozenset({parent})
        return dataclasses.replace(found, **changes)

    async def create_local_run(self, *args: Any, **kwargs: Any) -> TaskRun:
        """Record of a run of the task that has not begun; see `create_run`."""
        return await self.create_run(*args, **kwargs)

    # -- hooks ------------------------------------------------------------------

    def on_running(self, fn: HookT) -> HookT:
        """Add a hook that is called at each attempt; for use as a decorator."""
        return self._add_hook("on_running", fn)

    def on_completion(self, fn: HookT) -> HookT:
        """Add a hook that is called at a success; for use as a decorator.

        Examples
        --------
        >>> load = Task(lambda: 3, name="load")
        >>> @load.on_completion
        ... def tell(task, task_run, state):
        ...     print(task_run.name, "ended as", state.name)
        >>> load()
        load ended as Completed
        3
        """
        return self._add_hook("on_completion", fn)

    def on_failure(self, fn: HookT) -> HookT:
        """Add a hook that is called at the final failure; for use as a decorator."""
        return self._add_hook("on_failure", fn)

    def on_commit(self, fn: HookT) -> HookT:
        """Add a hook that is called when the transaction of a run is committed."""
        return self._add_hook("on_commit", fn)

    def on_rollback(self, fn: HookT) -> HookT:
        """Add a hook that is called when the transaction of a run is rolled back."""
        return self._add_hook("on_rollback", fn)

    def _add_hook(self, option: str, fn: HookT) -> HookT:
        hooks = (*getattr(self.options, option), fn)
        own = self.__dict__
        own["options"] = change_options(self.options, {option: hooks})
        own.pop("_labelled", None)
        return fn

    # -- edges ------------------------------------------------------------------

    @method_of_tasks
    def set_dependencies(
        self: TaskT,
        flow: GraphBuilder | None = None,
        upstream_tasks: Iterable[Any] | None = None,
        downstream_tasks: Iterable[Any] | None = None,
        keyword_tasks: Mapping[str, Any] | None = None,
        mapped: bool = False,
        validate: bool | None = None,
    ) -> TaskT:
        """Add this task and its edges to a flow, and return the task."""
        self._flow(flow).set_dependencies(
            self, upstream_tasks, downstream_tasks, keyword_tasks, mapped, validate
        )
        return self

    @method_of_tasks
    def set_upstream(
        self: TaskT,
        task: Any,
        flow: GraphBuilder | None = None,
        key: str | None = None,
        mapped: bool = False,
    ) -> TaskT:
        """Let another task come before this one; with a key it gives that input."""
        self._flow(flow).add_edge(task, self, key=key, mapped=mapped)
        return self

    @method_of_tasks
    def set_downstream(
        self: TaskT,
        task: Any,
        flow: GraphBuilder | None = None,
        key: str | None = None,
        mapped: bool = False,
    ) -> TaskT:
        """Let another task come after this one; with a key it gets this one's value."""
        self._flow(flow).add_edge(self, task, key=key, mapped=mapped)
        return self

    def _operate(
        self, name: str, inputs: Mapping[str, Any], label: str | None = None
    ) -> Any:
        changes: dict[str, Any] = {}
        if label is not None:  # an item of this task, kept as its value is
            kept = {"result": _result_of_item(self.result)}
            changes = {"name": label, "persist_result": self.persist_result, **kept}
        return _OPERATIONS[name].with_options(**changes).bind(**inputs)

    # -- variants ---------------------------------------------------------------

    @method_of_tasks
    def copy(self: TaskT, **task_args: Any) -> TaskT:
        """Copy of the task in which some options or attributes differ.

        A task with a slug of its own gives ``<slug>-copy`` unless a slug is given.

        Raises
        ------
        AttributeError
            If the task has no option or attribute of a name.

        Examples
        --------
        >>> load = Task("load", retries=1)
        >>> load.copy(retries=3).retries, load.retries
        (3, 1)
        >>> load.copy().options is load.options
        True
        """
        flow: GraphBuilder | None = context.get("flow")
        if flow is not None and flow.has_edges(self):
            warnings.warn(
                f"task {self.name!r} has edges in the active flow; they are not "
                "copied to its copy.",
                stacklevel=2,
            )
        changes = {key: task_args.pop(key) for key in ALL_NAMES if key in task_args}
        for name in task_args:
            if name not in self.__dict__ or name in ("options", "_fn"):
                raise AttributeError(
                    f"task {self.name!r} has no option or attribute {name!r} that a "
                    f"copy can change; did you mean {nearest(name, ALL_NAMES)!r}?"
                )
        if self.slug is not None:
            changes.setdefault("slug", f"{self.slug}-copy")
        twin = self._twin(change_options(self.options, changes))
        if "cache_policy" in changes:
            twin._check_policy()
        labelled = twin if changes else self
        twin.__dict__["options"] = labelled._labelled_options()
        twin.__dict__.update(task_args)
        return twin

    @method_of_tasks
    def with_options(self: TaskT, **options: Any) -> TaskT:
        """Task over the same body with other options.

        An empty name, description or tags and a timeout of `None` leave the old one;
        a timeout of 0 drops it. Given tags replace the old ones.

        Examples
        --------
        >>> Task("load", timeout_seconds=9).with_options(retries=2).timeout_seconds
        9.0
        """
        changes = {
            name: value
            for name, value in options.items()
            if not (name in _KEPT_IF_EMPTY and _is_empty(value))
            and not (name in _KEPT_IF_NONE and value is None)
        }
        twin = self._twin(change_options(self.options, changes))
        if "cache_policy" in changes:
            twin._check_policy()
        return twin

    def _check_policy(self) -> None:
        """Warn of arguments that the cache policy leaves out and that there are not."""
        signature = self.body_signature
        if signature.var_keyword is None:  # else there may be any
            several = signature.var_positional
            more = () if several is None else (several,)
            warn_of_exclusions(self.options, (*signature.names, *more))

    def _twin(self: TaskT, options: TaskOptions) -> TaskT:
        twin = object.__new__(type(self))
        own = twin.__dict__
        own.update(self.__dict__)
        # The bound method of this task is not the twin's, nor are its tagged options.
        own.pop("_method", None)
        own.pop("_identity", None)
        if options is not self.options:
            own.pop("_labelled", None)
            own["options"] = options
        return twin

    def labelled(self: TaskT) -> TaskT:
        """The task with the tags and the group of the surrounding blocks."""
        options = self._labelled_options()
        return self if options is self.options else self._twin(options)

    def _labelled_options(self) -> TaskOptions:
        """The options, with the tags and the group of the surrounding blocks."""
        options = self.options
        tags, group = current_tags(), options.group or current_group()
        if tags <= options.tags and group == options.group:
            return options
        # Kept, so that all copies made in one block share one record.
        kept: tuple[Any, TaskOptions] | None = self.__dict__.get("_labelled")
        if kept is None or kept[0] != (tags, group):
            labels = {"tags": options.tags | tags, "group": group}
            made = change_options(options, labels)
            kept = self.__dict__["_labelled"] = ((tags, group), made)
        return kept[1]

    def __get__(self: TaskT, instance: Any, owner: type | None = None) -> TaskT:
        """Task of a class, bound like a method; the function itself stays as it is."""
        bound = self._bound_to(instance, owner)
        if bound is None:
            return self
        twin = self._twin(self.options)
        twin.__dict__["_fn"] = bound
        twin.__dict__["_bound"] = True
        twin.__dict__.pop("_signature", None)
        return twin

    # -- values -----------------------------------------------------------------

    def serialize(self, task: Any = None) -> dict[str, Any]:
        """Describe the task as plain data that JSON can hold.

        Parameters
        ----------
        task : object, optional
            Ignored; the first generation had it.
        """
        return describe_task(self)

    def __repr__(self) -> str:
        return f"<Task: {self.name}>"

    def __copy__(self: TaskT) -> TaskT:
        return self._twin(self.options)

    def __deepcopy__(self: TaskT, memo: dict[int, Any]) -> TaskT:
        twin = memo[id(self)] = self._twin(self.options)
        for name, value in twin.__dict__.items():
            # The definition cannot be changed, so it is shared.
            if name not in ("options", "_fn") and name not in NOT_PICKLED:
                twin.__dict__[name] = copy.deepcopy(value, memo)
        return twin


add_older_attributes(Task)


def _result_of_item(result: Result | None) -> Result | None:
    """Where an item is kept, given where the whole value is.

    In the same folder and by the same serializer, but under its own run: the place of
    the whole value would be overwritten, and its template may ask for inputs that an
    item does not have.
    """
    if result is None or result.location is None or not result.takes_location:
        return result
    return result.with_location(PLACE_OF_RUN)


def _warn_of_tasks(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    init: Callable[..., Any] = cls.__init__  # type: ignore[misc]
    places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for name, value in places:
        if isinstance(value, Task) and not is_annotated_as(init, name, Task):
            told = f"argument {name!r}" if isinstance(name, str) else "an argument"
            warnings.warn(
                f"{cls.__name__} was made with {value!r} as {told}: its constructor "
                "gets the task, not the value that it will have; give it to a call of "
                f"the task instead, as {cls.__name__}(...)(x={value.name}). A "
                "constructor that is meant to keep a task says so: "
                "`def __init__(self, inner: Task)`.",
                stacklevel=3,
            )


def _is_empty(value: Any) -> bool:
    # Not the truth of any value: that of an array is no bool.
    return value is None or (
        isinstance(value, str | list | tuple | set | frozenset | dict) and not value
    )


def _as_list(tasks: Any) -> list[Any]:
    if tasks is None:
        return []
    return [tasks] if isinstance(tasks, Task | Annotation) else list(tasks)


class Constant(Task):
    """A value that stands in a flow where a task is needed.

    Parameters
    ----------
    value : object
        The value.
    name : str, optional
        ``repr(value)`` if that is short, else ``Constant[<type>]``.

    Examples
    --------
    >>> Constant(3), Constant("a long text"), Constant(list(range(1000)))
    (<Task: 3>, <Task: Constant[str]>, <Task: Constant[list]>)
    """

    auto_generated = True

    def __init__(self, value: Any, name: str | None = None, **options: Any) -> None:
        refuse_lazy(value, "was given to Constant(...)")
        self.value = value
        super().__init__(name=name or _constant_name(value), **options)

    def run(self) -> Any:
        """Return the value."""
        return self.value


def _constant_name(value: Any) -> str:
    kind = f"Constant[{type(value).__name__}]"
    # The repr of a large value is never asked for: it may take seconds.
    if isinstance(value, list | tuple | dict | set | str | bytes) and len(value) > 8:
        return kind
    if type(value).__module__ != "builtins":
        return kind
    shown = repr(value)
    return shown if len(shown) <= 8 else kind


#: The tasks of operators; each use binds a copy, and all copies share one body.
_OPERATIONS: Final = {name: Task(body, name=name) for name, body in BODIES.items()}


@overload
def task(fn: Callable[P, R], **options: Any) -> Task[P, R]: ...
@overload
def task(fn: None = None, **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(fn: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a task of a function: ``@task`` or ``@task(retries=2)``.

    Parameters
    ----------
    fn : callable, optional
        The function.
    **options
        Options by any of their spellings; ``help(TaskOptions)`` tells of each.

    Examples
    --------
    >>> @task(retries=2)
    ... def load(path):
    ...     return path.upper()
    >>> load("a"), load.name, load.retries
    ('A', 'load', 2)
    """
    if fn is None:
        return functools.partial(task, **options)
    if isinstance(fn, str):
        raise OptionTypeError(f"@task was given {fn!r}; write @task(name={fn!r}).")
    return Task(fn, **options)
