"""Operators: what ``a + b``, ``a[k]`` or ``a | b`` mean for tasks inside a flow.

``==``, ``!=`` and truth are left alone, as tasks are keys of dictionaries; there are
`is_equal`, `is_not_equal`, `not_` and `or_` instead. The bodies are functions of this
module, so that they travel to a worker by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prefect_dask_core.context import context
from prefect_dask_core.errors import GraphError
from prefect_dask_core.states import NO_DATA


def add(x: Any, y: Any) -> Any:
    """``x + y``."""
    return x + y


def sub(x: Any, y: Any) -> Any:
    """``x - y``."""
    return x - y


def mul(x: Any, y: Any) -> Any:
    """``x * y``."""
    return x * y


def div(x: Any, y: Any) -> Any:
    """``x / y``."""
    return x / y


def floor_div(x: Any, y: Any) -> Any:
    """``x // y``."""
    return x // y


def mod(x: Any, y: Any) -> Any:
    """``x % y``."""
    return x % y


def power(x: Any, y: Any) -> Any:
    """``x ** y``."""
    return x**y


def both(x: Any, y: Any) -> Any:
    """``x and y``: the value, not a bool."""
    return x and y


def either(x: Any, y: Any) -> Any:
    """``x or y``: the value, not a bool."""
    return x or y


def negate(x: Any) -> Any:
    """``not x``."""
    return not x


def equal(x: Any, y: Any) -> Any:
    """``x == y``."""
    return x == y


def not_equal(x: Any, y: Any) -> Any:
    """``x != y``."""
    return x != y


def greater(x: Any, y: Any) -> Any:
    """``x > y``."""
    return x > y


def greater_or_equal(x: Any, y: Any) -> Any:
    """``x >= y``."""
    return x >= y


def less(x: Any, y: Any) -> Any:
    """``x < y``."""
    return x < y


def less_or_equal(x: Any, y: Any) -> Any:
    """``x <= y``."""
    return x <= y


def get_item(task_result: Any, key: Any, default: Any = NO_DATA) -> Any:
    """``task_result[key]``; a default takes the place of a missing key only."""
    try:
        return task_result[key]
    except KeyError:
        if default is NO_DATA:
            raise
        return default


#: Name of the task of each operator -> its body.
BODIES: Final[Mapping[str, Callable[..., Any]]] = {
    "Add": add,
    "Sub": sub,
    "Mul": mul,
    "Div": div,
    "FloorDiv": floor_div,
    "Mod": mod,
    "Pow": power,
    "And": both,
    "Or": either,
    "Not": negate,
    "Equal": equal,
    "NotEqual": not_equal,
    "GreaterThan": greater,
    "GreaterThanOrEqual": greater_or_equal,
    "LessThan": less,
    "LessThanOrEqual": less_or_equal,
    "GetItem": get_item,
}


def _binary(name: str) -> Callable[[Any, Any], Any]:
    def operate(self: OperatorMixin, other: Any) -> Any:
        return self._operate(name, {"x": self, "y": other})

    operate.__doc__ = f"Task ``{name}`` of this one and the other."
    return operate


def _reflected(name: str) -> Callable[[Any, Any], Any]:
    def operate(self: OperatorMixin, other: Any) -> Any:
        return self._operate(name, {"x": other, "y": self})

    operate.__doc__ = f"Task ``{name}`` of the other and this one."
    return operate


class OperatorMixin:
    """Operators of tasks; each makes a task in the active flow."""

    # Provided by `Task`, as options.
    name: Any
    nout: Any

    def _operate(
        self, name: str, inputs: Mapping[str, Any], label: str | None = None
    ) -> Any:
        """Bind the task of an operator to its inputs, and return it."""
        raise NotImplementedError

    __add__ = _binary("Add")
    __sub__ = _binary("Sub")
    __mul__ = _binary("Mul")
    __truediv__ = _binary("Div")
    __floordiv__ = _binary("FloorDiv")
    __mod__ = _binary("Mod")
    __pow__ = _binary("Pow")
    __and__ = _binary("And")
    __radd__ = _reflected("Add")
    __rsub__ = _reflected("Sub")
    __rmul__ = _reflected("Mul")
    __rtruediv__ = _reflected("Div")
    __rfloordiv__ = _reflected("FloorDiv")
    __rmod__ = _reflected("Mod")
    __rpow__ = _reflected("Pow")
    __rand__ = _reflected("And")
    __gt__ = _binary("GreaterThan")
    __ge__ = _binary("GreaterThanOrEqual")
    __lt__ = _binary("LessThan")
    __le__ = _binary("LessThanOrEqual")
    is_equal = _binary("Equal")
    is_not_equal = _binary("NotEqual")
    or_ = _binary("Or")

    def not_(self) -> Any:
        """Task ``Not`` of this one."""
        return self._operate("Not", {"x": self})

    def __getitem__(self, key: Any) -> Any:
        shown = key.name if isinstance(key, OperatorMixin) else repr(key)
        label = f"{self.name}[{shown}]"
        return self._operate("GetItem", {"task_result": self, "key": key}, label)

    def __iter__(self) -> Iterator[Any]:
        if self.nout is None:
            raise TypeError(
                f"task {self.name!r} cannot be unpacked or iterated over, because the "
                "number of its outputs is not known; give the task nout=, or "
                "annotate its return type as a tuple."
            )
        return iter([self[index] for index in range(self.nout)])

    def __or__(self, other: Any) -> Any:
        """Let the other task come after this one; evaluates to the other."""
        _active_flow("|").add_edge(self, other)
        return other

    def __ror__(self, other: Any) -> Any:
        """Let this task come after the other; evaluates to this one."""
        _active_flow("|").add_edge(other, self)
        return self

    def pipe(self, then: Callable[..., Any], /, **arguments: Any) -> Any:
        """Give this task to another: ``x.pipe(f, k=v)`` is ``f(x, k=v)``.

        Parameters
        ----------
        then : Task or annotation
            What takes this task as its first argument.
        **arguments
            Further arguments.
        """
        if "self" in arguments:
            raise ValueError("pipe() cannot pass on an argument called 'self'.")
        return then(self, **arguments)


def _active_flow(operator: str) -> Any:
    flow = context.get("flow")
    if flow is None:
        raise GraphError(
            f"the operator {operator} of tasks needs a flow; use it inside `with "
            "Flow(...)`."
        )
    return flow
