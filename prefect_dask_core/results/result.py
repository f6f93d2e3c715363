"""Results: a value, the place where it is kept, and how to get from one to the other.

A result is given to a task as its option `result`; it then describes the place, and
`write` gives a result that holds a value in it. Methods return new results and leave
the old one as it is.
"""

from __future__ import annotations

import copy
import json
import os
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Final, TypeVar

from prefect_dask_core.config import results_dir
from prefect_dask_core.errors import MissingResult, OptionTypeError, ResultKindError
from prefect_dask_core.naming import format_location
from prefect_dask_core.results.serializers import JSONSerializer, as_serializer
from prefect_dask_core.results.storage import is_url, write_aside

ResultT = TypeVar("ResultT", bound="Result")

#: Template of a place that no other run has: the run's own name in its flow run.
PLACE_OF_RUN: Final = "{flow_run_id}/{task_slug}-{map_index}"


class Result:
    """A value in memory, which is kept nowhere; the base of the other results.

    Parameters
    ----------
    value : object, optional
        The value.
    location : str or callable, optional
        Where the value is kept, or a template or callable that `format` makes the
        place of.
    serializer : Serializer, optional
        How the value becomes bytes; pickle unless given. Also any object with
        ``serialize`` and ``deserialize``, or ``dumps`` and ``loads``.

    Notes
    -----
    A result of one's own overrides `exists`, `read` and `write`.

    Source of the names: results of the graph generations.

    Examples
    --------
    >>> result = Result(location="{flow_name}/{x}.pkl")
    >>> result.format(flow_name="etl", x=3).location
    'etl/3.pkl'
    >>> result.from_value([1, 2]).value, result.value
    ([1, 2], None)
    >>> result.write([1, 2])
    Traceback (most recent call last):
    prefect_dask_core.errors.ResultKindError: a Result keeps its value in memory only \
and cannot write; give the task a result with a place, such as LocalResult().
    """

    def __init__(
        self,
        value: Any = None,
        location: str | Callable[..., str] | None = None,
        serializer: Any = None,
    ) -> None:
        if not (location is None or isinstance(location, str) or callable(location)):
            raise OptionTypeError(
                f"{type(self).__name__}: location={location!r}, but expected a string, "
                "which may be a template, or a callable that returns one."
            )
        self.value = value
        self.location = location
        self.serializer = as_serializer(serializer)

    # -- a value ----------------------------------------------------------------

    def copy(self: ResultT) -> ResultT:
        """Copy of the result."""
        return copy.copy(self)

    def from_value(self: ResultT, value: Any) -> ResultT:
        """Copy of the result that holds a value."""
        twin = self.copy()
        twin.value = value
        return twin

    def with_location(
        self: ResultT, location: str | Callable[..., str] | None
    ) -> ResultT:
        """Copy of the result with another place."""
        twin = self.copy()
        twin.location = location
        return twin

    def format(self: ResultT, **kwargs: Any) -> ResultT:
        """Copy of the result whose location is that of one run.

        Parameters
        ----------
        **kwargs
            Variables that the location, a template or a callable, may ask for.

        Raises
        ------
        TemplateError
            If the location asks for what is not given.
        """
        if self.location is None:
            return self.copy()
        return self.with_location(format_location(self.location, kwargs))

    def __eq__(self, other: object) -> bool:
        """Same class, place, serializer and value."""
        if type(self) is not type(other):
            return NotImplemented
        mine, its = vars(self), vars(other)
        return mine.keys() == its.keys() and all(
            _same(value, its[name]) for name, value in mine.items()
        )

    def __hash__(self) -> int:
        return hash((type(self), self.location))

    def __repr__(self) -> str:
        # Without the value, which may be large, or a secret.
        where = "" if self.location is None else f"location={self.location!r}"
        return f"{type(self).__name__}({where})"

    # -- storage ----------------------------------------------------------------

    @property
    def is_stored(self) -> bool:
        """Whether `write` keeps a value."""
        return type(self).write is not Result.write

    @property
    def takes_location(self) -> bool:
        """Whether a value is kept where `location` says, and can be looked for."""
        return type(self).exists is not Result.exists

    def exists(self, location: str | Callable[..., str], **kwargs: Any) -> bool:
        """Whether a value is kept in a place.

        Parameters
        ----------
        location : str or callable
            The place; a template if there are variables for it.
        **kwargs
            Variables of the template.
        """
        raise self._refusal("look for a value")

    def read(self, location: str) -> Result:
        """Copy of the result that holds the value of a place.

        Raises
        ------
        MissingResult
            If nothing is kept there, or nothing that can be read.
        """
        raise self._refusal("read")

    def write(self, value: Any, **kwargs: Any) -> Result:
        """Keep a value; the result that is returned holds it and its location.

        Parameters
        ----------
        value : object
            The value; `None` is a value like any other.
        **kwargs
            Variables of the location if that is a template; without any, it is taken
            as it is.
        """
        raise self._refusal("write")

    def _refusal(self, action: str) -> ResultKindError:
        kind = type(self).__name__
        if type(self) is Result:
            return ResultKindError(
                f"a Result keeps its value in memory only and cannot {action}; give "
                "the task a result with a place, such as LocalResult()."
            )
        return ResultKindError(f"a {kind} cannot {action}.")


class LocalResult(Result):
    """Values in files of a folder.

    Parameters
    ----------
    dir : str or path, optional
        The folder; that of the setting ``prefect-dask-core.results-dir`` unless given.
        It is made when the first value is written.
    location : str or callable, optional
        File in the folder, or an absolute path, or a template or callable for these;
        named by the time of writing unless given.
    serializer : Serializer, optional
        How the value becomes bytes; pickle unless given.
    validate_dir : bool
        Whether to make the folder an absolute path (``~`` is the home folder) and to
        refuse one that is a file. `False` takes it as it is.

    Raises
    ------
    ValueError
        If the folder is a URL or a file.

    Notes
    -----
    A file is complete or not there: it is written aside and then moved in place.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = LocalResult(folder, location="{x}/total.pkl")
    ...     written = result.write(12, x="monday")
    ...     found = result.exists("monday/total.pkl")
    ...     value = result.read(written.location).value
    >>> written.location, found, value
    ('monday/total.pkl', True, 12)
    """

    def __init__(
        self,
        dir: str | os.PathLike[str] | None = None,
        location: str | Callable[..., str] | None = None,
        serializer: Any = None,
        validate_dir: bool = True,
    ) -> None:
        # Worked out here and not where the result is used: all workers then agree.
        folder = os.fspath(results_dir() if dir is None else dir)
        _refuse_url(folder)
        if validate_dir:
            folder = os.path.abspath(os.path.expanduser(folder))
            if os.path.exists(folder) and not os.path.isdir(folder):
                raise ValueError(f"LocalResult(dir={dir!r}): this is not a folder.")
        if isinstance(location, str):
            _refuse_url(location)
        super().__init__(location=location, serializer=serializer)
        self.dir = folder

    def exists(self, location: str | Callable[..., str], **kwargs: Any) -> bool:
        """Whether there is a file."""
        return os.path.isfile(self._path(_place(location, kwargs)))

    def read(self, location: str) -> Result:
        """Copy of the result that holds the value of a file.

        Raises
        ------
        MissingResult
            If there is no such file, or it cannot be read.
        """
        path = self._path(location)
        try:
            with open(path, "rb") as file:
                blob = file.read()
        except OSError as error:
            raise MissingResult(f"no result can be read from {path!r}: {error}") from (
                error
            )
        try:
            value = self.serializer.deserialize(blob)
        except Exception as error:  # damaged bytes can make a serializer do anything
            raise MissingResult(
                f"the file {path!r} is damaged or was written by another serializer "
                f"than {self.serializer!r}: {type(error).__name__}: {error}"
            ) from error
        return self.with_location(location).from_value(value)

    def write(self, value: Any, **kwargs: Any) -> Result:
        """Write a file."""
        location = (
            _name_by_time(datetime.now(timezone.utc))
            if self.location is None
            else _place(self.location, kwargs)
        )
        write_aside(self._path(location), self.serializer.serialize(value))
        return self.with_location(location).from_value(value)

    def _path(self, location: str) -> str:
        _refuse_url(location)
        folder = os.path.abspath(self.dir)
        path = os.path.normpath(os.path.join(folder, location))
        # Only who names an absolute path leaves the folder: a `..` may come from the
        # value of an input.
        inside = os.path.join(folder, "")
        if not os.path.isabs(location) and not path.startswith(inside):
            raise ValueError(
                f"the location {location!r} leads out of the folder {self.dir!r}; name "
                "a file in it, or give an absolute path."
            )
        return path

    def __repr__(self) -> str:
        where = "" if self.location is None else f", location={self.location!r}"
        return f"LocalResult({self.dir!r}{where})"


class PrefectResult(Result):
    """Values that are their own location, as JSON: small ones, for a person to see.

    Parameters
    ----------
    value : object, optional
        A value that JSON has.
    location : str, optional
        A JSON text.

    Examples
    --------
    >>> PrefectResult().write({"rows": 3}).location
    '{"rows": 3}'
    >>> PrefectResult().read('[1, 2]').value
    [1, 2]
    """

    def __init__(self, value: Any = None, location: str | None = None) -> None:
        super().__init__(value, location, JSONSerializer())

    @property
    def takes_location(self) -> bool:
        """No: the location is made of the value."""
        return False

    def format(self: ResultT, **kwargs: Any) -> ResultT:
        """Copy of the result: JSON is no template."""
        return self.copy()

    def exists(self, location: str | Callable[..., str], **kwargs: Any) -> bool:
        """Whether the text is JSON."""
        try:
            json.loads(_place(location, {}))
        except ValueError:
            return False
        return True

    def read(self, location: str) -> Result:
        """Copy of the result that holds the value of a JSON text."""
        try:
            value = json.loads(location)
        except ValueError as error:
            raise MissingResult(
                f"the location of a PrefectResult is its value as JSON, and "
                f"{location!r} is none: {error}"
            ) from error
        return self.with_location(location).from_value(value)

    def write(self, value: Any, **kwargs: Any) -> Result:
        """Copy of the result with the value as its location."""
        location = self.serializer.serialize(value).decode()
        return self.with_location(location).from_value(value)


class ConstantResult(Result):
    """A value that is known beforehand and never written.

    Parameters
    ----------
    value : object, optional
        The value.
    location : str, optional
        A place to name, which is not looked at.

    Examples
    --------
    >>> ConstantResult(3).read("anywhere").value
    3
    """

    def __init__(self, value: Any = None, location: str | None = None) -> None:
        super().__init__(value, location)

    @property
    def takes_location(self) -> bool:
        """No: the value is here."""
        return False

    def exists(self, location: str | Callable[..., str], **kwargs: Any) -> bool:
        """Yes."""
        return True

    def read(self, location: str) -> Result:
        """Copy of the result: it has its value."""
        return self.copy()


class HandlerResult(Result):
    """A result handler of the graph generations, as a result.

    Parameters
    ----------
    handler : object
        ``handler.write(value)`` keeps a value and returns its location as a string;
        ``handler.read(location)`` gives the value.

    Examples
    --------
    >>> class Shelf:
    ...     kept = {}
    ...     def write(self, value):
    ...         self.kept["only"] = value
    ...         return "only"
    ...     def read(self, location):
    ...         return self.kept[location]
    >>> written = HandlerResult(Shelf()).write(3)
    >>> written.location, written.read("only").value
    ('only', 3)
    """

    def __init__(self, handler: Any) -> None:
        for method in ("read", "write"):
            if not callable(getattr(handler, method, None)):
                raise OptionTypeError(
                    f"{handler!r} is no result handler: it has no method {method}()."
                )
        super().__init__()
        self.handler = handler

    def read(self, location: str) -> Result:
        """Copy of the result that holds the value of a place."""
        return self.with_location(location).from_value(self.handler.read(location))

    def write(self, value: Any, **kwargs: Any) -> Result:
        """Let the handler keep the value where it chooses."""
        location = self.handler.write(value)
        return self.with_location(location).from_value(value)


def _same(left: Any, right: Any) -> bool:
    """Whether two attributes are equal; arrays, whose ``==`` is no bool, are not."""
    if left is right:
        return True
    try:
        return bool(left == right)
    except Exception:  # a user's type may refuse the question in any way
        return False


def _place(location: str | Callable[..., str], variables: dict[str, Any]) -> str:
    """A location as a string; formatted only if there are variables for it.

    So a location that was formatted once and has braces left is not formatted again.
    """
    if isinstance(location, str) and not variables:
        return location
    return format_location(location, variables)


def _refuse_url(path: str) -> None:
    if is_url(path):
        raise ValueError(
            f"LocalResult keeps values in files of this machine and takes no URL, and "
            f"got {path!r}."
        )


def _name_by_time(now: datetime) -> str:
    """A file name that sorts by time; unique, for there are many in one moment."""
    return f"result-{now:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex}"
