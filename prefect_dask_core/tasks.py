"""Tasks: a function together with its options, and what a call of one means."""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, ClassVar, Final, Generic, TypeVar, overload

import cloudpickle

from prefect_dask_core.context import GraphBuilder, context, current_tags
from prefect_dask_core.edges import Annotation
from prefect_dask_core.errors import (
    DeclarationError,
    GraphError,
    MissingContextError,
    OptionTypeError,
    ParameterBindError,
)
from prefect_dask_core.operators import BODIES, OperatorMixin
from prefect_dask_core.options import StateHandler, TaskOptions
from prefect_dask_core.signatures import (
    RESERVED,
    BodySignature,
    inputs_of,
    number_of_outputs,
    output_of,
)
from prefect_dask_core.spellings import (
    ALL_NAMES,
    OLDER,
    change_options,
    make_options,
    nearest,
    read_older,
)

T = TypeVar("T")
TaskT = TypeVar("TaskT", bound="Task")

#: Options that `with_options` keeps where it is given an empty or no value.
_KEPT_IF_EMPTY: Final = frozenset({"name", "description", "tags"})
_KEPT_IF_NONE: Final = frozenset({"timeout_seconds", "timeout"})
#: What a task computes again instead of taking it along to a worker.
_NOT_PICKLED: Final = frozenset({"_method", "_signature", "_tagged", "__wrapped__"})


class OptionAttribute(Generic[T]):
    """An option of a task, read as an attribute of the task."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> OptionAttribute[T]: ...
    @overload
    def __get__(self, instance: Any, owner: type) -> T: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else self.read(instance.options)

    def read(self, options: TaskOptions) -> Any:
        """Value of the option."""
        return getattr(options, self.name)

    def __set__(self, instance: Any, value: Any) -> None:
        raise AttributeError(
            f"the option {self.name!r} of a task cannot be changed; "
            f"task.with_options({self.name}=...) gives a task that differs in it."
        )


class OlderAttribute(OptionAttribute[Any]):
    """An option of a task, read under an older name."""

    def read(self, options: TaskOptions) -> Any:
        """Value of the option, as its older name has it."""
        return read_older(options, self.name)


def _do_nothing() -> None:
    """Body of a task that was given none."""


class Task(OperatorMixin):
    """A function with options, or a subclass with a method ``run``.

    Parameters
    ----------
    fn : callable or str, optional
        The function; a string is the name of the task.
    **options
        Options by any of their spellings, see `TaskOptions`.

    Notes
    -----
    Inside ``with Flow(...)`` a call binds a copy of the task into the flow and returns
    the copy; elsewhere it runs the body and returns the value.

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
    retries: OptionAttribute[int] = OptionAttribute()
    retry_delay_seconds: OptionAttribute[float | tuple[float, ...]] = OptionAttribute()
    timeout_seconds: OptionAttribute[float | None] = OptionAttribute()
    trigger: OptionAttribute[Any] = OptionAttribute()
    skip_on_upstream_skip: OptionAttribute[bool] = OptionAttribute()
    state_handlers: OptionAttribute[tuple[StateHandler, ...]] = OptionAttribute()
    nout: OptionAttribute[int | None] = OptionAttribute()

    #: Whether the package made the task to carry an argument.
    auto_generated: ClassVar[bool] = False

    _run_signature: ClassVar[BodySignature] = BodySignature.of(_do_nothing, "Task")
    _has_run: ClassVar[bool] = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in ALL_NAMES:
            if name in vars(cls) and not isinstance(vars(cls)[name], property):
                raise OptionTypeError(
                    f"the class {cls.__name__} sets {name!r}, an option of tasks, as "
                    f"an attribute; give it as super().__init__({name}=...)."
                )
        if "run" in vars(cls):
            method = inspect.isfunction(vars(cls)["run"])
            signature = BodySignature.of(cls.run, cls.__name__, bound=method)
            cls._run_signature = signature
            cls._has_run = True

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
        own["_fn"], own["_binding"] = self._checked(fn)
        if fn is not None:
            functools.update_wrapper(self, own["_fn"], updated=())
        derived = {key: make() for key, make in self._derived().items()}
        given = {
            name: value
            for name, value in options.items()
            if not (value is None and name in derived)
        }
        made = make_options({**derived, **given}, derived["name"])
        own["options"] = made
        own["options"] = self._tagged_options()
        unused = context.get("_unused_tasks")
        if unused is not None and not self.auto_generated:
            unused[id(self)] = self

    def _checked(self, fn: Any) -> tuple[Callable[..., Any] | None, type | None]:
        """The function, and what kind of method it was declared as."""
        if fn is None:
            return (None if self._has_run else _do_nothing), None
        kind = type(self).__name__
        if self._has_run:
            raise OptionTypeError(
                f"{kind} has a method run() and was also given the function {fn!r}; "
                "a task has one body."
            )
        if isinstance(fn, Task):
            raise OptionTypeError(
                f"{fn!r} is a task already; use its with_options(...) for a variant."
            )
        if isinstance(fn, staticmethod | classmethod):
            return fn.__func__, type(fn)
        if not callable(fn):
            raise OptionTypeError(
                f"{kind} takes a function, or a string as its name, and got {fn!r}."
            )
        return fn, None

    def _derived(self) -> dict[str, Callable[[], Any]]:
        """What options are where they are not given."""
        fn = self.__dict__["_fn"]
        if fn is None or fn is _do_nothing:
            kind = type(self).__name__
            return {"name": lambda: kind, "nout": self._declared_nout}
        return {
            "name": lambda: getattr(fn, "__name__", type(fn).__name__),
            "description": lambda: inspect.getdoc(fn),
            "nout": self._declared_nout,
        }

    def _declared_nout(self) -> int | None:
        annotation = self.signature.signature.return_annotation
        # A string is only looked up if it may be a tuple: most are not.
        if isinstance(annotation, str) and "uple" in annotation:
            annotation = self.outputs()
        return number_of_outputs(annotation)

    # -- body -------------------------------------------------------------------

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

    @property
    def fn(self) -> Callable[..., Any]:
        """The body: the function, or the bound method ``run`` of a subclass."""
        own = self.__dict__
        fn: Callable[..., Any] | None = own["_fn"]
        if fn is None:
            fn = own.get("_method")
            if fn is None:
                # Kept, so that the body is one object for those who ask again.
                fn = own["_method"] = self.run
        return fn

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body as a plain function; a subclass puts its code here."""
        fn = self.__dict__["_fn"]
        return None if fn is None else fn(*args, **kwargs)

    @property
    def signature(self) -> BodySignature:
        """Signature of the body, read once."""
        own = self.__dict__
        if own["_fn"] is None:
            return self._run_signature
        found: BodySignature | None = own.get("_signature")
        if found is None:
            label = getattr(own["_fn"], "__name__", type(own["_fn"]).__name__)
            found = own["_signature"] = BodySignature.of(own["_fn"], label)
        return found

    @property
    def isasync(self) -> bool:
        """Whether the body is a coroutine function."""
        fn = self.fn
        # An object with an async __call__ is no coroutine function itself.
        return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
            type(fn).__call__
        )

    def call_body(self, inputs: Mapping[str, Any]) -> Any:
        """Call the body with inputs by name; a coroutine function gives a coroutine."""
        signature = self.signature
        if signature.by_keyword:
            return self.fn(**inputs)
        args, kwargs = signature.arrange(inputs)
        return self.fn(*args, **kwargs)

    def inputs(self) -> dict[str, Any]:
        """Parameters of the body: name -> its type, whether required, its default."""
        return inputs_of(self.fn, self.signature)

    def outputs(self) -> Any:
        """Return annotation of the body, `typing.Any` without one."""
        return output_of(self.fn, self.signature)

    # -- calls ------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Bind a copy into the active flow, or run the body now.

        Parameters
        ----------
        *args, **kwargs
            Arguments of the body. Inside a flow also ``upstream_tasks=`` and
            ``wait_for=`` (tasks that come first), ``mapped=``, ``task_args=`` (options
            of the copy) and ``flow=``.

        Raises
        ------
        ParameterBindError
            If the arguments do not fit the signature.
        """
        flow = self._flow_of_call(kwargs)
        if flow is None:
            return self._run_now(args, kwargs)
        copy = self._copy_for_call(kwargs.pop("task_args", None))
        return copy.bind(*args, flow=flow, **kwargs)

    def _flow_of_call(self, kwargs: dict[str, Any]) -> GraphBuilder | None:
        active: GraphBuilder | None = context.get("flow")
        # Without an active flow a body may have a parameter of this name.
        if active is None and "flow" in self.signature.names:
            return None
        return kwargs.pop("flow", None) or active

    def _run_now(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for option in RESERVED:
            if option in kwargs:
                raise ParameterBindError(
                    f"task {self.name!r} was called with {option}=, which only means "
                    "something inside `with Flow(...)`."
                )
        self.signature.bind(args, kwargs, self.name)
        return self.fn(*args, **kwargs)

    def _copy_for_call(
        self: TaskT, task_args: Mapping[str, Any] | None, mapped: bool = False
    ) -> TaskT:
        self._mark_used()
        copy = self.copy(**(task_args or {}))
        if mapped and copy.nout is not None:
            # What a mapped task gives are its children's values, in a list.
            copy.__dict__["options"] = change_options(copy.options, {"nout": None})
        return copy

    def map(
        self: TaskT,
        *args: Any,
        upstream_tasks: Iterable[Any] | None = None,
        wait_for: Iterable[Any] | None = None,
        flow: GraphBuilder | None = None,
        task_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> TaskT:
        """Run the task once per item of its arguments.

        Parameters
        ----------
        *args, **kwargs
            Collections of equal length. Strings, bytes, what cannot be iterated and
            what stands in `unmapped` are the same for every child.
        upstream_tasks, wait_for : iterable of Task, optional
            Tasks that come first, child by child if they are mapped.
        flow : Flow, optional
            The flow; the active one unless given.
        task_args : mapping, optional
            Options of the copy.

        Raises
        ------
        MissingContextError
            Without a flow; also a `RuntimeError`.
        """
        flow = flow or context.get("flow")
        if flow is None:
            raise MissingContextError(
                f"task {self.name!r} was mapped outside of a flow; call .map inside "
                "`with Flow(...)`, or give flow=."
            )
        copy = self._copy_for_call(task_args, mapped=True)
        return copy.bind(
            *args,
            mapped=True,
            upstream_tasks=upstream_tasks,
            wait_for=wait_for,
            flow=flow,
            **kwargs,
        )

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
        self.signature.refuse_in_graph(self.name)
        inputs = self.signature.bind(args, kwargs, self.name)
        self.__dict__["options"] = self._tagged_options()
        first = [*_as_list(upstream_tasks), *_as_list(wait_for)]
        flow.set_dependencies(
            self, upstream_tasks=first, keyword_tasks=inputs, mapped=mapped
        )
        self._mark_used()
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
        unused = context.get("_unused_tasks")
        if unused:
            unused.pop(id(self), None)

    # -- edges ------------------------------------------------------------------

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
        changes = {} if label is None else {"name": label}
        return _OPERATIONS[name].with_options(**changes).bind(**inputs)

    # -- variants ---------------------------------------------------------------

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
        copy = self._twin(change_options(self.options, changes))
        if not changes:
            copy.__dict__["options"] = self._tagged_options()
        elif not current_tags() <= copy.tags:
            copy.__dict__["options"] = copy._tagged_options()
        copy.__dict__.update(task_args)
        return copy

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
            if not (name in _KEPT_IF_EMPTY and not value)
            and not (name in _KEPT_IF_NONE and value is None)
        }
        return self._twin(change_options(self.options, changes))

    def _twin(self: TaskT, options: TaskOptions) -> TaskT:
        twin = object.__new__(type(self))
        own = twin.__dict__
        own.update(self.__dict__)
        # The bound method of this task is not the twin's, nor are its tagged options.
        own.pop("_method", None)
        if options is not self.options:
            own.pop("_tagged", None)
            own["options"] = options
        return twin

    def _tagged_options(self) -> TaskOptions:
        """The options, with the tags of the surrounding block."""
        block = current_tags()
        options = self.options
        if block <= options.tags:
            return options
        # Kept, so that all copies made in one block share one record.
        kept: tuple[frozenset[str], TaskOptions] | None = self.__dict__.get("_tagged")
        if kept is None or kept[0] != block:
            tagged = change_options(options, {"tags": options.tags | block})
            kept = self.__dict__["_tagged"] = (block, tagged)
        return kept[1]

    def __get__(self: TaskT, instance: Any, owner: type | None = None) -> TaskT:
        """Task of a class, bound like a method; the function itself stays as it is."""
        fn = self.__dict__.get("_fn")
        binding = self.__dict__.get("_binding")
        bound_to = owner if binding is classmethod else instance
        if (
            bound_to is None
            or binding is staticmethod
            or not isinstance(fn, FunctionType)
            or fn is _do_nothing
        ):
            return self
        twin = self._twin(self.options)
        twin.__dict__["_fn"] = functools.partial(fn, bound_to)
        twin.__dict__.pop("_signature", None)
        return twin

    # -- values -----------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Task: {self.name}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Like a function, a task that its module holds travels as its name.
        if _travels_by_name(self):
            return self.__dict__["__qualname__"]
        return super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k not in _NOT_PICKLED}
        fn = state.get("_fn")
        original = None if fn is None else _found_by_name(fn)
        if (
            isinstance(original, Task)
            and original.__dict__.get("_fn") is fn
            and _travels_by_name(original)
        ):
            # The name of a decorated function leads to its task, not to itself.
            state["_fn"] = _FunctionOf(original)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "__name__" in state:
            self.__dict__["__wrapped__"] = state["_fn"]


for _name in OLDER:
    if OLDER[_name].read is not None and not hasattr(Task, _name):
        _attribute = OlderAttribute()
        _attribute.__set_name__(Task, _name)
        setattr(Task, _name, _attribute)


class _FunctionOf:
    """Pickles to the function of a task; nothing of it remains once loaded."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.task, "fn")


def _travels_by_name(task: Task) -> bool:
    # A class hands out a bound copy of a classmethod's task, not the task itself.
    return _found_by_name(task) is task and task.__dict__["_binding"] is not classmethod


def _found_by_name(thing: Any) -> Any:
    """What stands in its module under the name of a function or task; else `None`."""
    # Of a task only what it took over from its function, not what its class says.
    own = vars(thing) if isinstance(thing, Task) else None
    module, path = (
        getattr(thing, name, None) if own is None else own.get(name)
        for name in ("__module__", "__qualname__")
    )
    if not module or not path or module == "__main__" or _goes_by_value(module):
        return None
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        # Not getattr: a class would bind the task instead of handing it out.
        found = getattr(found, "__dict__", {}).get(part)
    return found


def _goes_by_value(module: str) -> bool:
    """Whether the user asked cloudpickle to send the module's content along."""
    listed = cloudpickle.list_registry_pickle_by_value()
    return any(module == name or module.startswith(f"{name}.") for name in listed)


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
def task(fn: Callable[..., Any], **options: Any) -> Task: ...
@overload
def task(fn: None = None, **options: Any) -> Callable[[Callable[..., Any]], Task]: ...
def task(fn: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a task of a function: ``@task`` or ``@task(retries=2)``.

    Parameters
    ----------
    fn : callable, optional
        The function.
    **options
        Options by any of their spellings, see `TaskOptions`.

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
