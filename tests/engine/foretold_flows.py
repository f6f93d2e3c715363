"""Random flows whose end can be told beforehand, by rules in plain sight.

`foretell` is an oracle: it knows the rules for skips, triggers, retries and limits as
they are written down, and shares no code with the package.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import strategies as st

from prefect_dask_core import Flow, Task, context, triggers, unmapped
from prefect_dask_core.signals import ENDRUN, FAIL, SKIP, VALIDATIONFAIL
from prefect_dask_core.states import Failed, Mapped

#: Attempts that ran: task, index of the child or `None`, number of the attempt. The
#: workers of a cluster in this process write into it too.
RAN: list[tuple[str, int | None, int]] = []

#: What an attempt may do, and the state that means.
ENDS = {
    "ok": "Completed",
    "skip": "Skipped",
    "fail": "Failed",
    "signal": "Failed",
    "invalid": "ValidationFailed",
    "late": "Failed",  # a TimeoutError of the body's own
    "slow": "TimedOut",  # longer than the limit of the task
    "asleep": "TimedOut",  # the same in a coroutine
    "over": "Failed",  # and no further attempt
    "crash": "Crashed",
}
#: States after which there is another attempt, if the task has one left.
RETRIED = ("Failed", "ValidationFailed", "TimedOut")

GOOD = ("Completed", "Skipped")
#: When a trigger lets a task run, by the states above.
TRIGGERS = {
    "all_successful": lambda above: all(end in GOOD for end in above),
    "all_finished": lambda above: True,
    "all_failed": lambda above: all(end not in GOOD for end in above),
    "any_successful": lambda above: not above or any(end in GOOD for end in above),
    "any_failed": lambda above: not above or any(end not in GOOD for end in above),
}


class Run(NamedTuple):
    """The end of a task run: name of its state, and how often its body ran."""

    end: str
    attempts: int = 0


@dataclass(frozen=True)
class Foretold:
    """One task of a random flow.

    Parameters
    ----------
    name : str
        Its name.
    over : list of int, int or None
        What it is mapped over: indices, or the number of a task above; `None` for a
        plain task.
    reads : tuple of int
        Numbers of the tasks above that it reads as a whole.
    scripts : tuple of tuple of str
        What its attempts do; one script per child, and so on from the first.
    width : int
        Number of items of its value, for those that map over it.
    options : dict
        Options of the task; the trigger by its name.
    """

    name: str
    over: list[int] | int | None = None
    reads: tuple[int, ...] = ()
    scripts: tuple[tuple[str, ...], ...] = (("ok",),)
    width: int = 2
    options: dict = field(default_factory=dict)

    def script(self, index):
        """What the attempts of a child do, or of a plain task."""
        return self.scripts[(index or 0) % len(self.scripts)]


class Body:
    """Acts out the script of a task; the last act repeats.

    Parameters
    ----------
    foretold : Foretold
        The task.
    linger : callable
        Takes longer than the limit of the task.
    """

    def __init__(self, foretold, linger):
        self.__name__ = foretold.name
        self.foretold = foretold
        self.linger = linger

    def __call__(self, **inputs):
        index, attempt = context.map_index, context.task_run_count
        RAN.append((self.foretold.name, index, attempt))
        script = self.foretold.script(index)
        act = script[min(attempt, len(script)) - 1]
        if act == "slow":
            return self.linger()
        if act == "asleep":
            return asyncio.sleep(60)
        if act != "ok":
            raise {
                "skip": SKIP("of its own"),
                "fail": ValueError(attempt),
                "signal": FAIL("of its own"),
                "invalid": VALIDATIONFAIL("of its own"),
                "late": TimeoutError("of its own"),
                "over": ENDRUN(Failed("of its own")),
                "crash": SystemExit(3),
            }[act]
        return index if index is not None else list(range(self.foretold.width))


def hang():
    """Take much longer than any limit in the tests, in small steps."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.005)


@st.composite
def foretold_flows(draw, acts, max_size=6, options=None, max_attempts=3, first=()):
    """Tasks that read earlier ones as a whole or child by child.

    Parameters
    ----------
    acts : sequence of str
        What attempts may do.
    max_size : int
        Largest number of tasks.
    options : dict of str to strategy, optional
        Options of the tasks.
    max_attempts : int
        Longest script.
    first : sequence of Foretold
        The first tasks of the flow.
    """
    scripts = st.lists(st.sampled_from(acts), min_size=1, max_size=max_attempts)
    found = list(first)
    for number in range(len(found), draw(st.integers(max(len(found), 1), max_size))):
        above = st.sampled_from(range(number)) if number else st.nothing()
        found.append(
            Foretold(
                name=f"t{number}",
                over=draw(
                    st.none()
                    | st.integers(0, 3).map(lambda n: list(range(n)))
                    | above
                    | above
                ),
                reads=draw(st.lists(above, max_size=2 if number else 0).map(tuple)),
                scripts=tuple(
                    map(tuple, draw(st.lists(scripts, min_size=1, max_size=3)))
                ),
                width=draw(st.integers(0, 3)),
                options=draw(st.fixed_dictionaries(options or {})),
            )
        )
    return found


def build(foretold, linger=hang):
    """The flow, and its tasks in the order of their numbers."""
    flow, tasks = Flow("foretold"), []
    for spec in foretold:
        options = dict(spec.options)
        if "trigger" in options:
            options["trigger"] = getattr(triggers, options["trigger"])
        task = Task(Body(spec, linger), name=spec.name, **options)
        inputs = {f"x{number}": unmapped(tasks[number]) for number in spec.reads}
        if spec.over is not None:
            over = tasks[spec.over] if isinstance(spec.over, int) else spec.over
            inputs["item"] = over
        flow.set_dependencies(task, keyword_tasks=inputs, mapped=spec.over is not None)
        tasks.append(task)
    return flow, tasks


# -- the oracle ----------------------------------------------------------------------


def foretell(foretold):
    """End of each task: a `Run`, or a list of them, one per child."""
    ends: list[Run | list[Run]] = []
    for spec in foretold:
        whole = [end for number in spec.reads for end in seen_whole(ends[number])]
        if spec.over is None:
            ends.append(end_of(spec, whole, None))
            continue
        each = seen_by_child(spec, foretold, ends)
        if skips(spec, whole) or each is None:
            # No children: the task is judged as one, and has nothing to map over.
            source = [ends[spec.over].end] if each is None else []
            refused = refusal(spec, [*whole, *source])
            ends.append(Run(refused or "Failed"))
        else:
            ends.append([end_of(spec, [*whole, *own], i) for i, own in enumerate(each)])
    return ends


def seen_whole(ended):
    """States that a reader of the whole sees; no children stand as one success."""
    if isinstance(ended, Run):
        return [ended.end]
    return [run.end for run in ended] or ["Completed"]


def seen_by_child(spec, foretold, ends):
    """States that each child sees of what is mapped over, `None` without a length."""
    if isinstance(spec.over, list):
        return [[] for _ in spec.over]
    source = ends[spec.over]
    if isinstance(source, list):
        return [[run.end] for run in source]
    if source.end == "Completed":
        return [["Completed"]] * foretold[spec.over].width
    return None


def skips(spec, above):
    return spec.options.get("skip_on_upstream_skip", True) and "Skipped" in above


def refusal(spec, above):
    """State a task takes without its body, if it takes one."""
    if skips(spec, above):
        return "Skipped"
    passes = TRIGGERS[spec.options.get("trigger", "all_successful")]
    return None if passes(above) else "TriggerFailed"


def end_of(spec, above, index):
    """End of a plain task, or of a child."""
    refused = refusal(spec, above)
    if refused is not None:
        return Run(refused)
    script = spec.script(index)
    attempt = 1
    while True:
        act = script[min(attempt, len(script)) - 1]
        is_last = attempt > spec.options.get("retries", 0) or act == "over"
        if ENDS[act] not in RETRIED or is_last:
            return Run(ENDS[act], attempt)
        attempt += 1


# -- what was found ------------------------------------------------------------------


def ended(foretold, states):
    """End of each task as it was found, in the form of `foretell`.

    Parameters
    ----------
    foretold : list of Foretold
        The tasks.
    states : list of State
        Their states after a run before which `RAN` was empty.
    """
    attempts = defaultdict(list)
    for name, index, attempt in RAN:
        attempts[name, index].append(attempt)
    for found in attempts.values():
        assert found == list(range(1, len(found) + 1)), "an attempt is lost or twice"
    ends: list[Run | list[Run]] = []
    for spec, state in zip(foretold, states, strict=True):
        if isinstance(state, Mapped):
            ends.append(
                [
                    Run(type(child).__name__, len(attempts[spec.name, index]))
                    for index, child in enumerate(state)
                ]
            )
            for index, run in enumerate(ends[-1]):
                assert state.states.attempts(index) == run.attempts
        else:
            ends.append(Run(type(state).__name__, len(attempts[spec.name, None])))
    return ends
