"""Bodies: what a task runs, a function or the method ``run`` of a subclass.

A body is pickled like a function: by its name, where its module holds it, and else by
value, which `cloudpickle` can.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import reprlib
import sys
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec, TypeVar, cast

import cloudpickle

from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.signatures import BodySignature, inputs_of, output_of

if TYPE_CHECKING:
    import typing_extensions

    # With defaults, so that a bare `Task` is one of any arguments and value.
    P = typing_extensions.ParamSpec("P", default=...)
    R = typing_extensions.TypeVar("R", default=Any)
else:
    #: Parameters and value of a body, which tasks and flows keep.
    P = ParamSpec("P")
    R = TypeVar("R")

#: What is worked out again after pickling instead of being taken along.
NOT_PICKLED: Final = frozenset(
    {
        "_method",
        "_signature",
        "_validator",
        "_labelled",
        "_quick",
        "_within",
        "__wrapped__",
    }
)


#: Attributes that are not of the users.
_OWN: Final = NOT_PICKLED | {
    "_binding",
    "_bound",
    "_fn",
    "_identity",
    "_source_token",
    "options",
}


def do_nothing() -> None:
    """Body of a task that was given none."""


class TaskBody:
    """The part of a task that knows its body.

    Notes
    -----
    ``_fn`` is the function, `None` in a subclass with a method ``run``; ``_binding`` is
    `classmethod` or `staticmethod` if the function was declared as one.
    """

    _run_signature: ClassVar[BodySignature] = BodySignature.of(do_nothing, "Task")
    _has_run: ClassVar[bool] = False
    #: What has the body, for messages.
    _kind: ClassVar[str] = "task"

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "run" in vars(cls):
            method = inspect.isfunction(vars(cls)["run"])
            signature = BodySignature.of(cls.run, cls.__name__, bound=method)
            cls._run_signature = signature
            cls._has_run = True

    def _set_body(self, fn: Any) -> None:
        own = self.__dict__
        own["_fn"], own["_binding"] = self._checked_body(fn)
        if fn is not None:
            functools.update_wrapper(cast(Any, self), own["_fn"], updated=())

    def _checked_body(self, fn: Any) -> tuple[Callable[..., Any] | None, type | None]:
        """The function, and what kind of method it was declared as."""
        if fn is None:
            return (None if self._has_run else do_nothing), None
        kind = type(self).__name__
        if self._has_run:
            if isinstance(fn, TaskBody) or not callable(fn):  # meant as an input
                told = reprlib.repr(fn)
                raise OptionTypeError(
                    f"{kind} is a class; make a task of it first: {kind}()({told})."
                )
            raise OptionTypeError(
                f"{kind} has a method run() and was also given the function {fn!r}; "
                "a task has one body."
            )
        if isinstance(fn, TaskBody):
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

    def _attributes_of_user(self) -> dict[str, Any]:
        """What a subclass has set, which its ``run`` reads."""
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in _OWN and not name.startswith("__")
        }

    @property
    def body_signature(self) -> BodySignature:
        """Signature of the body, read once."""
        own = self.__dict__
        if own["_fn"] is None:
            return self._run_signature
        found: BodySignature | None = own.get("_signature")
        if found is None:
            label = getattr(own["_fn"], "__name__", type(own["_fn"]).__name__)
            found = own["_signature"] = BodySignature.of(
                own["_fn"], label, kind=self._kind
            )
        return found

    @property
    def isasync(self) -> bool:
        """Whether the body is a coroutine function."""
        fn = self.fn
        # An object with an async __call__ is no coroutine function itself.
        return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
            type(fn).__call__
        )

    @property
    def isgenerator(self) -> bool:
        """Whether the body is a generator function, asynchronous or not."""
        fn = self.fn
        return any(
            inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one)
            for one in (fn, type(fn).__call__)
        )

    @property
    def ismethod(self) -> bool:
        """Whether the body is bound to an instance or a class."""
        return bool(self.__dict__.get("_bound"))

    @property
    def isclassmethod(self) -> bool:
        """Whether the body was declared as a class method."""
        return self.__dict__["_binding"] is classmethod

    @property
    def isstaticmethod(self) -> bool:
        """Whether the body was declared as a static method."""
        return self.__dict__["_binding"] is staticmethod

    def call_body(self, inputs: Mapping[str, Any]) -> Any:
        """Call the body with inputs by name; a coroutine function gives a coroutine."""
        signature = self.body_signature
        if signature.by_keyword:
            return self.fn(**inputs)
        args, kwargs = signature.arrange(inputs)
        return self.fn(*args, **kwargs)

    def inputs(self) -> dict[str, Any]:
        """Parameters of the body: name -> its type, whether required, its default."""
        return inputs_of(self.fn, self.body_signature)

    def outputs(self) -> Any:
        """Return annotation of the body, `typing.Any` without one."""
        return output_of(self.fn, self.body_signature)

    def _bound_to(self, instance: Any, owner: type | None) -> Any:
        """The function, bound like a method; `None` if there is nothing to bind."""
        fn = self.__dict__.get("_fn")
        binding = self.__dict__.get("_binding")
        target = owner if binding is classmethod else instance
        if target is None or binding is staticmethod or fn is do_nothing:
            return None
        return functools.partial(fn, target) if isinstance(fn, FunctionType) else None

    # -- pickling ---------------------------------------------------------------

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Like a function, a task that its module holds travels as its name.
        if _travels_by_name(self):
            return self.__dict__["__qualname__"]
        return super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k not in NOT_PICKLED}
        fn = state.get("_fn")
        original = None if fn is None else _found_by_name(fn)
        if (
            isinstance(original, TaskBody)
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


def key_of(task: TaskBody) -> str:
    """Name of the code of a task: of its function, and a hash of its bytecode.

    Examples
    --------
    >>> from prefect_dask_core.tasks import Task
    >>> key_of(Task(len, name="any")).partition("-")[0]
    'len'
    """
    fn: Any = task.fn
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = getattr(fn, "__func__", fn)
    name = getattr(fn, "__qualname__", None)
    if name is None:
        return type(fn).__qualname__
    code = getattr(fn, "__code__", None)
    source = (
        name.encode() if code is None else code.co_code + repr(code.co_names).encode()
    )
    return f"{name.rpartition('.')[2]}-{hashlib.sha256(source).hexdigest()[:8]}"


class _FunctionOf:
    """Pickles to the function of a task; nothing of it remains once loaded."""

    def __init__(self, task: TaskBody) -> None:
        self.task = task

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.task, "fn")


def _travels_by_name(task: TaskBody) -> bool:
    # A class hands out a bound copy of a classmethod's task, not the task itself.
    return _found_by_name(task) is task and task.__dict__["_binding"] is not classmethod


def _found_by_name(thing: Any) -> Any:
    """What stands in its module under the name of a function or task; else `None`."""
    # Of a task only what it took over from its function, not what its class says.
    own = vars(thing) if isinstance(thing, TaskBody) else None
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
