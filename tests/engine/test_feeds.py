import pytest

from prefect_dask_core.engine.block_results import BlockResult
from prefect_dask_core.engine.opening import open_feed
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.sources import (
    Each,
    Fixed,
    Items,
    Local,
    Shared,
    StepInput,
    Whole,
)
from prefect_dask_core.errors import InternalError
from prefect_dask_core.states import Completed, Crashed, Failed, Skipped


def segment(start, *states):
    made = Segment(start)
    made.open(len(states))
    for offset, state in enumerate(states):
        made.put(offset, state, 0.0, 0.0)
    return made


def done(value):
    return Completed(data=value)


ERROR = ValueError("two")
#: A fan-out of five children in two blocks.
FAN_OUT = (
    BlockResult({7: segment(0, done("a"), done("b"))}, {}),
    BlockResult({7: segment(2, Failed("no", ERROR), Skipped(), done("e"))}, {}),
)
#: A plain node with a list as its value.
PLAIN = (BlockResult({7: segment(0, done(["x", "y"]))}, {7: ["x", "y"]}),)


def feed(source, arguments=(), segments=None, mapped=True):
    return open_feed(
        StepInput("key", "above", source, None), arguments, segments or {}, mapped
    )


def test_constants_have_values_and_are_left_out_of_triggers():
    for source, arguments in ((Fixed("a"), ()), (Shared(1), ("b", "a"))):
        opened = feed(source, arguments)
        assert opened.value(0) == opened.value(5) == "a"
        assert opened.tally(0) is None
        assert list(opened.states(0)) == []


def test_items_are_read_from_where_the_block_starts():
    opened = feed(Items(["a", "b"], start=10))
    assert [opened.value(10), opened.value(11)] == ["a", "b"]
    assert opened.tally(10) is None


def test_a_plain_node_is_read_whole_by_every_child():
    opened = feed(Whole(7, (0,), fanout=False), PLAIN)
    assert opened.value(0) == opened.value(3) == ["x", "y"]
    assert opened.tally(3).successful == 1
    assert [number for number, _ in opened.states(3)] == [None]


def test_a_fan_out_is_read_whole_as_a_list():
    opened = feed(Whole(7, (0, 1), fanout=True), FAN_OUT, mapped=False)
    assert opened.value(0) == ["a", "b", ERROR, None, "e"]
    tally = opened.tally(0)
    assert (tally.total, tally.successful, tally.failed, tally.skipped) == (5, 4, 1, 1)
    assert tally.failed_names == ("above[2]",)
    assert [number for number, _ in opened.states(0)] == [0, 1, 2, 3, 4]


def test_each_reader_of_a_fan_out_gets_a_list_of_its_own():
    opened = feed(Whole(7, (0, 1), fanout=True), FAN_OUT)
    opened.value(0).clear()
    assert len(opened.value(1)) == 5


def test_an_empty_fan_out_stands_as_one_success():
    opened = feed(Whole(7, (), fanout=True))
    assert opened.value(0) == []
    assert (opened.tally(0).total, opened.tally(0).successful) == (1, 1)
    assert [number for number, _ in opened.states(0)] == [None]


def test_the_children_of_a_fan_out_are_read_one_by_one():
    opened = feed(Each(7, (0, 1), fanout=True), FAN_OUT)
    assert [opened.value(i) for i in range(5)] == ["a", "b", ERROR, None, "e"]
    assert [opened.tally(i).failed for i in range(5)] == [0, 0, 1, 0, 0]
    assert opened.tally(2).failed_names == ("above[2]",)
    assert [number for number, _ in opened.states(3)] == [3]
    assert not opened.constant_tally


def test_a_child_that_is_not_among_the_inputs_is_an_error_of_the_engine():
    with pytest.raises((LookupError, InternalError), match="child 9"):
        feed(Each(7, (0, 1), fanout=True), FAN_OUT).value(9)


def test_the_items_of_a_plain_node_are_read_one_by_one():
    opened = feed(Each(7, (0,), fanout=False), PLAIN)
    assert [opened.value(0), opened.value(1)] == ["x", "y"]
    assert opened.tally(1).total == 1


def test_an_earlier_step_of_the_block_is_read_while_it_fills():
    filling = Segment(4)
    filling.open(2)
    opened = feed(Local(7), segments={7: filling})
    filling.put(1, done("b"), 0.0, 0.0)
    assert opened.value(5) == "b"
    assert opened.tally(5).successful == 1
    assert opened.tally(4).finished == 0


def test_flattened_children_are_read_one_after_the_other():
    nested = (
        BlockResult({7: segment(0, done(["a", "b"]), done([]))}, {}),
        BlockResult({7: segment(2, Failed("no", ERROR), done(5), done(("c",)))}, {}),
    )
    source = Each(7, (0, 1), fanout=True, flattened=True)
    opened = feed(source, nested)
    assert [opened.value(i) for i in range(5)] == ["a", "b", ERROR, 5, "c"]
    assert opened.tally(2).failed_names == ("above[2]",)
    whole = feed(Whole(7, (0, 1), fanout=True, flattened=True), nested)
    assert whole.value(0) == ["a", "b", ERROR, 5, "c"]


def test_elements_are_counted_from_the_first_of_the_first_block():
    given = [BlockResult({7: segment(40, done(["a", "b"]), done("c"))}, {})]
    source = Each(7, (0,), True, True, ((40, 42),), ((100, 103),))
    opened = feed(source, given)
    assert [opened.value(index) for index in (102, 100, 101)] == ["c", "a", "b"]
    assert [number for number, _ in opened.states(102)] == [41]
    with pytest.raises(LookupError, match="element 99"):
        opened.value(99)


def test_a_flattened_plain_node_is_unnested():
    nested = (BlockResult({7: segment(0, done([[1], [2]]))}, {7: [[1], [2]]}),)
    assert feed(Whole(7, (0,), False, True), nested).value(0) == [1, 2]
    opened = feed(Each(7, (0,), False, True), nested)
    assert [opened.value(0), opened.value(1)] == [1, 2]


def test_what_is_lost_later_moves_no_element_of_the_others():
    lost = segment(0, Crashed("gone"), Crashed("gone"))
    results = [BlockResult({7: s}, {}) for s in (lost, segment(2, done(["d", "e"])))]
    source = Each(7, (0, 1), True, True, ((0, 2), (2, 3)), ((0, 5), (5, 7)))
    opened = feed(source, results)
    assert [opened.value(index) for index in (5, 6)] == ["d", "e"]
    assert [opened.tally(index).failed for index in range(7)] == [1] * 5 + [0] * 2
    # Where there were no elements, what is lost is none.
    nothing = Each(7, (0, 1), True, True, ((0, 2), (2, 3)), ((0, 0), (0, 2)))
    opened = feed(nothing, results)
    assert [opened.value(index) for index in (0, 1)] == ["d", "e"]


def test_a_child_that_gives_fewer_items_when_it_is_run_again_is_named():
    fewer = BlockResult({7: segment(0, done(["a"]))}, {})
    opened = feed(Each(7, (0,), True, True, ((0, 1),), ((0, 2),)), [fewer])
    with pytest.raises(LookupError, match="was run again after a worker's death"):
        opened.value(1)
