"""Scale: what large and repeated runs keep in memory, and where.

Schedulers run in processes of their own here, and so do clients, each in one that has
done nothing before: what a process holds is then what the run has given it.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar, Final, NamedTuple

from distributed import Client

from benchmarks.bench import Bench, open_apart
from benchmarks.comparison import Bar, Measurement, Pair, seconds
from benchmarks.mapped import count_of, numbers
from benchmarks.processes import (
    count_tasks,
    forget_peak,
    in_fresh_process,
    peak_megabytes,
    resident_megabytes,
)
from prefect_dask_core import DaskTaskRunner, Flow, State, Task

GROWTH_BAR: Final = Bar("ours", 400)
PEAK_BAR: Final = Bar("ratio", 1.0)
REPEATED_BAR: Final = Bar("ratio", 1.10)
#: The run whose memory that of the last one is held against.
SETTLED_RUN: Final = 10
#: Entries of Dask's logs, where they are kept out of the measurement.
SHORT_LOGS: Final = 50
#: Seconds a scheduler is given to forget a run before its tasks are counted.
PATIENCE: Final = 10.0


def measure(bench: Bench) -> Iterator[Measurement]:
    """One huge run, what is alive inside of a lane, and many runs."""
    yield from measure_million(bench)
    yield measure_lane(bench)
    yield measure_peak(bench)
    yield from measure_repeated(bench)


# -- a million children ----------------------------------------------------------------


class Growth(NamedTuple):
    """What a run took.

    Parameters
    ----------
    seconds : float
        From `flow.run` to its state.
    client, scheduler : float
        Most megabytes that the process had meanwhile, less what it had before.
    """

    seconds: float
    client: float
    scheduler: float


def measure_million(bench: Bench) -> Iterator[Measurement]:
    """A huge fan-out with a reduce, the state of each child read afterwards."""
    count = bench.choose(1_000_000, 2_000)
    with open_apart() as address:
        found = in_fresh_process(run_and_read, address, count)
    what = f"{count:,} children and a reduce"
    yield Measurement(what, "s", (Pair(found.seconds),))
    for process, growth in (("client", found.client), ("scheduler", found.scheduler)):
        name = f"  growth of the {process}'s memory"
        yield Measurement(name, "MB", (Pair(growth),), GROWTH_BAR)


def same(number: int) -> int:
    """Body of a child."""
    return number


def run_and_read(address: str, count: int) -> Growth:
    """Run a fan-out and read the states of all children; runs in a fresh process."""
    with DaskTaskRunner(address=address) as runner:
        run_mapped(runner, 1_000)  # what is loaded once
        client: Any = runner.client
        begins = forget_peak(), client.run_on_scheduler(forget_peak)
        begin = time.perf_counter()
        states = run_mapped(runner, count)
        took = time.perf_counter() - begin
        peaks = peak_megabytes(), client.run_on_scheduler(peak_megabytes)
        completed = sum(states[index].is_completed() for index in range(count))
        if completed != count or states.counts() != {"Completed": count}:
            raise RuntimeError(f"{completed} of {count} children completed")
    return Growth(took, peaks[0] - begins[0], peaks[1] - begins[1])


def run_mapped(runner: DaskTaskRunner, count: int) -> Any:
    """States of children whose number is known only at run time."""
    with Flow("many children") as flow:
        children = Task(same).map(Task(numbers)(count))
        total = Task(sum, name="total")(children)
    state = flow.run(task_runner=runner)
    if state[total].result() != count * (count - 1) // 2:
        raise RuntimeError(f"the flow gave another sum: {state!r}")
    return state[children].states


# -- values inside of a lane -----------------------------------------------------------


class Counted:
    """A value that its process counts while it is alive.

    Parameters
    ----------
    number : int
        What it holds.
    """

    __slots__ = ("number",)

    #: Values of this process that are alive, and the most there were at a time.
    alive: ClassVar[int] = 0
    most: ClassVar[int] = 0
    #: The thread that runs children makes values, others let go of some. To be entered
    #: twice: Python may collect garbage while it is held.
    lock: ClassVar[Any] = threading.RLock()

    number: int

    def __new__(cls, number: int) -> Counted:
        made = super().__new__(cls)
        made.number = number
        with Counted.lock:
            Counted.alive += 1
            Counted.most = max(Counted.most, Counted.alive)
        return made

    def __del__(self) -> None:
        with Counted.lock:
            Counted.alive -= 1

    def __getnewargs__(self) -> tuple[int]:  # values that are unpickled count as well
        return (self.number,)


def begin_lane(number: int) -> Counted:
    """Body of the first node of a lane."""
    return Counted(number)


def go_on(value: Counted) -> Counted:
    """Body of the second node."""
    return Counted(value.number)


def end_lane(value: Counted) -> int:
    """Body of the third node."""
    return value.number


def most_alive() -> int:
    """Most values that were alive in this process; begins to count anew."""
    found, Counted.most = Counted.most, Counted.alive
    return found


def measure_lane(bench: Bench) -> Measurement:
    """How many of the values that only the next node reads are alive at a time.

    A block in flight is one that a thread runs.
    """
    count = bench.choose(100_000, 2_000)
    with Flow("lane") as flow:
        begun = Task(begin_lane).map(Task(numbers)(count))
        ended = Task(end_lane).map(Task(go_on).map(begun))
        total = Task(count_of)(ended)
    bench.settle()
    threads = sum(bench.client.nthreads().values())
    pairs = []
    for _ in range(bench.choose(3, 1)):
        bench.client.run(most_alive)
        state = flow.run(task_runner=bench.runner)
        if state[total].result() != count:
            raise RuntimeError(f"the lane gave another count: {state!r}")
        pairs.append(Pair(float(sum(bench.client.run(most_alive).values()))))
        bench.settle()
    what = f"3 nodes of {count:,} children, element by element"
    limit = 4 * threads + threads
    return Measurement(what, "values alive", tuple(pairs), Bar("ours", limit))


# -- the scheduler's peak --------------------------------------------------------------


def measure_peak(bench: Bench) -> Measurement:
    """Most memory of a scheduler that runs nothing else, on either side."""
    count = bench.choose(400_000, 2_000)
    with open_apart() as address:
        ours = in_fresh_process(peak_of_flow, address, count)
    with open_apart() as address:
        theirs = in_fresh_process(peak_of_client_map, address, count)
    what = f"scheduler's peak, {count:,} × lambda x: None; peer: client.map"  # noqa: RUF001
    return Measurement(what, "MB", (Pair(ours, theirs),), PEAK_BAR)


def peak_of_flow(address: str, count: int) -> float:
    """Peak of the scheduler's memory in a whole run."""
    with Flow("nothing") as flow:
        children = Task(lambda x: None, name="nothing").map(range(count))
    with DaskTaskRunner(address=address) as runner:
        client: Any = runner.client
        state = flow.run(task_runner=runner)
        if not state[children].is_successful():
            raise RuntimeError(f"not every child succeeded: {state!r}")
        return float(client.run_on_scheduler(peak_megabytes))


def peak_of_client_map(address: str, count: int) -> float:
    """Peak of the scheduler's memory until a hundredth of the tasks are done.

    All of them would take `client.map` ten minutes. A peak only rises, so this one
    flatters the peer.
    """
    with Client(address) as client:  # type: ignore[no-untyped-call]
        warnings.simplefilter("ignore")  # Dask's advice on the size of this graph
        futures = client.map(lambda x: None, range(count), pure=False)
        client.gather(futures[: max(count // 100, 1)])
        if client.run_on_scheduler(count_tasks) < count:
            raise RuntimeError("the scheduler has not taken in all tasks")
        return float(client.run_on_scheduler(peak_megabytes))


# -- many runs -------------------------------------------------------------------------


class Repeated(NamedTuple):
    """What a row of runs of one flow left behind.

    Parameters
    ----------
    most_held : int
        Tasks on the scheduler after a run; the most of all runs.
    client, scheduler : Pair
        Megabytes after the last run, and after the tenth.
    seconds : float
        Of all runs.
    """

    most_held: int
    client: Pair
    scheduler: Pair
    seconds: float


def measure_repeated(bench: Bench) -> Iterator[Measurement]:
    """The same flow again and again on one scheduler.

    Dask keeps the last 1,000 messages of each connection, which takes some hundred
    runs to fill. With short logs, what grows is what runs leave behind for good.
    """
    runs, count = bench.choose((200, 1_000), (SETTLED_RUN + 2, 50))
    with open_apart() as address:
        found = in_fresh_process(run_repeatedly, address, runs, count)
    what = f"a flow of {count:,} children {runs} times"
    yield Measurement(what, "s", (Pair(found.seconds),))
    held = (Pair(float(found.most_held)),)
    yield Measurement("  left on the scheduler", "tasks", held, Bar("ours", 0))
    for process, pair in (("client", found.client), ("scheduler", found.scheduler)):
        name = f"  {process}'s memory; peer: after run {SETTLED_RUN}"
        yield Measurement(name, "MB", (pair,), REPEATED_BAR)
    with open_apart(log_length=SHORT_LOGS) as address:
        found = in_fresh_process(run_repeatedly, address, runs, count)
    name = f"  scheduler's, Dask's own logs cut to {SHORT_LOGS} entries"
    goal = REPEATED_BAR._replace(binding=False)
    yield Measurement(name, "MB", (found.scheduler,), goal)


def run_repeatedly(address: str, runs: int, count: int) -> Repeated:
    """Run a flow many times, and look what stays; runs in a fresh process."""
    most_held = 0
    spent = 0.0
    settled = 0.0, 0.0
    with Flow("again") as flow:
        Task(count_of)(Task(same).map(Task(numbers)(count)))
    with DaskTaskRunner(address=address) as runner:
        client: Any = runner.client

        def memory() -> tuple[float, float]:
            return resident_megabytes(), client.run_on_scheduler(resident_megabytes)

        def run() -> None:
            state: State = flow.run(task_runner=runner)
            if not state.is_successful():
                raise RuntimeError(f"the flow failed: {state!r}")

        for number in range(1, runs + 1):
            spent += seconds(run)
            most_held = max(most_held, tasks_held(client))
            if number == SETTLED_RUN:
                settled = memory()
        ended = memory()
    pairs = [Pair(*both) for both in zip(ended, settled, strict=True)]
    return Repeated(most_held, pairs[0], pairs[1], spent)


def tasks_held(client: Any) -> int:
    """Tasks a scheduler holds, once there are none or patience ends."""
    deadline = time.monotonic() + PATIENCE
    while (held := int(client.run_on_scheduler(count_tasks))) > 0:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return held
