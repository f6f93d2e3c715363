"""Attributes of tasks: options read as such, the logger, methods that need a task."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from prefect_dask_core.context import context
from prefect_dask_core.errors import DeclarationError
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.spellings import OLDER, read_older

T = TypeVar("T")
MethodT = TypeVar("MethodT", bound=Callable[..., Any])

if TYPE_CHECKING:
    AnyLogger = logging.Logger | logging.LoggerAdapter[logging.Logger]


class OptionAttribute(Generic[T]):
    """An option of a task, read from its ``options``.

    Parameters
    ----------
    source : str, optional
        Attribute of the options that is read; the option's name unless given.

    Examples
    --------
    >>> class Owner:
    ...     options = TaskOptions("load", retries=2)
    ...     retries = OptionAttribute()
    >>> Owner().retries
    2
    >>> Owner().retries = 3
    Traceback (most recent call last):
    AttributeError: the option 'retries' of a task cannot be changed; \
task.with_options(retries=...) gives a task that differs in it.
    """

    def __init__(self, source: str | None = None) -> None:
        self._source = source

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
        return getattr(options, self._source or self.name)

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


def add_older_attributes(cls: type) -> None:
    """Let a class have every older name as an attribute, unless it has its own."""
    for name, spelling in OLDER.items():
        if spelling.read is not None and not hasattr(cls, name):
            attribute = OlderAttribute()
            attribute.__set_name__(cls, name)
            setattr(cls, name, attribute)


class LoggerAttribute:
    """The logger of a task: in a run that of the run, elsewhere one of the task's name.

    A class or a task that sets a `logger` of its own has that instead.

    Examples
    --------
    >>> class Owner:
    ...     name = "load"
    ...     logger = LoggerAttribute()
    >>> Owner().logger.name
    'prefect_dask_core.load'
    """

    @overload
    def __get__(self, instance: None, owner: type) -> LoggerAttribute: ...
    @overload
    def __get__(self, instance: Any, owner: type) -> AnyLogger: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        # Nothing is kept on the task: it is pickled, and it is in many runs.
        found = context.get("logger")
        if found is None:
            found = logging.getLogger(f"prefect_dask_core.{instance.name}")
        return found


class _MethodOfTasks:
    """A method that says what to do where it is called on a class."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        functools.update_wrapper(cast(Any, self), function)

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None:
            return MethodType(self._function, instance)
        function, class_name = self._function, owner.__name__

        @functools.wraps(function)
        def on_class(*args: Any, **kwargs: Any) -> Any:
            if not args or not isinstance(args[0], owner):
                raise DeclarationError(
                    f"{class_name} is a class; make a task of it first: "
                    f"{class_name}().{function.__name__}(...)."
                )
            return function(*args, **kwargs)

        return on_class


def method_of_tasks(function: MethodT) -> MethodT:
    """Decorate a method that needs a task, and is easily called on a class of tasks.

    Examples
    --------
    >>> class Load:
    ...     @method_of_tasks
    ...     def map(self, items):
    ...         return list(items)
    >>> Load().map("ab"), Load.map(Load(), "ab")
    (['a', 'b'], ['a', 'b'])
    >>> Load.map("ab")
    Traceback (most recent call last):
    prefect_dask_core.errors.DeclarationError: Load is a class; make a task of it \
first: Load().map(...).
    """
    made: Any = _MethodOfTasks(function)
    return made  # type: ignore[no-any-return]
