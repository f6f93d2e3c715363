"""Which plain nodes are tried first, and which share a block."""

from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core import task
from prefect_dask_core.engine.grouping import (
    MOST_TOGETHER,
    TRIED_PER_THREAD,
    Group,
    Kinds,
    put_together,
)
from prefect_dask_core.engine.plan import Node
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.states import Completed, Failed, Skipped, TriggerFailed


@task
def plain():
    return 1


@task(retries=1)
def retried():
    return 1


@task
async def later():
    return 1


def node(number, made=plain):
    return Node(
        number, made.name, made, made.identity, (), mapped=False, constant=False
    )


def ended(state, seconds):
    segment = Segment(0)
    segment.open(1)
    segment.put(0, state, 10.0, 10.0 + seconds)
    return segment


def held_back(kinds, threads=1, made=plain):
    """Numbers that are held back of thirty nodes."""
    return [n for n in range(30) if not kinds.may_go(node(n, made), threads)]


def test_a_few_of_a_kind_go_out_and_the_others_once_one_has_ended():
    kinds = Kinds()
    held = held_back(kinds)
    assert held == list(range(TRIED_PER_THREAD, 30))
    assert kinds.holds_back
    assert list(kinds.learn(node(0), ended(Completed(data=1), 0.001))) == held
    assert not kinds.holds_back
    assert held_back(kinds) == []


def test_what_may_wait_is_neither_held_back_nor_put_together():
    for made in (retried, later):
        kinds = Kinds()
        assert held_back(kinds, made=made) == []
        kinds.learn(node(0, made), ended(Completed(data=1), 0.001))
        assert kinds.seconds(node(1, made)) is None


def test_a_long_run_counts_at_once_and_is_forgotten_by_halves():
    kinds = Kinds()
    for seconds, expected in ((0.001, 0.001), (4.0, 4.0), (0.0, 2.0), (0.0, 1.0)):
        kinds.learn(node(0), ended(Completed(data=1), seconds))
        assert round(kinds.seconds(node(1)), 3) == expected


def test_of_a_run_whose_body_has_not_run_nothing_is_learnt():
    for state in (TriggerFailed("no"), Skipped()):
        kinds = Kinds()
        held = held_back(kinds)
        for number in range(TRIED_PER_THREAD - 1):
            assert kinds.learn(node(number), ended(state, 0.0)) == ()
        # When none is left that could tell, they go one by one.
        assert list(kinds.learn(node(3), ended(state, 0.0))) == held
        assert kinds.seconds(node(9)) is None


def test_a_failure_tells_how_long_its_kind_takes():
    kinds = Kinds()
    kinds.learn(node(0), ended(Failed("no"), 0.5))
    assert kinds.seconds(node(1)) == 0.5


def test_a_kind_with_large_values_runs_alone():
    kinds = Kinds()
    kinds.learn(node(0), ended(Completed(data=1), 0.001).without_values())
    assert kinds.seconds(node(1)) is None


def test_a_kind_that_was_slow_to_begin_with_is_judged_by_what_comes_later():
    kinds = Kinds()
    held = held_back(kinds)
    assert kinds.give_up() == held
    assert held_back(kinds) == []
    assert kinds.seconds(node(1)) is None
    kinds.learn(node(0), ended(Completed(data=1), 0.001))
    assert kinds.seconds(node(1)) is not None


@st.composite
def graphs(draw):
    """Groups of one node each, with what they read and how long they take."""
    size = draw(st.integers(1, 40))
    above = {
        number: draw(st.sets(st.integers(0, number - 1), max_size=3))
        if number
        else set()
        for number in range(size)
    }
    seconds = st.sampled_from([None, 0.0, 0.001, 0.01, 3.0])
    return [Group((n,), draw(seconds)) for n in range(size)], above


@given(graphs(), st.integers(0, 3))
def test_blocks_hold_every_node_once_and_respect_every_edge(drawn, threads):
    groups, above = drawn
    found = put_together(groups, above.__getitem__, lambda n: n % 2, threads)
    seconds = {group.nodes[0]: group.seconds for group in groups}
    assert sorted(n for block in found for n in block.nodes) == sorted(seconds)
    at = {n: position for position, block in enumerate(found) for n in block.nodes}
    for number, read in above.items():
        assert all(at[one] < at[number] for one in read)
    for block in found:
        assert len(block.parts) == len(block.nodes) - 1
        if block.parts:
            assert len({number % 2 for number in block.nodes}) == 1
            assert all(seconds[number] is not None for number in block.nodes)


def test_a_tiny_node_below_a_long_one_does_not_wait_with_others():
    #  long   0   1     tiny
    #     \  /     \
    #      2        3
    groups = [Group((9,), None), *(Group((n,), 0.0) for n in range(4))]
    above = {2: (9, 0), 3: (1,)}
    found = put_together(groups, lambda n: above.get(n, ()), lambda n: 0, 1)
    assert [block.nodes for block in found] == [(0, 1), (9,), (2,), (3,)]


def test_a_block_is_bounded():
    groups = [Group((n,), 0.0) for n in range(2 * MOST_TOGETHER)]
    found = put_together(groups, lambda n: (), lambda n: 0, 1)
    assert [len(block.nodes) for block in found] == [MOST_TOGETHER] * 2
