"""Drawing of function flows: the function runs, and calls of tasks are taken down.

A task does not run: its call gives a marker, or what its option `viz_return_value`
says. An argument that is a marker, or that very value, is an arrow.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import logging
import warnings
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from prefect_dask_core.calls import SCOPE
from prefect_dask_core.context import context
from prefect_dask_core.drawing import DrawnEdge, DrawnNode, Picture
from prefect_dask_core.engine.templates import rebuild
from prefect_dask_core.errors import VisualizationUnsupportedError
from prefect_dask_core.lineage import is_shared
from prefect_dask_core.tasks import Task


class Marker:
    """Stands for the value of a task that did not run.

    Parameters
    ----------
    name : str
        Name of the box.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<value of {self._name}>"

    def __refuse(self, *args: Any) -> NoReturn:
        raise VisualizationUnsupportedError(
            f"the value of {self._name} is used while the flow is drawn, when no task "
            "runs; give the task viz_return_value=, which then stands for it."
        )

    __bool__ = __len__ = __iter__ = __aiter__ = __contains__ = __call__ = __refuse
    __getitem__ = __setitem__ = __delitem__ = __enter__ = __exit__ = __refuse
    __int__ = __float__ = __complex__ = __index__ = __round__ = __refuse
    __neg__ = __pos__ = __abs__ = __invert__ = __lt__ = __le__ = __gt__ = __ge__ = (
        __refuse
    )
    __add__ = __sub__ = __mul__ = __matmul__ = __truediv__ = __floordiv__ = __refuse
    __mod__ = __divmod__ = __pow__ = __and__ = __or__ = __xor__ = __refuse
    __lshift__ = __rshift__ = __radd__ = __rsub__ = __rmul__ = __rmatmul__ = __refuse
    __rtruediv__ = __rfloordiv__ = __rmod__ = __rdivmod__ = __rpow__ = __refuse
    __rand__ = __ror__ = __rxor__ = __rlshift__ = __rrshift__ = __refuse

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__refuse()


@dataclass(slots=True)
class Drawing:
    """What is taken down while the function runs."""

    boxes: list[str] = field(default_factory=list)
    arrows: list[tuple[str, str]] = field(default_factory=list)
    _counts: defaultdict[str, itertools.count[int]] = field(
        default_factory=lambda: defaultdict(itertools.count)
    )
    _values: dict[int, tuple[Any, str]] = field(default_factory=dict)

    def draw(self, task: Task, bound: Mapping[str, Any], kind: str) -> Any:
        """Take down a call, and give what stands for its value."""
        if kind != "call":
            raise VisualizationUnsupportedError(
                f"task {task.name!r} is {kind} while the flow is drawn; only calls of "
                "tasks can be drawn."
            )
        name = f"{task.name}-{next(self._counts[task.name])}"
        self.boxes.append(name)
        above: dict[str, None] = {}

        def look(leaf: Any) -> Any:
            kept = self._values.get(id(leaf))
            if kept is not None and kept[0] is leaf:
                above[kept[1]] = None
            return leaf

        rebuild(dict(bound), look)
        self.arrows += [(other, name) for other in above]
        value = task.viz_return_value
        if value is None:
            value = Marker(name)
        if not is_shared(value):
            self._values[id(value)] = (value, name)
        return _later(value) if task.isasync else value


async def _later(value: Any) -> Any:
    return value


#: What the function logs while it is drawn is of no run, and of this logger.
_LOGGED_AS: Final = "prefect_dask_core.flow_runs"
_WARNING: Final = (
    "while flow {name!r} is drawn its tasks do not run, but everything else in its "
    "function does."
)


def picture_of_flow(flow: Any, bound: Mapping[str, Any]) -> Picture:
    """Run the function of a flow without its tasks, and give what it called."""
    drawing = Drawing()
    warnings.warn(_WARNING.format(name=flow.name), UserWarning, stacklevel=4)
    logger = logging.LoggerAdapter(logging.getLogger(_LOGGED_AS), {})
    with context({SCOPE: drawing, "flow": None, "logger": logger}):
        found = flow.call_body(bound)
        if inspect.iscoroutine(found) or inspect.isasyncgen(found):
            # In a thread of its own, because a notebook has an event loop in this one.
            around = contextvars.copy_context()
            with ThreadPoolExecutor(1) as thread:
                thread.submit(around.run, asyncio.run, _awaited(found)).result()
        elif inspect.isgenerator(found):
            list(found)
    return Picture(
        flow.name,
        tuple(DrawnNode(name, (name,), False, None) for name in drawing.boxes),
        tuple(DrawnEdge(start, end, None, False) for start, end in drawing.arrows),
    )


async def _awaited(found: Any) -> None:
    if inspect.isasyncgen(found):
        async for _ in found:
            pass
    else:
        await found
