"""Options of flows and of their runs: how they are checked, and their older names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from prefect_dask_core.errors import (
    FlowParameterError,
    OptionTypeError,
    OptionValueError,
    UnknownOptionError,
)
from prefect_dask_core.results.result import HandlerResult, Result
from prefect_dask_core.runners.base import TaskRunner
from prefect_dask_core.spellings import OnFailure, nearest
from prefect_dask_core.states import State

#: Called with a flow and the old and new state of its run; may return another state.
FlowHandler = Callable[[Any, State, State], State | None]
#: Called with a flow, its final state and the states of its reference tasks.
TerminalHandler = Callable[[Any, State, Sequence[State]], State | None]

_DEPLOYMENT: Final = (
    "there is no server that flows are deployed to; task_runner=DaskTaskRunner(...) "
    "says where the tasks run, and flow.save(path) writes the flow into a file"
)
#: Options of flows that only older generations had -> what to do today.
OLDER_FLOW_OPTIONS: Final[Mapping[str, str]] = {
    "schedule": (
        "nothing here waits for a time; let cron, a timer of your system or a loop "
        "call flow.run() when it is due"
    ),
    "storage": _DEPLOYMENT,
    "run_config": _DEPLOYMENT,
    "environment": _DEPLOYMENT,
}
#: Options of runs that only older generations had -> what to do today.
OLDER_RUN_OPTIONS: Final[Mapping[str, str]] = {
    "run_on_schedule": OLDER_FLOW_OPTIONS["schedule"],
    "runner_cls": "task_runner= says where and how the tasks run",
    "task_runner_cls": "task_runner= says where and how the tasks run",
    "task_runner_state_handlers": (
        "give the handlers to the tasks that they are for, as state_handlers=[...]"
    ),
    "state": "resume= takes the state of an earlier run, task_states= those of tasks",
    "flow_run_id": "each run makes its own id; flow_run_name= names it for people",
}


def refuse_older_flow_options(
    flow: str, older: Mapping[str, Any], known: Collection[str]
) -> None:
    """Refuse options of a flow that mean nothing here; `None` is as if not given.

    Parameters
    ----------
    flow : str
        Name of the flow.
    older : mapping of str to object
        What was given besides the known options.
    known : collection of str
        Names of the known options.

    Examples
    --------
    >>> refuse_older_flow_options("etl", {"schedule": None}, ["tasks"])
    >>> refuse_older_flow_options("etl", {"taks": []}, ["tasks"])
    Traceback (most recent call last):
    prefect_dask_core.errors.UnknownOptionError: flow 'etl' has no option 'taks'; did \
you mean 'tasks'?
    """
    for name, value in older.items():
        if name not in OLDER_FLOW_OPTIONS:
            raise UnknownOptionError(
                f"flow {flow!r} has no option {name!r}; did you mean "
                f"{nearest(name, known)!r}?"
            )
        _refuse_older(flow, name, value)


def _refuse_older(flow: str, name: str, value: Any) -> None:
    if value is not None:
        told = OLDER_FLOW_OPTIONS[name]
        raise OptionValueError(f"flow {flow!r} was given {name}={value!r}: {told}.")


class OlderFlowAttribute:
    """An option of flows that only older generations had, set on a flow that is made.

    It is refused as it is by the constructor, where Python would keep any attribute
    and nothing would ever come of it. It reads as `None`.

    Examples
    --------
    >>> class Owner:
    ...     name = "etl"
    ...     schedule = OlderFlowAttribute()
    >>> Owner().schedule = None
    >>> Owner().schedule = "daily"  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    prefect_dask_core.errors.OptionValueError: flow 'etl' was given schedule='daily': \
nothing here waits for a time; ...
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> None:
        return None

    def __set__(self, instance: Any, value: Any) -> None:
        _refuse_older(instance.name, self.name, value)


def parameters_given(
    flow: str,
    given: Any,
    more: Mapping[str, Any],
    declared: Collection[str],
    options: Collection[str],
) -> dict[str, Any]:
    """Values of parameters, as a mapping and as keywords, in one.

    Parameters
    ----------
    flow : str
        Name of the flow.
    given : mapping of str to object or None
        What was given as ``parameters=``.
    more : mapping of str to object
        Keywords that are no options of a run today.
    declared : collection of str
        Names of the flow's parameters, which may be called as they like.
    options : collection of str
        Names of the options of a run.

    Raises
    ------
    OptionTypeError
        If `given` is no mapping, or a parameter is given twice; also a `TypeError`.
    OptionValueError
        If an option of older generations asks for something; `None` and `False` do
        not.
    FlowParameterError
        If a keyword is no parameter, but nearly an option; also a `ValueError`.

    Examples
    --------
    >>> parameters_given("etl", {"x": 1}, {"y": 2}, ["x", "y"], ["task_runner"])
    {'x': 1, 'y': 2}
    >>> parameters_given("etl", None, {"task_runer": 1}, ["x"], ["task_runner"])
    Traceback (most recent call last):
    prefect_dask_core.errors.FlowParameterError: flow 'etl' has no parameter \
'task_runer'; did you mean the option task_runner=?
    """
    found = dict(one_mapping(flow, "parameters", given) or {})
    for name, value in more.items():
        if name not in declared and name in OLDER_RUN_OPTIONS:
            if value is not None and value is not False:
                raise OptionValueError(
                    f"flow {flow!r} was run with {name}={value!r}: "
                    f"{OLDER_RUN_OPTIONS[name]}."
                )
            continue
        meant = difflib.get_close_matches(name, options, n=1, cutoff=0.8)
        if name not in declared and meant:
            raise FlowParameterError(
                f"flow {flow!r} has no parameter {name!r}; did you mean the option "
                f"{meant[0]}=?"
            )
        if name in found:
            raise OptionTypeError(
                f"flow {flow!r} was given the parameter {name!r} twice, in parameters= "
                "and as a keyword; give it once."
            )
        found[name] = value
    return found


def one_mapping(flow: str, option: str, value: Any) -> Mapping[Any, Any] | None:
    """An option of a run that is a mapping; `None` stays."""
    if value is None or isinstance(value, Mapping):
        return value
    hint = "; a parameter is also given as a keyword, flow.run(x=1)"
    raise OptionTypeError(
        f"flow {flow!r}: {option}={value!r}, but expected a mapping, such as a dict"
        f"{hint if option == 'parameters' else ''}."
    )


def flow_result(flow: str, result: Any, result_handler: Any) -> Result | None:
    """The result of tasks that have none, by whichever spelling it was given."""
    if result is not None and result_handler is not None:
        raise OptionTypeError(
            f"flow {flow!r} was given result= and result_handler=, which are two "
            "spellings of one option; give result= only."
        )
    if result is None and result_handler is not None:
        result = result_handler
        if not isinstance(result_handler, Result):
            result = HandlerResult(result_handler)
    if result is None or isinstance(result, Result):
        return result
    raise OptionTypeError(
        f"flow {flow!r}: result={result!r}, but expected a Result, such as "
        "results.LocalResult()."
    )


def one_runner(
    flow: str, task_runner: TaskRunner | None, executor: TaskRunner | None
) -> TaskRunner | None:
    """The runner, by whichever of its two spellings it was given."""
    if task_runner is not None and executor is not None:
        raise OptionTypeError(
            f"flow {flow!r} was given task_runner= and executor=, which are two "
            "spellings of one option; give task_runner= only."
        )
    runner: Any = task_runner if task_runner is not None else executor
    if runner is not None and (isinstance(runner, type) or not hasattr(runner, "run")):
        raise OptionTypeError(
            f"flow {flow!r}: task_runner={runner!r}, but expected a task runner such "
            "as DaskTaskRunner(), ThreadPoolTaskRunner() or SequentialTaskRunner()."
        )
    found: TaskRunner | None = runner
    return found


def flow_handlers(
    flow: str,
    state_handlers: Sequence[FlowHandler] | None,
    on_failure: Callable[[Any, State], None] | None,
) -> tuple[FlowHandler, ...]:
    """The state handlers of a flow, with the callback for failures at the end."""
    handlers: Any = () if state_handlers is None else state_handlers
    if not isinstance(handlers, Sequence) or not all(map(callable, handlers)):
        raise OptionTypeError(
            f"flow {flow!r}: state_handlers={state_handlers!r}, but expected a list of "
            "callables (flow, old_state, new_state); put a single one into a list."
        )
    if on_failure is None:
        return tuple(handlers)
    if not callable(on_failure):
        raise OptionTypeError(
            f"flow {flow!r}: on_failure={on_failure!r}, but expected a callable "
            "(flow, state)."
        )
    return (*handlers, OnFailure(on_failure))
