"""The driver of a run whose nodes come while it runs, on plain lists of events."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_dask_core import Flow, Task, flatten, task
from prefect_dask_core.engine.events import (
    Added,
    Closed,
    ReportLost,
    Started,
    Submit,
)
from prefect_dask_core.engine.grouping import TRIED_PER_THREAD
from prefect_dask_core.engine.growing import COUNTING_ALL, GrowingDriver
from prefect_dask_core.engine.plan import Node
from prefect_dask_core.states import Completed
from tests.engine.simulation import DONE, WAITING, Simulation


@task
def plain():
    return 1


@task
async def later():
    return 1


def nodes_of(made, count):
    return tuple(
        Node(
            number,
            f"{made.name}-{number}",
            made,
            made.identity,
            (),
            mapped=False,
            constant=False,
        )
        for number in range(count)
    )


def submitted(made, count, threads=2):
    """How many of some runs go out before one has ended."""
    driver = GrowingDriver("flow")
    commands = [
        *driver.handle(Started(threads)),
        *driver.handle(Added(nodes_of(made, count))),
    ]
    return sum(
        len(command.assignments) for command in commands if isinstance(command, Submit)
    )


def test_runs_of_unknown_length_are_held_back():
    assert submitted(plain, 60) == 2 * TRIED_PER_THREAD
    assert submitted(plain, 3) == 3


def test_coroutines_are_not_held_back():
    """They wait side by side; 60 that sleep for a second took two."""
    assert submitted(later, 60) == 60


# -- what is flattened after it began ------------------------------------------------


class GrowingSimulation(Simulation):
    """A simulated cluster on which the nodes of a flow are added one by one."""

    def __init__(self, flow, random, **options):
        super().__init__(flow, random, **options)
        self.driver = GrowingDriver("flow")
        self.counted = []  # blocks that count

    def submit(self, assignments, hold):
        super().submit(assignments, hold)
        self.counted += [
            a.block.number
            for a in assignments
            if a.block.steps[0].task.fn is COUNTING_ALL.fn
        ]

    def add_lists(self):
        self.feed(Added(self.plan.nodes[:-1]))

    def add_flat(self):
        self.feed(Added(self.plan.nodes[-1:]))
        self.feed(Closed())

    @property
    def lists(self):
        """Segments of the lists that have ended."""
        return self.driver.segments(len(self.plan.nodes) - 2)

    def trouble(self, number, chance):
        """Kill a worker, or lose a result, now and then."""
        random = self.random
        if number in self.keys and random.random() < chance:
            status = self.keys[number].status
            if status == WAITING:
                self.kill(number)
            elif status == DONE:
                self.lose_result(number)


def flat_flow(widths):
    """Lists of some widths, and a task mapped over them flattened."""
    with Flow("flat") as flow:
        lists = Task(
            lambda width: [(width, n) for n in range(width)] if width < 5 else 1 / 0,
            name="lists",
        ).map(widths)
        Task(lambda x: x, name="flat").map(flatten(lists))
    return flow


WIDTHS = st.lists(st.integers(0, 5), min_size=1, max_size=30)


def expected(widths):
    """Elements, `None` where the child failed that was to give some."""
    return [
        element
        for width in widths
        for element in ([(width, n) for n in range(width)] if width < 5 else [None])
    ]


def found_in(simulation):
    *_, flat = simulation.states()
    return [s.result() if type(s) is Completed else None for s in flat.states]


@settings(deadline=None, max_examples=60)
@given(WIDTHS, st.integers(0, 10_000), st.integers(0, 40), st.floats(0, 0.3))
def test_a_fan_out_may_be_flattened_at_any_time(widths, seed, steps, muted):
    simulation = GrowingSimulation(flat_flow(widths), Random(seed), mute=muted)
    simulation.start()
    simulation.add_lists()
    for _ in range(steps):
        simulation.step()
    simulation.add_flat()
    simulation.to_the_end()
    assert found_in(simulation) == expected(widths)
    assert not simulation.driver.silent()
    # Blocks that only count are not kept.
    assert not simulation.held.intersection(simulation.counted)


def test_blocks_that_were_cut_later_are_not_counted_again():
    widths = [2] * 40
    simulation = GrowingSimulation(flat_flow(widths), Random(0), speeds=(0.05,))
    simulation.start()
    simulation.add_lists()
    while not simulation.lists:
        simulation.step()
    simulation.add_flat()
    simulation.to_the_end()
    assert 0 < len(simulation.counted) < len(simulation.lists)


@settings(deadline=None, max_examples=60)
@given(WIDTHS, st.integers(0, 10_000), st.booleans())
def test_what_is_lost_while_it_is_counted_is_counted_again(widths, seed, deadly):
    random = Random(seed)
    simulation = GrowingSimulation(flat_flow(widths), random, big=1.0)
    simulation.start()
    simulation.add_lists()
    while sum(map(len, simulation.lists)) < len(widths):
        assert simulation.step()
    simulation.add_flat()
    for _ in range(3 if not deadly else 200):
        known = [n for n in simulation.counted if n in simulation.keys]
        if known:
            above = simulation.keys[known[0]].assignment.reads
            simulation.trouble(random.choice([known[0], *above]), 0.5)
        if not simulation.finished and random.random() < 0.3:
            simulation.look()
        if not simulation.finished:
            simulation.step()
    simulation.to_the_end()
    *_, state = simulation.states()
    if state.states is None:
        assert deadly
        assert "were lost with their workers before" in state.message
        return
    # A list whose worker died is one element that crashed; the others stay in order.
    values = [s.result() for s in state.states if type(s) is Completed]
    elements = iter(expected(widths))
    assert all(value in elements for value in values)


def counting():
    """A run in which one block is about to count the elements of another."""
    simulation = GrowingSimulation(flat_flow([2]), Random(0), big=0.0)
    simulation.start()
    simulation.add_lists()
    while not simulation.lists:
        assert simulation.step()
    simulation.add_flat()
    assert len(simulation.counted) == 1
    return simulation


def test_a_count_of_which_nothing_is_left_to_tell_is_made_again():
    simulation = counting()
    simulation.feed(ReportLost(tuple(simulation.counted)))
    assert len(simulation.counted) == 2
    simulation.to_the_end()
    assert found_in(simulation) == [(2, 0), (2, 1)]


def test_what_kills_whoever_counts_it_is_given_up():
    simulation = counting()
    while not simulation.finished and len(simulation.counted) < 20:
        last = simulation.counted[-1]
        if last in simulation.keys and simulation.keys[last].status == WAITING:
            simulation.kill(last)
            simulation.look()
        else:
            simulation.step()
    assert len(simulation.counted) == 4
    *_, state = simulation.states()
    assert "were lost with their workers before" in state.message
