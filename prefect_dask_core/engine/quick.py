"""Quick: the run of a body for which the pipeline has nothing to decide.

Of most children all above completed, their task has no handler, limit, cache or name
of its own, and the body returns a value. Their pipeline comes down to one call, and at
a million children the pipeline would cost more than the bodies. So the body is called
first, and whatever is not that plain goes on in the pipeline, as the answer to its
first call: the order of the steps stays written in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final

from prefect_dask_core.bodies import TaskBody
from prefect_dask_core.engine.codes import COMPLETED
from prefect_dask_core.engine.effects import Answer, QuickCalls, QuickRaised, Returned
from prefect_dask_core.engine.feeds import Feed
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.tallies import ONE_COMPLETED, sum_tallies
from prefect_dask_core.errors import InputError, MissingResult
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.states import State
from prefect_dask_core.tasks import Task
from prefect_dask_core.triggers import Tally, Trigger

#: Options that say nothing about what happens between the states above and the value.
#: An option that is not listed here sends every run through the pipeline once it is
#: set, so a new one is safe before anybody thinks of this module.
HARMLESS: Final = frozenset(
    {
        "name",
        "slug",
        "description",
        "tags",
        "version",
        "group",
        "nout",
        "retries",
        "retry_condition_fn",
        "retry_jitter_factor",
        "annotations",
        "viz_return_value",
        "retry_delay_seconds",
        "skip_on_upstream_skip",
        "trigger",
    }
)
_DECISIVE: Final = tuple(
    (found.name, getattr(TaskOptions("any"), found.name))
    for found in fields(TaskOptions)
    if found.name not in HARMLESS
)

#: Types of values that are surely no state, generator or coroutine.
_VALUES: Final = frozenset(
    {type(None), bool, int, float, str, bytes, list, tuple, dict, set}
)
#: The answer where the inputs cannot be had: the pipeline says why.
NOT_CALLED: Final = Returned(None)
_NO_VALUES: Final = (State, GeneratorType, CoroutineType, AsyncGeneratorType)


def is_quick(task: Task) -> bool:
    """Whether runs of a task may go without their pipeline.

    Examples
    --------
    >>> is_quick(Task(len, retries=3)), is_quick(Task(len, timeout_seconds=3))
    (True, False)
    """
    options = task.options
    known = task.__dict__.get("_quick")
    if known is not None and known[0] is options:
        return bool(known[1])
    quick = (
        isinstance(options.trigger, Trigger)
        and not task.isasync
        and all(getattr(options, name) == default for name, default in _DECISIVE)
    )
    task.__dict__["_quick"] = options, quick
    return quick


class QuickStep:
    """A step whose task is quick, in one block.

    Parameters
    ----------
    task : Task
        The definition.
    keyed : sequence of (str, Feed)
        Inputs of the body.
    changing : sequence of Feed
        Those above that may have ended differently for each child.
    segment : Segment
        Filled with what completed.
    calls : QuickCalls
        Calls the body.
    iterated_over : bool
        Whether others iterate over its values, so that what can be iterated over only
        once is for the pipeline.
    """

    __slots__ = (
        "_body",
        "_by_keyword",
        "_call",
        "_changing",
        "_iterated_over",
        "_keyed",
        "segment",
    )

    def __init__(
        self,
        task: Task,
        keyed: Sequence[tuple[str, Feed]],
        changing: Sequence[Feed],
        segment: Segment,
        calls: QuickCalls,
        iterated_over: bool,
    ) -> None:
        # A kind of task may do more around the body than to call it.
        by_keyword = (
            task.body_signature.by_keyword
            and type(task).call_body is TaskBody.call_body
        )
        self._body = task.fn if by_keyword else task.call_body
        self._by_keyword = by_keyword
        self._keyed = [(key, feed.value) for key, feed in keyed]
        self._changing = [feed.is_completed for feed in changing]
        self._call = calls
        self._iterated_over = iterated_over
        self.segment = segment

    def run(self, index: int, now: float) -> Answer:
        """Call the body of a child, at a time.

        Returns
        -------
        Returned or Raised or None
            `None` if the value was recorded. Else what the pipeline has to judge, or
            `NOT_CALLED`. The times of the child are for the caller to note.
        """
        try:
            inputs = {key: value(index) for key, value in self._keyed}
        except (InputError, MissingResult):
            return NOT_CALLED
        value: Any = self._call(self._body, inputs, index, now, self._by_keyword)
        kind = type(value)  # not __class__, which is user code in a proxy
        if kind not in _VALUES:
            if kind is QuickRaised:
                raised: QuickRaised = value
                return raised
            if issubclass(kind, _NO_VALUES):
                return Returned(value)
            if self._iterated_over and hasattr(value, "__next__"):
                return Returned(value)
        offset = index - self.segment.start
        self.segment.values[offset] = value
        self.segment.codes[offset] = COMPLETED
        return None

    def may_run(self, index: int) -> bool:
        """Whether all above a child completed."""
        for is_completed in self._changing:  # noqa: SIM110  all() takes three times as long
            if not is_completed(index):
                return False
        return True


def quick_step(
    task: Task,
    keyed: Sequence[tuple[str, Feed]],
    changing: Sequence[Feed],
    base: Tally,
    segment: Segment,
    calls: QuickCalls | None,
    iterated_over: bool,
) -> QuickStep | None:
    """A quick step, `None` if the task, or what is above it, wants the pipeline.

    Parameters
    ----------
    task, keyed, changing, segment, calls, iterated_over
        As of `QuickStep`.
    base : Tally
        How those above ended that are the same for all children.
    """
    if calls is None or base.successful != base.total or base.skipped:
        return None
    best = sum_tallies([base, *(ONE_COMPLETED for _ in changing)])
    trigger = task.options.trigger
    if not isinstance(trigger, Trigger) or trigger.rule(best, False) is not None:
        return None
    return QuickStep(task, keyed, changing, segment, calls, iterated_over)
