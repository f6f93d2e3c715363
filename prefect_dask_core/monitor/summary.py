"""Summary: what became of a run, as numbers and as lines of text.

Everything here is worked out from segments, column by column; the state of a child is
made only where it is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import sub
from typing import Final

from prefect_dask_core.engine.codes import STATE_BY_CODE
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.views import NodeView, RunView
from prefect_dask_core.monitor.palette import ORDER
from prefect_dask_core.monitor.texts import duration, first_line
from prefect_dask_core.states import State, TriggerFailed

#: Codes of what failed or crashed by itself, and of what its trigger refused.
_BAD: Final = frozenset(
    code
    for code, cls in enumerate(STATE_BY_CODE)
    if cls.__name__ in ("Failed", "TimedOut", "Crashed")
)
_REFUSED: Final = STATE_BY_CODE.index(TriggerFailed)
#: Failures that lines of text name one by one.
MOST_NAMED: Final = 5


@dataclass(slots=True)
class TaskSummary:
    """What became of all runs of one task.

    Parameters
    ----------
    name : str
        Name of the task.
    runs : int
        Runs that are known of; each child is one, ended or not.
    counts : dict of str to int
        Runs by the name of their state's class.
    ended : int
        Runs that have ended.
    longest : float
        Seconds between begin and end of the run that took longest.
    longest_name : str
        Name of that run; empty if none ended.
    retries : int
        Attempts after the first, of all runs.
    """

    name: str
    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    longest: float = 0.0
    longest_name: str = ""
    retries: int = 0

    @property
    def is_timed(self) -> bool:
        """Whether it is known how long any of them took.

        Of a state that an earlier run gave only the end is known.
        """
        return self.longest > 0


@dataclass(frozen=True, slots=True)
class Failure:
    """One run that failed or crashed.

    Parameters
    ----------
    name : str
        Its name, a child as ``"load[3]"``.
    node : int
        Number of its node.
    index : int or None
        Index of a child.
    state : State
        Its state.
    segment : Segment
        Where more is known of it.
    """

    name: str
    node: int
    index: int | None
    state: State
    segment: Segment


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What became of a run.

    Parameters
    ----------
    name : str
        Name of the flow.
    state : State
        Final state of the run.
    seconds : float
        How long it took; of a run that was resumed, all of its attempts together.
    tasks : tuple of TaskSummary
        In the order in which the run knew of them.
    failures : tuple of Failure
        Some that failed by themselves, in order.
    failed, refused : int
        How many there are, and how many did not run because of them.
    """

    name: str
    state: State
    seconds: float
    tasks: tuple[TaskSummary, ...]
    failures: tuple[Failure, ...]
    failed: int
    refused: int


def summarize(view: RunView, state: State, end: float, most: int = 50) -> RunSummary:
    """Summary of a run.

    Parameters
    ----------
    view : RunView
        The run.
    state : State
        Its final state.
    end : float
        When it ended, in seconds since the epoch.
    most : int
        Most failures that are given.
    """
    tasks = summaries_of(view)
    bad = [STATE_BY_CODE[code].__name__ for code in _BAD]
    failed = sum(task.counts[name] for task in tasks for name in bad)
    refused = sum(task.counts["TriggerFailed"] for task in tasks)
    return RunSummary(
        name=view.info.flow_name,
        state=state,
        seconds=max(0.0, end - view.info.begin - view.seconds_between),
        tasks=tuple(tasks),
        failures=tuple(failures_of(view, most)),
        failed=failed,
        refused=refused,
    )


def summaries_of(view: RunView) -> list[TaskSummary]:
    """Summary of each task; what the package made is left out."""
    found: dict[str, TaskSummary] = {}
    names = labels_of(view.nodes)
    for node in view.nodes:
        if node.helper:
            continue
        summary = found.setdefault(node.name, TaskSummary(node.name))
        children = view.children(node.number)
        segments = list(view.segments(node.number))
        runs = 1 if children is None else len(children)
        known = sum(map(len, segments))
        summary.runs += runs
        if known < runs:
            summary.counts["Pending"] += runs - known
        for segment in segments:
            _add(summary, segment, names[node.number], children is not None)
    return list(found.values())


def _add(summary: TaskSummary, segment: Segment, name: str, mapped: bool) -> None:
    """Add what a segment tells."""
    for code in set(segment.codes):
        summary.counts[STATE_BY_CODE[code].__name__] += segment.codes.count(code)
    summary.retries += sum(max(0, made - 1) for made in segment.attempts.values())
    if not segment.codes:
        return
    # Without NumPy: a million children take 0.07 s, its import alone takes more.
    seconds = list(map(sub, segment.ends, segment.begins))
    if not all(segment.begins):  # of what crashed only the end is known
        pairs = zip(seconds, segment.begins, strict=True)
        seconds = [took if begin else 0.0 for took, begin in pairs]
    summary.ended += len(segment)
    longest = max(seconds)
    if longest > summary.longest or not summary.longest_name:
        summary.longest = longest
        index = segment.start + seconds.index(longest)
        summary.longest_name = f"{name}[{index}]" if mapped else name


def labels_of(nodes: Sequence[NodeView]) -> list[str]:
    """What each node is called: its task's name, its slug if several have that."""
    times = Counter(node.name for node in nodes)
    return [node.name if times[node.name] == 1 else node.slug for node in nodes]


def failures_of(view: RunView, most: int) -> list[Failure]:
    """What failed by itself, and after it what its trigger refused; at most so many."""
    names = labels_of(view.nodes)
    found: list[Failure] = []
    for codes in (_BAD, frozenset({_REFUSED})):
        for node in view.nodes:
            mapped = view.children(node.number) is not None
            for segment in list(view.segments(node.number)):
                if codes.isdisjoint(segment.codes):
                    continue
                for offset in _offsets(segment, codes):
                    if len(found) >= most:
                        return found
                    index = segment.start + offset if mapped else None
                    name = names[node.number]
                    name = name if index is None else f"{name}[{index}]"
                    state = segment.state(offset)
                    found.append(Failure(name, node.number, index, state, segment))
    return found


def _offsets(segment: Segment, codes: frozenset[int]) -> Iterator[int]:
    return (offset for offset, code in enumerate(segment.codes) if code in codes)


# -- text --------------------------------------------------------------------------


def lines_of(summary: RunSummary) -> list[str]:
    """A summary as lines of text for a terminal or a log.

    Examples
    --------
    >>> from prefect_dask_core.states import Completed
    >>> counts = Counter(Completed=2, Failed=1)
    >>> load = TaskSummary("load", 3, counts, 3, 4.0, "load[2]")
    >>> for line in lines_of(RunSummary("etl", Completed(), 4.2, (load,), (), 1, 0)):
    ...     print(line)
    flow 'etl' Completed in 4.20 s
      load   3 runs  1 Failed, 2 Completed   longest 4.00 s: load[2]
    """
    state = summary.state
    told = "" if not state.message else f": {first_line(state.message)}"
    lines = [f"flow {summary.name!r} {state.name} in {duration(summary.seconds)}{told}"]
    rows = [_row(task) for task in summary.tasks]
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    for name, runs, counts, longest in rows:
        padded = name.ljust(widths[0]), runs.rjust(widths[1]), counts.ljust(widths[2])
        lines.append(f"  {padded[0]}  {padded[1]}  {padded[2]}   {longest}".rstrip())
    lines += _failure_lines(summary)
    return lines


def _row(task: TaskSummary) -> tuple[str, str, str, str]:
    runs = f"{task.runs:,} run" + "s" * (task.runs != 1)
    longest = f"longest {duration(task.longest)}"
    if task.runs > 1:
        longest += f": {task.longest_name}"
    if task.retries:
        longest += f", {task.retries:,} retr" + ("y" if task.retries == 1 else "ies")
    return task.name, runs, counts_text(task.counts), longest if task.is_timed else ""


def _failure_lines(summary: RunSummary) -> list[str]:
    if not summary.failed:
        return []
    shown = [
        failure
        for failure in summary.failures
        if not isinstance(failure.state, TriggerFailed)
    ][:MOST_NAMED]
    lines = [f"  {failure.name}: {told_by(failure.state)}" for failure in shown]
    more = summary.failed - len(shown)
    rest = [f"{more:,} more failed"] if more and shown else []
    if summary.refused:
        rest.append(f"{summary.refused:,} did not run because of that")
    return [*lines, *([f"  {', '.join(rest)}"] if rest else [])]


def counts_text(counts: Counter[str]) -> str:
    """Counts by state, what needs a look first.

    Examples
    --------
    >>> counts_text(Counter(Completed=1200, Failed=3))
    '3 Failed, 1,200 Completed'
    """
    return ", ".join(f"{counts[name]:,} {name}" for name in ORDER if counts[name])


def told_by(state: State) -> str:
    """First line of what a state tells, or its name.

    Examples
    --------
    >>> from prefect_dask_core.states import Failed
    >>> told_by(Failed("ValueError: no")), told_by(Failed())
    ('ValueError: no', 'Failed')
    """
    return first_line(state.message) if state.message else state.name
