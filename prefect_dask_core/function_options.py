"""Options of function flows: one frozen record, checked when it is made."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prefect_dask_core.errors import (
    InvalidNameError,
    OptionTypeError,
    OptionValueError,
    UnknownOptionError,
)
from prefect_dask_core.hooks import Hook
from prefect_dask_core.late_imports import import_late
from prefect_dask_core.monitor.watchers import check_progress
from prefect_dask_core.naming import Template
from prefect_dask_core.option_checks import checked_hooks
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.spellings import nearest

if TYPE_CHECKING:
    from prefect_dask_core import recording
    from prefect_dask_core.recording import Asked
else:
    recording = import_late("prefect_dask_core.recording")

#: Characters that the name of a flow cannot have.
_REFUSED: Final = frozenset("/%&><")


@dataclass(frozen=True, slots=True)
class FlowOptions:
    """Options of a function flow.

    Parameters
    ----------
    name : str
        Name of the flow.
    version : str, optional
        Version, for people; a hash of the file of the function unless given, `None`
        where there is no file.
    flow_run_name : str or callable, optional
        Template of, or callable that gives, the name of a run.
    retries : int
        Attempts after the first; each runs the whole function again, once all that the
        last one submitted has ended.
    retry_delay_seconds : number, sequence of numbers, timedelta or callable
        Seconds before each further attempt.
    task_runner : task runner or class of one, optional
        Where tasks run that are submitted; that of the flow around unless given, else
        the current `distributed.Client`, else threads.
    description : str, optional
        What the flow does; the docstring unless given.
    timeout_seconds : number or timedelta, optional
        Longest time of one attempt, what it submits included: that is cancelled then.
    validate_parameters : bool, optional
        Whether arguments are validated and converted as their annotations say, by
        pydantic. `True` needs pydantic, and annotations that it understands; unless
        given, what it can validate is, and nothing where it is not installed: there
        arguments are only bound. Defaults are never validated.
    log_prints : bool, optional
        Whether prints of the function, and of tasks that do not say, are logged.
    on_running, on_completion, on_failure, on_cancellation, on_crashed : iterable
        Hooks (flow, flow_run, state), called at each attempt and at the end.
    persist_result : bool, optional
        Whether the value of the flow is kept, and of each task in it that does not say.
        Unless given, if the flow says where or how, else as the flow around does.
    result_storage : ResultStore, str or path, optional
        Where they are kept: a folder or a URL that fsspec knows.
    result_serializer : str or Serializer, optional
        How they become bytes: ``"pickle"``, ``"json"``, ``"compressed/pickle"``,
        ``"compressed/json"``, or an object with ``dumps`` and ``loads``.
    cache_result_in_memory : bool
        Whether the kept value of the flow also stays in memory.
    progress : bool, optional
        Whether the progress of runs is shown; see `Flow.run`.
    ledger : Ledger, str, path or bool, optional
        Where runs are recorded; see `Flow.run`.
    """

    name: str
    version: str | None = None
    flow_run_name: Template | None = None
    retries: int = 0
    retry_delay_seconds: float | tuple[float, ...] = 0.0
    task_runner: Any = None
    description: str | None = None
    timeout_seconds: float | None = None
    validate_parameters: bool | None = None
    persist_result: bool | None = None
    result_storage: Any = None
    result_serializer: Any = None
    cache_result_in_memory: bool = True
    log_prints: bool | None = None
    on_completion: tuple[Hook, ...] = ()
    on_failure: tuple[Hook, ...] = ()
    on_cancellation: tuple[Hook, ...] = ()
    on_crashed: tuple[Hook, ...] = ()
    on_running: tuple[Hook, ...] = ()
    progress: bool | None = None
    ledger: Asked = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        _check_name(self.name)
        shared = self._shared()
        for name in _SHARED:
            put(self, name, getattr(shared, name))
        for name in FLOW_HOOKS:
            given = getattr(self, name)
            put(self, name, checked_hooks(f"flow {self.name!r}", name, given))
        runner = self.task_runner
        put(self, "task_runner", runner() if inspect.isclass(runner) else runner)
        if self.task_runner is not None and not hasattr(self.task_runner, "run"):
            raise OptionTypeError(
                f"flow {self.name!r}: task_runner={runner!r}, but expected a task "
                "runner such as DaskTaskRunner(), ThreadPoolTaskRunner() or "
                "SequentialTaskRunner(), or the class of one."
            )
        check_progress(self.name, self.progress)
        if self.ledger is not None:
            recording.check_ledger(self.name, self.ledger)

    def _shared(self) -> TaskOptions:
        """Options that tasks have too, checked as theirs."""
        given = {name: getattr(self, name) for name in _SHARED}
        try:
            return TaskOptions(self.name, task_run_name=self.flow_run_name, **{**given})
        except (OptionTypeError, OptionValueError) as error:
            told = str(error).replace(f"task {self.name!r}", f"flow {self.name!r}", 1)
            told = told.replace("task_run_name", "flow_run_name", 1)
            raise type(error)(told) from None


#: Options that mean for a flow what they mean for a task.
_SHARED: Final = (
    "version",
    "retries",
    "retry_delay_seconds",
    "description",
    "timeout_seconds",
    "persist_result",
    "result_storage",
    "result_serializer",
    "cache_result_in_memory",
    "log_prints",
)
#: Options that are lists of hooks.
FLOW_HOOKS: Final = (
    "on_completion",
    "on_failure",
    "on_cancellation",
    "on_crashed",
    "on_running",
)
FLOW_OPTION_NAMES: Final = tuple(field.name for field in fields(FlowOptions))


def make_flow_options(fn: Callable[..., Any], given: Mapping[str, Any]) -> FlowOptions:
    """Options of a new flow.

    Parameters
    ----------
    fn : callable
        Its function, which names and describes it unless the options do.
    given : mapping of str to object
        Options as the user wrote them.

    Examples
    --------
    >>> def clean_up(): ...
    >>> make_flow_options(clean_up, {"retries": 2}).name
    'clean-up'
    """
    for name in given:
        if name not in FLOW_OPTION_NAMES:
            raise UnknownOptionError(
                f"a function flow has no option {name!r}; did you mean "
                f"{nearest(name, FLOW_OPTION_NAMES)!r}?"
            )
    changes = {key: value for key, value in given.items() if value is not None}
    derived = {
        "name": _derived_name(fn),
        "description": inspect.getdoc(fn),
        "version": _derived_version(fn),
    }
    return FlowOptions(**{**derived, **changes})


def change_flow_options(options: FlowOptions, given: Mapping[str, Any]) -> FlowOptions:
    """Options with changes; what is `None` stays as it was."""
    for name in given:
        if name not in FLOW_OPTION_NAMES:
            raise UnknownOptionError(
                f"flow {options.name!r} has no option {name!r}; did you mean "
                f"{nearest(name, FLOW_OPTION_NAMES)!r}?"
            )
    values = {name: getattr(options, name) for name in FLOW_OPTION_NAMES}
    changes = {
        key: value
        for key, value in given.items()
        if value is not None or key in _CLEARED_BY_NONE
    }
    return FlowOptions(**{**values, **changes})


#: Options for which `None` is a value of its own in `with_options`.
_CLEARED_BY_NONE: Final = frozenset(
    {
        "flow_run_name",
        "log_prints",
        "persist_result",
        "result_serializer",
        "result_storage",
    }
)


def _derived_name(fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__name__", type(fn).__name__)
    return "unknown-lambda" if name == "<lambda>" else name.replace("_", "-")


def _derived_version(fn: Callable[..., Any]) -> str | None:
    """Hash of the file in which a function stands."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    try:
        path = Path(inspect.getsourcefile(inspect.unwrap(fn)) or "")
        return _hash_of(path, path.stat().st_mtime_ns) if path.is_file() else None
    except (OSError, TypeError, ValueError):  # of a builtin, or of an object
        return None


@functools.lru_cache(maxsize=256)
def _hash_of(path: Path, changed: int) -> str:
    """Hash of a file; read once for all flows in it, until it changes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise OptionTypeError(
            f"the name of a flow is a string of at least one character, not {name!r}."
        )
    bad = sorted(_REFUSED & set(name))
    if bad:
        raise InvalidNameError(
            f"the name of a flow cannot have {bad[0]!r}, as {name!r} has; use letters, "
            "digits, spaces, dots, dashes and underscores."
        )
