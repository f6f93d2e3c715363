"""Parameters: tasks whose value is given when a flow runs."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any, Final, TypeVar

from prefect_dask_core.context import GraphBuilder, context
from prefect_dask_core.dates import as_moment
from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.lazy import refuse_lazy
from prefect_dask_core.serialization import describe_parameter
from prefect_dask_core.signals import FAIL
from prefect_dask_core.tasks import Task

ParameterT = TypeVar("ParameterT", bound="Parameter")


class _NoDefault(enum.Enum):
    NO_DEFAULT = "NO_DEFAULT"

    def __repr__(self) -> str:
        return "NO_DEFAULT"


#: The default of a parameter that has none; `None` is a default like any other.
NO_DEFAULT: Final = _NoDefault.NO_DEFAULT


class Parameter(Task):
    """A value that a flow run is given.

    Parameters
    ----------
    name : str
        Name of the parameter, and its slug.
    default : object, optional
        Value where a run gives none; `None` for a parameter that has no default and
        is not required.
    required : bool, optional
        Whether each run must give a value; by default, if there is no default.
        A default of a parameter that is required nevertheless is never used.
    tags : iterable of str, optional
        Labels.

    Notes
    -----
    Source of the rules: Prefect 1.x.

    Examples
    --------
    >>> from prefect_dask_core.context import context
    >>> size = Parameter("size", default=3)
    >>> size.required, size.slug, size.run()
    (False, 'size', 3)
    >>> with context(parameters={"size": 5}):
    ...     size.run()
    5
    """

    def __init__(
        self,
        name: str,
        default: Any = NO_DEFAULT,
        required: bool | None = None,
        tags: Any = None,
        **options: Any,
    ) -> None:
        if not isinstance(name, str):
            raise OptionTypeError(f"the name of a parameter is a string, not {name!r}.")
        refuse_lazy(default, f"was given as the default of parameter {name!r}")
        self.default = default
        self.required = default is NO_DEFAULT if required is None else bool(required)
        super().__init__(**{"name": name, "slug": name, "tags": tags, **options})

    def run(self) -> Any:
        """Value that the run was given, or the default."""
        given = context.get("parameters") or {}
        if self.name in given:
            return given[self.name]
        if self.required:
            raise FAIL(
                f"the parameter {self.name!r} is required and was not given; run the "
                f"flow with parameters={{{self.name!r}: ...}}."
            )
        return self.value_unless_given

    @property
    def value_unless_given(self) -> Any:
        """The default; `None` without one."""
        return None if self.default is NO_DEFAULT else self.default

    def __call__(  # type: ignore[override]
        self: ParameterT, flow: GraphBuilder | None = None
    ) -> ParameterT:
        """Add this very parameter to a flow, and return it."""
        self._flow(flow).add_task(self)
        return self

    def copy(self: ParameterT, name: str | None = None, **task_args: Any) -> ParameterT:
        """Copy of the parameter under a new name, which is its slug too."""
        renamed = {} if name is None else {"name": name, "slug": name}
        return super().copy(**{"slug": self.slug, **renamed, **task_args})

    def with_options(self: ParameterT, **options: Any) -> ParameterT:
        """Parameter with other options; a new name is its slug too."""
        if options.get("name"):
            options.setdefault("slug", options["name"])
        return super().with_options(**options)

    def serialize(self, task: Any = None) -> dict[str, Any]:
        """Describe the parameter as plain data that JSON can hold.

        Parameters
        ----------
        task : object, optional
            Ignored; the first generation had it.
        """
        return describe_parameter(self, NO_DEFAULT)

    def info(self) -> dict[str, Any]:
        """Name of the parameter, whether it is required, and its default.

        Examples
        --------
        >>> Parameter("size", default=3).info()
        {'name': 'size', 'required': False, 'default': 3}
        """
        return {
            "name": self.name,
            "required": self.required,
            "default": self.value_unless_given,
        }

    def __repr__(self) -> str:
        return f"<Parameter: {self.name}>"


class DateTimeParameter(Parameter):
    """A parameter whose value is a moment.

    Parameters
    ----------
    name, default, required, tags
        As for `Parameter`.

    Notes
    -----
    A text in ISO format, a date or a datetime becomes a datetime with a zone, UTC
    unless it says otherwise; `None` stays. What cannot be read fails the parameter's
    task. As for every parameter, one with a default is not required (decision D19).

    Examples
    --------
    >>> from prefect_dask_core.context import context
    >>> start = DateTimeParameter("start", default="2024-03-01")
    >>> start.run().isoformat()
    '2024-03-01T00:00:00+00:00'
    >>> with context(parameters={"start": "2024-03-02T12:00+01:00"}):
    ...     start.run().isoformat()
    '2024-03-02T12:00:00+01:00'
    """

    def run(self) -> datetime | None:
        """Moment that the run was given, or the default."""
        value = super().run()
        return None if value is None else as_moment(value)
