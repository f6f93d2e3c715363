"""The driver: events in, commands out."""

import itertools
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prefect_dask_core import Flow, SequentialTaskRunner, Task, flatten, unmapped
from prefect_dask_core.engine.events import (
    BlockAdvanced,
    BlockDone,
    BlockLost,
    BlockReached,
    Finish,
    Resized,
    ResultsLost,
    Started,
    StopAsked,
)
from prefect_dask_core.engine.fanout import most_in_flight
from prefect_dask_core.engine.summary import flow_state
from prefect_dask_core.states import Mapped
from prefect_dask_core.testing import scripted, scripted_children
from prefect_dask_core.triggers import all_finished, all_successful
from tests.engine.random_flows import Body, build, is_valid, random_flows, told_all
from tests.engine.simulation import ERRED, WAITING, Simulation

# A seed: a choice per event would be more than one example may draw.
randoms = st.integers(0, 2**32).map(Random)
calm = settings(deadline=None, max_examples=150)


def inc(x):
    return x + 1


def expected(flow, tasks):
    return told_all(flow.run(task_runner=SequentialTaskRunner()), tasks)


def outcome(simulation, tasks):
    return told_all(flow_state(simulation.plan, simulation.states()), tasks)


def run_through(flow, random=None, **options):
    simulation = Simulation(flow, random or Random(0), **options)
    simulation.start()
    simulation.to_the_end()
    simulation.check_end()
    return simulation


def kinds(state):
    return [type(child).__name__ for child in state]


# -- laws --------------------------------------------------------------------------


@calm
@given(random_flows(), randoms, st.integers(0, 4))
def test_in_any_order_a_run_ends_as_the_sequential_one(drawn, random, threads):
    assume(is_valid(drawn))
    flow, tasks = build(drawn)
    simulation = run_through(flow, random, threads=threads, want_all=True)
    assert set(simulation.submitted.values()) <= {1}
    assert set(simulation.ran.values()) <= {1}
    assert outcome(simulation, tasks) == expected(flow, tasks)


def many_plain_nodes(random, size):
    """A flow in which each node reads up to two earlier ones, and some fail."""
    with Flow("plain") as flow:
        tasks = []
        for number in range(size):
            script = random.choice([("ok",)] * 9 + [("fail",)])
            trigger = random.choice([all_successful, all_successful, all_finished])
            retries = random.choice([0, 0, 1])
            body = Body(f"t{number}", script)
            task = Task(body, name=f"t{number}", trigger=trigger, retries=retries)
            above = random.sample(tasks, min(random.randint(0, 2), len(tasks)))
            inputs = {f"x{n}": one for n, one in enumerate(above)}
            flow.set_dependencies(task, keyword_tasks=inputs)
            tasks.append(task)
    return flow, tasks


@calm
@given(randoms, st.integers(1, 40), st.integers(0, 2))
def test_nodes_that_share_blocks_end_as_the_sequential_run_each_having_run_once(
    random, size, threads
):
    flow, tasks = many_plain_nodes(random, size)
    # Some calls take so long that blocks hand back what they have not begun.
    speeds = random.choice([(0.0,), (0.0,) * 9 + (0.4,)])
    simulation = run_through(
        flow, random, threads=threads, speeds=speeds, want_all=True, one_kind=True
    )
    assert set(simulation.ran.values()) <= {1}
    assert outcome(simulation, tasks) == expected(flow, tasks)


@calm
@given(st.integers(0, 200), st.integers(1, 3), randoms, st.integers(0, 5))
def test_every_child_runs_exactly_once_and_the_reduce_is_exact(
    count, levels, random, threads
):
    with Flow("lane") as flow:
        level = Task(lambda n: list(range(n)), name="numbers")(count)
        nodes = []
        for _ in range(levels):
            level = Task(inc).map(level)
            nodes.append(level)
        summed = Task(lambda xs: sum(xs), name="sum")(level)
    simulation = run_through(flow, random, threads=threads)
    assert set(simulation.ran.values()) == {1}
    assert len(simulation.ran) == 2 + count * levels
    state = flow_state(simulation.plan, simulation.states())
    assert state[summed].result() == sum(range(count)) + levels * count


@calm
@given(random_flows(max_size=5), randoms)
def test_reports_may_come_twice(drawn, random):
    assume(is_valid(drawn))
    flow, tasks = build(drawn)
    simulation = Simulation(flow, random, want_all=True)
    simulation.start()
    for _ in range(10_000):
        if simulation.finished:
            break
        assert simulation.step()
        if simulation.reports and random.random() < 0.3:
            simulation.feed(random.choice(simulation.reports))
    simulation.check_end()
    assert set(simulation.ran.values()) <= {1}
    assert outcome(simulation, tasks) == expected(flow, tasks)


@calm
@given(random_flows(max_size=8), randoms, st.booleans())
def test_a_lost_result_is_computed_again_and_changes_nothing(drawn, random, one_kind):
    assume(is_valid(drawn))
    flow, tasks = build(drawn)
    # Blocks take so long that they hand children back, each time others.
    simulation = Simulation(
        flow,
        random,
        speeds=(0.0, 0.6, 1.2),
        want_all=True,
        mute=0.2,
        one_kind=one_kind,
    )
    simulation.start()
    for _ in range(10_000):
        if simulation.finished:
            break
        done = [n for n, key in simulation.keys.items() if key.result is not None]
        if done and random.random() < 0.1:
            simulation.lose_result(random.choice(done))
        assert simulation.step()
    simulation.check_end()
    assert outcome(simulation, tasks) == expected(flow, tasks)


@calm
@given(random_flows(max_size=8), randoms, st.booleans(), st.booleans())
def test_whatever_is_lost_every_node_ends_once(drawn, random, divisible, one_kind):
    assume(is_valid(drawn))
    flow, _ = build(drawn)
    simulation = Simulation(flow, random, mute=0.1, one_kind=one_kind)
    simulation.start()
    for _ in range(10_000):
        if simulation.finished:
            break
        # Also a result that only stands in for a lost one may be lost.
        alive = [n for n, key in simulation.keys.items() if key.status == WAITING]
        if alive and random.random() < 0.15:
            simulation.kill(random.choice(alive), divisible=divisible)
        # Or one that was there already: whoever computes it anew may die, too.
        done = [n for n, key in simulation.keys.items() if key.result is not None]
        if done and random.random() < 0.1:
            simulation.lose_result(random.choice(done))
        if random.random() < 0.3:
            simulation.look()
        if simulation.finished:
            break
        simulation.step() or simulation.look()
    simulation.check_end()
    for node in simulation.plan.nodes:
        state = simulation.driver.state(node.index)
        assert state.is_final()
        for child in state if isinstance(state, Mapped) else ():
            assert child.is_final()


@calm
@given(random_flows(max_size=5), randoms, st.integers(0, 30), st.booleans())
def test_a_stop_ends_all_that_had_not_ended(drawn, random, steps, crashed):
    assume(is_valid(drawn))
    flow, _ = build(drawn)
    simulation = Simulation(flow, random)
    simulation.start()
    for _ in range(steps):
        if not simulation.finished:
            simulation.step()
    assume(not simulation.finished)
    known = {
        node.index: simulation.driver.state(node.index)
        for node in simulation.plan.nodes
        if simulation.driver.state(node.index).is_final() and not node.mapped
    }
    commands = simulation.driver.handle(StopAsked("enough.", crashed=crashed))
    assert commands == [Finish()]
    simulation.finished = True
    name = "Crashed" if crashed else "Cancelled"
    for node in simulation.plan.nodes:
        state = simulation.driver.state(node.index)
        assert state.is_final()
        if node.index in known:
            assert state == known[node.index]
        elif not node.mapped:
            assert (type(state).__name__, state.message) == (name, "enough.")
        for child in state if isinstance(state, Mapped) else ():
            assert child.is_final()


@calm
@given(st.lists(st.integers(0, 6), max_size=5), randoms)
def test_workers_may_come_and_go(sizes, random):
    with Flow("resize") as flow:
        many = Task(inc).map(range(50))
    simulation = Simulation(flow, random, threads=0)
    simulation.allowed_once = most_in_flight(6, 50)
    simulation.start()
    for size in sizes:
        simulation.step()
        if not simulation.finished:
            simulation.feed(Resized(size))
    simulation.to_the_end()
    simulation.check_end()
    state = flow_state(simulation.plan, simulation.states())
    assert state[many].result() == list(range(1, 51))


# -- single rules ------------------------------------------------------------------


def test_an_empty_flow_finishes_at_once():
    simulation = Simulation(Flow("nothing"), Random(0))
    assert simulation.driver.handle(Started(2)) == [Finish()]
    assert simulation.driver.handle(Started(2)) == []


def test_all_plain_nodes_go_in_one_graph():
    with Flow("plain") as flow:
        top = Task(lambda: 1, name="top")()
        left, right = Task(inc)(top), Task(inc)(top)
        Task(lambda x, y: x + y, name="bottom")(left, right)
    simulation = Simulation(flow, Random(0))
    simulation.start()
    assert len(simulation.submitted) == 4
    # Only the last one is read by somebody else: the person who runs the flow.
    assert simulation.held == {3}


def test_a_chain_is_one_block():
    with Flow("chain") as flow:
        last = Task(lambda: 0, name="first")()
        for _ in range(9):
            last = Task(inc)(last)
    simulation = run_through(flow)
    assert sum(simulation.submitted.values()) == 1


def test_the_first_blocks_of_a_fan_out_hold_one_child_each():
    with Flow("fan-out") as flow:
        Task(inc).map(range(100))
    simulation = Simulation(flow, Random(0), threads=3)
    simulation.start()
    spans = [
        (key.assignment.block.start, key.assignment.block.stop)
        for key in simulation.keys.values()
    ]
    assert spans == [(0, 1), (1, 2), (2, 3)]


def test_children_that_take_long_have_others_waiting_behind_them():
    with Flow("fan-out") as flow:
        Task(inc).map(range(100))
    simulation = Simulation(flow, Random(0), threads=3)
    simulation.start()
    assert simulation.driver.is_trying
    simulation.tell_long()
    assert len(simulation.keys) == 100
    assert not simulation.driver.is_trying


def test_quick_children_run_in_few_blocks():
    with Flow("fan-out") as flow:
        Task(inc).map(range(10_000))
    simulation = run_through(flow, speeds=(0.0001,))
    assert sum(simulation.submitted.values()) < 200


def test_slow_children_run_one_per_block():
    with Flow("fan-out") as flow:
        Task(inc).map(range(64))
    simulation = run_through(flow, speeds=(2.0,))
    assert sum(simulation.submitted.values()) == 64


def test_a_block_far_over_its_aim_hands_back_what_it_has_not_begun():
    with Flow("fan-out") as flow:
        many = Task(inc).map(range(1_000))
    # Quick at first, so that large blocks are cut.
    simulation = Simulation(flow, Random(0))
    large = large_block(simulation)
    simulation.speeds = (1.5,)
    simulation.run(large)
    assert simulation.reports[-1].report.done < 3
    simulation.speeds = (0.0,)
    simulation.to_the_end()
    simulation.check_end()
    assert set(simulation.ran.values()) == {1}
    state = flow_state(simulation.plan, simulation.states())
    assert state[many].result() == list(range(1, 1_001))


def large_block(simulation):
    """A block of many children that is ready, after some quick ones."""
    simulation.speeds = (0.0005,)
    simulation.start()

    def size(number):
        block = simulation.keys[number].assignment.block
        return block.stop - block.start if block.aim else 0

    for _ in range(3):
        simulation.run(max(simulation.ready(), key=size))
        simulation.feed(simulation.messages.pop())
    number = max(simulation.ready(), key=size)
    assert size(number) > 10
    return number


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.6), (0.6, 0.0), (0.6, 0.3)])
def test_a_block_that_is_run_again_may_hand_back_other_children(first, second):
    with Flow("fan-out") as flow:
        # What reads it begins later, as it also waits for something else.
        late = Task(lambda: 0, name="late")()
        many = Task(inc).map(range(1_000))
        again = Task(inc, name="again").map(many, upstream_tasks=[unmapped(late)])
        all_of = Task(lambda xs: list(xs), name="list")(many)
    simulation = Simulation(flow, Random(0), big=1.0, want_all=True)
    number = large_block(simulation)
    simulation.speeds = (first,)
    simulation.run(number)
    simulation.feed(simulation.messages.pop())
    # Its worker dies, and the next one takes another time for it.
    simulation.speeds = (second,)
    simulation.lose_result(number)
    simulation.run(number)
    simulation.feed(simulation.messages.pop())
    simulation.speeds = (0.0,)
    simulation.to_the_end()
    simulation.check_end()
    state = flow_state(simulation.plan, simulation.states())
    expected = list(range(1, 1_001))
    assert state[all_of].result() == expected
    assert state[many].result() == expected
    assert state[again].result() == [x + 1 for x in expected]


@pytest.mark.parametrize("big", [0.0, 1.0])
def test_what_came_home_is_not_computed_anew_when_a_worker_dies(big):
    with Flow("home") as flow:
        late = Task(lambda: 0, name="late")()
        many = Task(inc).map(range(1_000))
        all_of = Task(lambda xs, late: list(xs), name="list")(many, late)
    simulation = Simulation(flow, Random(0), big=big, want_all=True)
    number = large_block(simulation)
    simulation.speeds = (0.0,)
    simulation.run(number)
    simulation.feed(simulation.messages.pop())
    simulation.lose_result(number)
    simulation.feed(ResultsLost((number,)))
    assert (number in simulation.keys) is bool(big)
    simulation.to_the_end()
    simulation.check_end()
    state = flow_state(simulation.plan, simulation.states())
    assert state[all_of].result() == list(range(1, 1_001))
    again = [key for key, times in simulation.ran.items() if times > 1]
    assert bool(again) is bool(big)


def test_a_block_that_only_waits_makes_room_for_another():
    with Flow("waits") as flow:
        Task(lambda x: 1 / 0, name="f", retries=1, retry_delay_seconds=60).map(
            range(100)
        )
    simulation = Simulation(flow, Random(0), threads=1, speeds=(0.5,))
    simulation.start()
    before = len(simulation.keys)
    number = simulation.ready()[0]
    simulation.run(number)
    waiting, done = simulation.messages
    simulation.feed(waiting)
    assert len(simulation.keys) == before + 1
    simulation.feed(done)
    simulation.messages.clear()
    simulation.to_the_end()
    simulation.check_end()


def test_nothing_is_held_that_nobody_reads():
    with Flow("release") as flow:
        many = Task(inc).map(range(100))
        again = Task(lambda xs: list(xs), name="list")(many)
        Task(inc).map(again)
    simulation = run_through(flow, big=0.0)
    assert simulation.held == set()


def test_values_that_did_not_come_home_are_held():
    with Flow("hold") as flow:
        big = Task(lambda: "big", name="big")()
        last = Task(lambda x: x * 2, name="last", retries=1)(big)
        many = Task(inc).map([1, 2])
    simulation = run_through(flow, big=1.0)
    state = flow_state(simulation.plan, simulation.states())
    assert state[last].result() == "bigbig"
    assert state[many].result() == [2, 3]


def test_a_lost_plain_block_crashes_and_its_readers_are_judged():
    with Flow("lost") as flow:
        bad = Task(lambda: 1, name="bad")()
        apart = Task(lambda: 2, name="apart")()
        # Two readers, so that nothing is fused with the lost one.
        below, also = Task(inc)(bad), Task(inc)(bad)
        cleanup = Task(
            lambda x, y, z: f"{type(x).__name__}", name="cleanup", trigger=all_finished
        )(below, also, apart)
    simulation = Simulation(flow, Random(0), want_all=True)
    simulation.start()
    simulation.kill(0, "2 workers died while running it.")
    simulation.to_the_end()
    simulation.check_end()
    state = flow_state(simulation.plan, simulation.states())
    assert repr(state[bad]) == "Crashed('2 workers died while running it.')"
    assert repr(state[below]) == (
        "TriggerFailed(\"trigger 'all_successful' refused: bad failed\")"
    )
    assert state[apart].result() == 2
    assert state[cleanup].result() == "FailedRun"


@pytest.mark.parametrize("divisible", [True, False])
def test_of_a_chain_only_the_culprit_crashes(divisible):
    with Flow("lost") as flow:
        first = Task(lambda: 1, name="first")()
        second = Task(inc, name="second")(first)
        third = Task(inc, name="third")(second)
        cleanup = Task(lambda x: "clean", name="cleanup", trigger=all_finished)(third)
    simulation = Simulation(flow, Random(0), want_all=True)
    simulation.start()
    while not simulation.finished:
        for number, key in list(simulation.keys.items()):
            names = [step.task.name for step in key.assignment.block.steps]
            alive = key.status == WAITING and key.assignment.given is None
            if "second" in names and alive and number in simulation.ready():
                simulation.kill(number, divisible=divisible)
        simulation.look()
        if not simulation.finished:
            simulation.step()
    simulation.check_end()
    state = flow_state(simulation.plan, simulation.states())
    assert [type(state[t]).__name__ for t in (first, second, third)] == [
        "Completed",
        "Crashed",
        "TriggerFailed",
    ]
    assert state[cleanup].result() == "clean"


@pytest.mark.parametrize("culprit", [0, 13, 99])
def test_a_child_that_kills_its_workers_ends_alone(culprit):
    with Flow("lost") as flow:
        many = Task(inc).map(range(100))
        again = Task(inc, name="again").map(many)
        cleanup = Task(lambda xs: len(xs), name="cleanup", trigger=all_finished)(again)
    simulation = Simulation(flow, Random(1), speeds=(0.0001,))
    simulation.start()

    def kill_where_it_runs():
        for number, key in list(simulation.keys.items()):
            block = key.assignment.block
            nodes = [step.task.name for step in block.steps]
            kills = "inc" in nodes and block.start <= culprit < block.stop
            if key.status == WAITING and kills and key.assignment.given is None:
                simulation.kill(number)

    while not simulation.finished:
        kill_where_it_runs()
        simulation.look()
        kill_where_it_runs()
        if not simulation.finished and not simulation.look():
            simulation.step()
    simulation.check_end()
    state = flow_state(simulation.plan, simulation.states())
    for task, kind in ((many, "Crashed"), (again, "TriggerFailed")):
        assert kinds(state[task]) == [
            kind if i == culprit else "Completed" for i in range(100)
        ]
    assert state[cleanup].result() == 100
    assert set(simulation.ran.values()) == {1}


@calm
@given(
    st.integers(1, 200),
    st.sets(st.integers(0, 199), max_size=5),
    randoms,
    st.integers(0, 4),
)
def test_of_items_that_cannot_be_read_only_their_children_crash(
    length, bad, random, threads
):
    with Flow("unreadable") as flow:
        many = Task(inc).map(range(length))
    simulation = Simulation(flow, random, threads=threads)
    simulation.unreadable = frozenset(bad)
    simulation.start()
    simulation.to_the_end()
    state = flow_state(simulation.plan, simulation.states())
    assert kinds(state[many]) == [
        "Crashed" if i in bad else "Completed" for i in range(length)
    ]
    assert simulation.losses <= len(bad)


def test_of_a_map_whose_items_no_worker_can_read_few_blocks_are_lost():
    with Flow("unreadable") as flow:
        many = Task(inc).map(range(3_000))
        after = Task(inc).map(many)
    simulation = Simulation(flow, Random(0), threads=4)
    simulation.unreadable = range(3_000)
    simulation.start()
    while not simulation.finished:
        known = simulation.losses
        assert simulation.step()
        if simulation.losses > known:
            simulation.look()
    state = flow_state(simulation.plan, simulation.states())
    assert state[many].states.counts() == {"Crashed": 3_000}
    assert "task 'inc' is mapped over cannot be unpickled" in state[many][7].message
    assert state[after].states.counts() == {"TriggerFailed": 3_000}
    assert simulation.losses <= 6


def test_what_no_worker_can_run_is_lost_in_large_blocks():
    with Flow("lost") as flow:
        many = Task(inc).map(range(100_000))
    simulation = Simulation(flow, Random(0), threads=4)
    simulation.start()
    while not simulation.finished:
        for number in list(simulation.keys):
            if simulation.keys[number].status == WAITING:
                simulation.kill(number, "no module named 'x'", divisible=False)
        assert simulation.look()
    assert simulation.losses < 50
    state = flow_state(simulation.plan, simulation.states())
    assert {type(child).__name__ for child in state[many]} == {"Crashed"}


def test_a_block_that_cannot_be_run_crashes_whole():
    with Flow("lost") as flow:
        many = Task(inc).map(range(4))
        cleanup = Task(lambda xs: len(xs), name="c", trigger=all_finished)(many)
    simulation = Simulation(flow, Random(0), threads=4)
    simulation.start()
    for number in list(simulation.keys):
        simulation.kill(number, "no module named 'x'", divisible=False)
        simulation.look()
    simulation.to_the_end()
    state = flow_state(simulation.plan, simulation.states())
    assert kinds(state[many]) == ["Crashed"] * 4
    assert state[many][2].message == "no module named 'x'"
    assert state[cleanup].result() == 4


@pytest.mark.parametrize("divisible", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_a_stand_in_that_is_lost_too_is_put_back(mapped, divisible):
    with Flow("lost") as flow:
        many = Task(inc, name="a").map([1]) if mapped else Task(inc, name="a")(1)
        again = Task(inc, name="b").map(many) if mapped else Task(inc, name="b")(many)
        cleanup = Task(lambda x: "clean", name="c", trigger=all_finished)(again)
    simulation = Simulation(flow, Random(0), want_all=True)
    simulation.start()
    deaths = 0

    def is_doomed(key):
        names = [step.task.name for step in key.assignment.block.steps]
        # What stands in for the lost one dies twice, then it is left alone.
        dies = key.assignment.given is None or deaths < 2
        return key.status == WAITING and "a" in names and dies

    while not simulation.finished:
        doomed = [n for n, key in simulation.keys.items() if is_doomed(key)]
        if not doomed:
            simulation.step()
            continue
        deaths += simulation.keys[doomed[0]].assignment.given is not None
        simulation.kill(doomed[0], divisible=divisible)
        simulation.look()
    assert deaths == 2
    simulation.check_end()
    state = flow_state(simulation.plan, simulation.states())
    crashed = state[many][0] if mapped else state[many]
    refused = state[again][0] if mapped else state[again]
    assert type(crashed).__name__ == "Crashed"
    # A lane that cannot be run crashes as a whole.
    both = mapped and not divisible
    assert type(refused).__name__ == ("Crashed" if both else "TriggerFailed")
    assert state[cleanup].result() == "clean"


def test_a_lost_block_that_is_not_known_changes_nothing():
    with Flow("lost") as flow:
        Task(lambda: 1, name="one")()
    simulation = Simulation(flow, Random(0))
    simulation.start()
    assert simulation.driver.handle(BlockLost(77, "who?", True)) == []
    simulation.to_the_end()


def test_a_result_that_lanes_read_is_lost_for_good():
    with Flow("lost") as flow:
        numbers = Task(lambda: [1, 2, 3], name="numbers")()
        many = Task(inc).map(numbers)
        summed = Task(lambda xs: len(xs), name="sum", trigger=all_finished)(many)
    simulation = Simulation(flow, Random(0), big=1.0)
    simulation.start()
    simulation.run(0)
    simulation.feed(simulation.messages.pop())
    # The block has ended; recomputing it for its readers kills the workers.
    simulation.keys[0].status = WAITING
    simulation.kill(0)
    simulation.to_the_end()
    simulation.check_end()
    state = flow_state(simulation.plan, simulation.states())
    assert state[numbers].is_successful()
    assert all(child.is_final() for child in state[many])
    assert state[summed].result() == 3


def test_a_suspect_whose_input_is_lost_too_is_suspected_further():
    with Flow("lost") as flow:
        numbers = Task(lambda: list(range(40)), name="numbers")()
        many = Task(inc).map(numbers)
    simulation = Simulation(flow, Random(0), big=1.0, speeds=(0.0001,))
    simulation.start()
    [made] = simulation.ready()
    simulation.run(made)
    simulation.feed(simulation.messages.pop())

    def suspect():
        return [
            number
            for number, key in simulation.keys.items()
            if key.assignment.block.careful and key.status == WAITING
        ]

    while not suspect():
        for number in simulation.ready():
            simulation.kill(number)
        simulation.look()
    [number] = suspect()
    span = simulation.keys[number].assignment.block
    # The worker that had the numbers died along, and so did the next one.
    simulation.lose_result(made)
    simulation.kill(made)
    simulation.look()
    [again] = suspect()
    block = simulation.keys[again].assignment.block
    assert (again != number, block.start, block.stop) == (True, span.start, span.stop)
    simulation.to_the_end()
    state = flow_state(simulation.plan, simulation.states())
    assert kinds(state[many]) == ["Completed"] * 40


@pytest.mark.parametrize("mapped", [True, False])
def test_what_reads_a_block_by_its_old_number_is_lost_with_it(mapped):
    with Flow("old") as flow:
        numbers = Task(lambda: [1, 2, 3], name="numbers")()
        if mapped:
            second = Task(inc, name="second").map(numbers)
        else:
            second = Task(len, name="second")(numbers)
        late = Task(inc, name="late").map([1, 2])
        Task(lambda x, y, z: y, name="reader")(numbers, second, late)
    simulation = Simulation(flow, Random(0), big=0.0, want_all=True, threads=4)
    simulation.start()

    def holding(name):
        return [
            number
            for number, key in simulation.keys.items()
            if name in [step.task.name for step in key.assignment.block.steps]
        ]

    def ready():
        return [n for n in simulation.ready() if n not in holding("late")]

    while ready() or simulation.messages:
        if ready():
            simulation.run(ready()[0])
        else:
            simulation.feed(simulation.messages.pop())
    [old] = holding("numbers")
    simulation.lose_result(old)
    simulation.feed(ResultsLost((old,)))
    assert old in simulation.keys  # what has ended still reads it
    assert len(holding("numbers")) == 2
    lost = next(n for n in holding("second") if n in simulation.held)
    simulation.lose_result(lost)
    simulation.keys[old].status = WAITING
    simulation.kill(old)
    assert simulation.keys[lost].status == ERRED
    simulation.look()
    simulation.to_the_end()
    simulation.check_end()
    state = flow_state(simulation.plan, simulation.states())
    assert state[second].result() == ([2, 3, 4] if mapped else 3)


@pytest.mark.parametrize("begun", [True, False])
def test_a_suspect_child_that_had_not_begun_is_not_to_blame(begun):
    with Flow("bystander") as flow:
        many = Task(inc).map(range(4))
    simulation = Simulation(flow, Random(0), threads=2)
    simulation.start()
    for number in simulation.ready():
        simulation.kill(number)
    simulation.look()
    [number] = simulation.ready()  # a suspect, by itself
    index = simulation.keys[number].assignment.block.start
    if begun:
        simulation.feed(BlockReached(number, index))
    simulation.err(number)
    simulation.look()
    simulation.to_the_end()
    simulation.check_end()
    state = flow_state(simulation.plan, simulation.states())
    assert kinds(state[many]) == [
        "Crashed" if begun and i == index else "Completed" for i in range(4)
    ]


@pytest.mark.parametrize("culprit", [0, 7, 19])
def test_a_crashed_child_is_one_element_of_a_flattened_fan_out(culprit):
    with Flow("flat") as flow:
        lists = Task(lambda x: [x] * 3, name="lists").map(range(20))
        flat = Task(inc).map(flatten(lists))
    simulation = Simulation(flow, Random(3), speeds=(0.0001,), want_all=True)
    simulation.start()
    while not simulation.finished:
        for number, key in list(simulation.keys.items()):
            block = key.assignment.block
            doomed = block.start <= culprit < block.stop and key.status == WAITING
            runs = block.steps[0].task.name == "lists" and key.assignment.given is None
            if doomed and runs:
                simulation.kill(number)
        if not simulation.look() and not simulation.finished:
            simulation.step()
    state = flow_state(simulation.plan, simulation.states())
    assert kinds(state[lists]).count("Crashed") == 1
    expected = [
        ["refused"] if index == culprit else [index + 1] * 3 for index in range(20)
    ]
    found = [
        "refused" if child.name == "TriggerFailed" else child.result()
        for child in state[flat]
    ]
    assert found == [value for values in expected for value in values]


def test_what_stands_in_for_a_value_that_is_lost_for_good_is_let_go():
    with Flow("lost") as flow:
        many = Task(inc).map(range(2))
    simulation = Simulation(flow, Random(0), big=1.0, want_all=True)
    simulation.start()
    number, other = simulation.ready()
    simulation.run(number)
    simulation.feed(simulation.messages.pop())
    # It is run again three times, and then nobody has its value any more.
    for _ in range(4):
        simulation.lose_result(number)
        simulation.kill(number)
        simulation.look()
        number = max(simulation.keys)
        simulation.run(number)
    assert simulation.keys[number].assignment.given is not None
    simulation.messages.clear()
    simulation.run(other)
    simulation.feed(simulation.messages.pop())
    simulation.to_the_end()
    simulation.check_end()
    state = flow_state(simulation.plan, simulation.states())
    assert kinds(state[many]) == ["Completed"] * 2


def test_a_child_that_fails_is_no_loss():
    with Flow("children") as flow:
        many = scripted_children({2: [ValueError("two")]}, 1).map(range(5))
        one = scripted("done")()
    simulation = run_through(flow)
    state = flow_state(simulation.plan, simulation.states())
    assert kinds(state[many]) == [
        "Completed",
        "Completed",
        "Failed",
        "Completed",
        "Completed",
    ]
    assert state[one].result() == "done"


def test_after_the_end_nothing_happens():
    with Flow("end") as flow:
        Task(lambda: 1, name="one")()
    simulation = run_through(flow)
    for event in (Resized(9), BlockLost(0, "late", True), simulation.reports[0]):
        assert simulation.driver.handle(event) == []
    assert isinstance(simulation.reports[0], BlockDone)
    assert not [k for k in simulation.keys.values() if k.status == ERRED]


def test_a_shared_block_that_gives_less_when_it_is_run_again_is_run_to_its_end():
    #  leaf leaf leaf ...   a block that has told of some when its worker dies
    #     \ /  \ /
    #     top  top ...
    with Flow("again") as flow:
        leaves = [Task(lambda i: i, name="leaf")(i) for i in range(12)]
        for left, right in itertools.pairwise(leaves):
            Task(lambda a, b: a + b, name="top")(left, right)
    simulation = Simulation(
        flow, Random(0), big=0.0, want_all=True, threads=1, one_kind=True, speeds=(0.0,)
    )
    simulation.start()
    simulation.run(simulation.ready()[0])
    simulation.feed(simulation.messages.pop())
    shared = next(
        n for n in simulation.ready() if simulation.keys[n].assignment.block.parts
    )
    simulation.speeds = (0.15,)
    simulation.run(shared)
    told = next(m for m in simulation.messages if isinstance(m, BlockAdvanced))
    simulation.feed(told)
    simulation.messages.clear()
    simulation.lose_result(shared)
    simulation.speeds = (0.3,)
    simulation.run(shared)
    simulation.feed(simulation.messages.pop())
    simulation.messages.clear()
    simulation.speeds = (0.0,)
    simulation.to_the_end(500)
    simulation.check_end()
    assert simulation.states()[-1].result() == 21
