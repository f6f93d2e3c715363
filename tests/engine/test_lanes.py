"""Mapped nodes become lanes, and lanes blocks."""

import pytest

from prefect_dask_core import Flow, Task, flatten, unmapped
from prefect_dask_core.engine.block import BlockReport
from prefect_dask_core.engine.book import FINAL, SUBMITTED, all_ended
from prefect_dask_core.engine.events import Submit
from prefect_dask_core.engine.lanes import Lanes
from prefect_dask_core.states import Failed
from tests.engine.books import assign, book_of, completed, inc


def expanded(flow, threads=2):
    """Lanes of a flow whose first mapped node was expanded, and its book."""
    book = book_of(flow)
    book.threads = threads
    lanes = Lanes(book)
    first = next(node for node in book.plan.nodes if node.mapped)
    assert lanes.expand(first) == []
    return lanes, book


def fed(lanes, book):
    """Assignments that are submitted when lanes are fed."""
    book.told = []
    lanes.feed()
    return [
        assignment
        for command in book.told
        if isinstance(command, Submit)
        for assignment in command.assignments
    ]


def nodes_of(assignment):
    return [step.task.name for step in assignment.block.steps]


def report_of(assignment, done=None, busy=0.1):
    block = assignment.block
    done = block.stop - block.start if done is None else done
    segments = {
        step.node: completed(block.start, block.start + done) for step in block.steps
    }
    return BlockReport(block.number, segments, done, busy)


@pytest.mark.parametrize(
    ("how", "joins"),
    [
        (lambda task, above: task.map(above), True),
        (lambda task, above: task.map(flatten(above)), False),
        (lambda task, above: task.map([1, 2, 3], y=unmapped(above)), False),
        (lambda task, above: task.map([1, 2, 3], upstream_tasks=[above]), True),
        (lambda task, above: task(above), False),
    ],
    ids=["elementwise", "flattened", "whole", "order only", "plain"],
)
def test_only_what_reads_element_by_element_joins_a_lane(how, joins):
    with Flow("joins") as flow:
        above = Task(inc, name="above").map([1, 2, 3])
        how(Task(lambda x, y=None: x, name="below"), above)
    lanes, book = expanded(flow)
    expected = ["above", "below"] if joins else ["above"]
    assert nodes_of(fed(lanes, book)[0]) == expected


def test_what_has_to_be_counted_first_does_not_join():
    with Flow("counted") as flow:
        numbers = Task(lambda: [1, 2, 3], name="numbers")()
        above = Task(inc, name="above").map([1, 2, 3])
        Task(lambda x, y: x, name="below").map(above, numbers)
    for uncounted in (False, True):
        book = book_of(flow)
        names = {node.name: node for node in book.plan.nodes}
        numbers = names["numbers"].index
        assign(book, book.take_number(), numbers)
        book.mark_submitted(numbers)
        book.plain[numbers] = completed(0, 1)
        book.plain[numbers].length = 3
        book.make_final(numbers)
        if uncounted:
            book.uncounted.add(numbers)
        lanes = Lanes(book)
        lanes.expand(names["above"])
        nodes = nodes_of(fed(lanes, book)[0])
        assert ("below" in nodes) is not uncounted


def mapped(count):
    with Flow("mapped") as flow:
        Task(inc).map(list(range(count)))
    return flow


def test_a_node_that_cannot_be_mapped_runs_as_a_plain_one():
    with Flow("refused") as flow:
        Task(inc, name="mapped").map(Task(list, name="numbers")())
    book = book_of(flow)
    names = {node.name: node for node in book.plan.nodes}
    book.plain[names["numbers"].index] = all_ended(0, 1, Failed("no numbers"))
    node = names["mapped"]
    assert Lanes(book).expand(node) == [node.index]
    assert not book.fans_out[node.index]


def test_one_child_per_thread_tells_how_to_cut_the_rest():
    lanes, book = expanded(mapped(1_000), threads=3)
    first = fed(lanes, book)
    assert [(a.block.start, a.block.stop) for a in first] == [(0, 1), (1, 2), (2, 3)]
    assert lanes.are_trying
    assert fed(lanes, book) == []
    assert lanes.take(report_of(first[0], busy=0.025))
    assert not lanes.are_trying
    assert {a.block.stop - a.block.start for a in fed(lanes, book)} == {10}


def test_what_a_block_hands_back_is_cut_again():
    lanes, book = expanded(mapped(30), threads=1)
    (first,) = fed(lanes, book)
    lanes.take(report_of(first, busy=0.01))
    long = fed(lanes, book)[0]
    assert (long.block.start, long.block.stop) == (1, 9)
    lanes.take(report_of(long, done=2, busy=4.0))
    assert fed(lanes, book)[0].block.start == 3
    assert book.spans[long.block.number] == (1, 3)


def test_a_second_report_of_a_block_is_not_taken():
    lanes, book = expanded(mapped(3))
    first = fed(lanes, book)[0]
    assert lanes.take(report_of(first))
    assert not lanes.take(report_of(first))


def test_a_lane_ends_with_its_last_child():
    lanes, book = expanded(mapped(2))
    (node,) = (node.index for node in book.plan.nodes if node.mapped)
    for assignment in fed(lanes, book):
        assert book.status[node] == SUBMITTED
        lanes.take(report_of(assignment))
    assert book.status[node] == FINAL


def test_a_suspect_waits_for_all_other_blocks_and_then_runs_alone():
    lanes, book = expanded(mapped(10), threads=2)
    lost, other = fed(lanes, book)
    (lane,) = {book.lane_of_block[a.block.number] for a in (lost, other)}
    lanes.withdraw(lane, lost.block.number)
    lane.suspects.append((0, 2))
    assert fed(lanes, book) == []
    lanes.take(report_of(other))
    (suspect,) = fed(lanes, book)
    assert suspect.block.careful
    assert lanes.alone == suspect.block.number
    assert fed(lanes, book) == []


def test_a_suspect_of_one_child_runs_node_by_node():
    with Flow("solo") as flow:
        Task(inc, name="second").map(Task(inc, name="first").map([1]))
    lanes, book = expanded(flow)
    (lost,) = fed(lanes, book)
    lane = book.lane_of_block[lost.block.number]
    lanes.withdraw(lane, lost.block.number)
    lane.suspects.append((0, 1))
    singles = fed(lanes, book)
    assert [nodes_of(single) for single in singles] == [["first"], ["second"]]
    ends = [book.status[node] for node in lane.nodes]
    for single in singles:
        assert ends == [SUBMITTED, SUBMITTED]
        lanes.take_solo(single.block.number, report_of(single).segments)
        ends = [book.status[node] for node in lane.nodes]
    assert ends == [FINAL, FINAL]
