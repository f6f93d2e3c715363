"""Naming: the name of a run and the place of its result, from a template or a callable.

One format call serves the templates of all generations: inputs, context variables and
parameters stand at its top level, and `parameters`, `task_run` and `flow_run` beside
them.
"""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from prefect_dask_core.errors import OptionTypeError, TemplateError
from prefect_dask_core.run_ids import current_id

#: A text with fields in braces, or a callable that gives the text.
Template = str | Callable[..., str]


class TaskRunNameCallbackWithParameters(Protocol):
    """What names a run after its arguments; see `TaskOptions`, ``task_run_name``."""

    def __call__(self, parameters: dict[str, Any]) -> str:
        """Name of a run."""

    @classmethod
    def is_callback_with_parameters(cls, callable: Callable[..., str]) -> bool:
        """Whether a callable asks for the arguments, by a parameter ``parameters``.

        Examples
        --------
        >>> asks = TaskRunNameCallbackWithParameters.is_callback_with_parameters
        >>> asks(lambda parameters: parameters["x"]), asks(lambda: "always")
        (True, False)
        """
        try:
            return "parameters" in inspect.signature(callable).parameters
        except (TypeError, ValueError):  # some builtins have none to read
            return False


@dataclass(frozen=True, slots=True)
class TaskRunName:
    """What a template can read of its task run, as ``{task_run.name}``.

    Parameters
    ----------
    id : str or None
        Id of the run.
    name : str or None
        Name of the run, or of the task and its index while the run has none.
    run_count : int
        Attempts made, this one included.
    map_index : int or None
        Index of a child.
    tags : frozenset of str
        Tags of the task.
    """

    id: str | None
    name: str | None
    run_count: int = 1
    map_index: int | None = None
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FlowRunName:
    """What a template can read of its flow run, as ``{flow_run.name}``.

    Parameters
    ----------
    id : str or None
        Id of the run.
    name : str or None
        Name of the run, or of the flow while the run has none.
    flow_name : str or None
        Name of the flow.
    parameters : mapping of str to object
        Parameters of the flow run.
    """

    id: str | None
    name: str | None
    flow_name: str | None
    parameters: Mapping[str, Any]


class _Parameters(dict[str, Any]):
    """Inputs of a task; the flow's parameters are found too where no input has a name.

    ``{parameters[x]}`` meant the flow's parameter in the graph generations and the
    task's argument in the function generations.
    """

    def __init__(self, inputs: Mapping[str, Any], of_flow: Mapping[str, Any]) -> None:
        super().__init__(inputs)
        self._of_flow = of_flow

    def __missing__(self, name: str) -> Any:
        return self._of_flow[name]


def template_variables(
    variables: Mapping[str, Any], inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """What templates and callables of one task run can read.

    Parameters
    ----------
    variables : mapping of str to object
        Context variables of the run, the flow's ``parameters`` among them.
    inputs : mapping of str to object
        Inputs of the task by name, defaults included.

    Returns
    -------
    dict of str to object
        The flow's parameters, over these the context variables, over these the inputs;
        and ``parameters``, ``task_run`` and ``flow_run``, which nothing hides.

    Examples
    --------
    >>> context = {"parameters": {"size": 3, "x": 0}, "flow_name": "etl", "x": 1}
    >>> found = template_variables(context, {"x": 2})
    >>> found["size"], found["x"], found["flow_run"].name
    (3, 2, 'etl')
    >>> found["parameters"]["x"], found["parameters"]["size"]
    (2, 3)
    """
    parameters = variables.get("parameters") or {}
    run_id = current_id(variables)
    task_run = TaskRunName(
        id=None if run_id is None else str(run_id),
        name=variables.get("task_run_name") or variables.get("task_full_name"),
        run_count=variables.get("task_run_count", 1),
        map_index=variables.get("map_index"),
        tags=variables.get("task_tags", frozenset()),
    )
    flow_run = FlowRunName(
        id=variables.get("flow_run_id"),
        name=variables.get("flow_run_name") or variables.get("flow_name"),
        flow_name=variables.get("flow_name"),
        parameters=parameters,
    )
    return {
        **parameters,
        **variables,
        **inputs,
        "parameters": _Parameters(inputs, parameters),
        "task_run": task_run,
        "flow_run": flow_run,
    }


def format_run_name(
    option: Template, variables: Mapping[str, Any], label: str = "task_run_name"
) -> str:
    """Name of a run.

    Parameters
    ----------
    option : str or callable
        A template; or a callable, which is given the variables that its signature
        names, or all where it takes ``**kwargs``.
    variables : mapping of str to object
        See `template_variables`.
    label : str
        Name of the option, for messages.

    Raises
    ------
    TemplateError
        If the template or the callable asks for what there is not.
    OptionTypeError
        If the callable gives something else than a string.

    Examples
    --------
    >>> context = {"parameters": {"day": "monday"}, "map_index": 3}
    >>> variables = template_variables(context, {"path": "a.csv"})
    >>> format_run_name("{day}/{path}[{map_index}]", variables)
    'monday/a.csv[3]'
    >>> format_run_name(lambda parameters: parameters["path"].upper(), variables)
    'A.CSV'
    >>> format_run_name("{pth}", variables)
    Traceback (most recent call last):
    prefect_dask_core.errors.TemplateError: task_run_name '{pth}' names 'pth', which \
is unknown; known are: day, flow_run, map_index, parameters, path, task_run.
    """
    return _formatted(label, option, variables)


def format_location(option: Template, variables: Mapping[str, Any]) -> str:
    """Place of a result; parameters and errors are those of `format_run_name`.

    Examples
    --------
    >>> format_location("{day}/{part:03}.pkl", {"day": "monday", "part": 7})
    'monday/007.pkl'
    >>> format_location(lambda **known: "-".join(sorted(known)), {"b": 1, "a": 2})
    'a-b'
    """
    return _formatted("location", option, variables)


def check_template(template: str) -> None:
    """Refuse a template that cannot be formatted, whatever the variables are.

    Raises
    ------
    ValueError
        With the reason as its text.

    Examples
    --------
    >>> check_template("{path}.pkl")
    >>> check_template("{}.pkl")
    Traceback (most recent call last):
    ValueError: it has a field without a name; write the name of a variable in the \
braces
    """
    for _, field, spec, _ in string.Formatter().parse(template):
        if field is None:
            continue
        first = field.partition(".")[0].partition("[")[0]
        if not first or first.isdecimal():
            raise ValueError(
                "it has a field without a name; write the name of a variable in the "
                "braces"
            )
        check_template(spec or "")


def _formatted(label: str, option: Template, variables: Mapping[str, Any]) -> str:
    if isinstance(option, str):
        return _fill(label, option, variables)
    named = getattr(option, "__name__", None) or type(option).__name__
    text: object = option(**_asked_for(label, named, option, variables))
    if not isinstance(text, str):
        raise OptionTypeError(
            f"{label} callable {named} returned {text!r}; it must return a string."
        )
    return text


def _fill(label: str, template: str, variables: Mapping[str, Any]) -> str:
    try:
        return _Formatter(label, template).vformat(template, (), variables)
    except TemplateError:
        raise
    except Exception as error:  # formatting runs methods of the user's values
        raise TemplateError(
            f"{label} {template!r} cannot be formatted: {type(error).__name__}: {error}"
        ) from error


class _Formatter(string.Formatter):
    """Formats with names only, and says which name is unknown."""

    def __init__(self, label: str, template: str) -> None:
        self._shown = f"{label} {template!r}"

    def get_value(self, key: int | str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if not isinstance(key, str):
            raise TemplateError(
                f"{self._shown} has a field without a name; write the name of a "
                "variable in the braces."
            )
        if key not in kwargs:
            _raise_unknown(self._shown, key, kwargs)
        return kwargs[key]


def _raise_unknown(shown: str, name: str, variables: Mapping[str, Any]) -> NoReturn:
    # Those with an underscore are this package's own.
    shown_names = (known for known in variables if not known.startswith("_"))
    known = ", ".join(sorted(shown_names)) or "none"
    raise TemplateError(
        f"{shown} names {name!r}, which is unknown; known are: {known}."
    )


def _asked_for(
    label: str,
    named: str,
    function: Callable[..., Any],
    variables: Mapping[str, Any],
) -> Mapping[str, Any]:
    """The variables that a callable's signature asks for."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have none to read
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return variables
    asked = {}
    for parameter in parameters:
        if parameter.name in variables and parameter.kind is not (
            parameter.POSITIONAL_ONLY
        ):
            asked[parameter.name] = variables[parameter.name]
        elif parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            _raise_unknown(f"{label} callable {named}", parameter.name, variables)
    return asked
