"""Options read as attributes of the object that has them."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

from prefect_dask_core.options import TaskOptions
from prefect_dask_core.spellings import OLDER, read_older

T = TypeVar("T")


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
