"""What a block leaves for the blocks that read it."""

from __future__ import annotations

import pickle

import pytest

from prefect_dask_core import Task
from prefect_dask_core.engine.block import Block, Step
from prefect_dask_core.engine.block_results import (
    BlockResult,
    PlainValue,
    StaleInput,
    flat_items_in,
    leanest,
    segment_in,
    segments_in,
)
from prefect_dask_core.engine.running import run_block
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.sources import StepInput, Whole
from prefect_dask_core.runners.shell import ThreadShell
from prefect_dask_core.states import Completed, Skipped
from tests.engine.made_segments import segment_of


@pytest.mark.parametrize("value", [None, 5, [1, 2], {"a": 1}, "text", PlainValue(1)])
def test_a_plain_value_is_left_in_one_piece_and_read_as_completed(value):
    segment = Segment.of_value(value)
    left = leanest(BlockResult({4: segment}, {}), 4)

    # What Dask has a serializer of its own for would not come back as it was.
    wrapped = isinstance(value, list | dict | PlainValue)
    assert left.value is value if wrapped else left is value
    read = StepInput("x", "a", Whole(1, (0,), False), None)
    step = Step(4, Task(lambda x: x), "same-1", (read,), False, measured=True)
    block = Block(9, (step,), 0, 1, 0.0, frozenset({4}))
    result, _ = run_block(block, [pickle.loads(pickle.dumps(left))], {}, ThreadShell())
    found = result.segments[4].state(0).result()
    assert type(found) is type(value)
    assert found == value or isinstance(value, PlainValue)


def test_a_state_that_says_more_than_completed_is_not_left_bare():
    segment = Segment(0)
    segment.open(1)
    segment.put(0, Skipped(), 0.0, 0.0)
    result = BlockResult({4: segment}, {})

    assert leanest(result, 4) is result


def test_items_that_can_be_taken_only_once_are_not_left_bare():
    result = BlockResult({4: Segment.of_value(iter([1]))}, {4: [1]})

    assert leanest(result, 4) is result


def test_a_block_that_gave_less_than_was_promised_is_stale():
    handed_back = BlockResult({}, {})
    with pytest.raises(StaleInput, match="handed node 7 back"):
        segment_in(handed_back, 7)
    shorter = BlockResult({7: segment_of([Completed(data=1)], start=4)}, {})
    with pytest.raises(StaleInput, match="children 4 to 6 were expected, and 4 to 5"):
        segments_in([shorter], 7, (0,), ((4, 6),))


def test_segments_are_in_index_order_and_no_longer_than_promised():
    states = [Completed(data=number) for number in range(4)]
    results = [
        BlockResult({7: segment_of(states[2:], start=2)}, {}),
        BlockResult({7: segment_of(states[:2])}, {}),
    ]
    found = segments_in(results, 7, (0, 1), ((2, 3), (0, 2)))
    assert [(segment.start, segment.stop) for segment in found] == [(0, 2), (2, 3)]
    assert [len(segment) for segment in segments_in(results, 7, (0, 1), ())] == [2, 2]


def test_flattened_items_are_made_once_per_worker():
    result = BlockResult({7: Segment.of_value([[1], [2]])}, {7: [[1], [2]]})
    for argument in (result, PlainValue([[1], [2]])):
        found = flat_items_in(argument, 7)
        assert found == [1, 2]
        assert flat_items_in(argument, 7) is found
        assert flat_items_in(pickle.loads(pickle.dumps(argument)), 7) is not found
    assert flat_items_in(5, 7) is None
