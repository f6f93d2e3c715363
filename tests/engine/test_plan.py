import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core import Flow, Task, unmapped
from prefect_dask_core.edges import flatten, mapped
from prefect_dask_core.engine.plan import flattened, fuse, items_of
from prefect_dask_core.errors import MappingLengthMismatch, MappingMissingIterable
from prefect_dask_core.planning import make_plan
from tests.engine.random_flows import build, is_valid, random_flows


def names(plan, nodes):
    return [plan.nodes[node].name for node in nodes]


def fused(flow):
    """Names of the tasks of each block, if all plain nodes went together."""
    plan = make_plan(flow)
    group = [n.index for n in plan.nodes if not n.mapped and not n.constant]
    return [names(plan, block) for block in fuse(plan, group)]


def plain(name):
    return Task(lambda x=None, y=None: x, name=name)


# -- plan --------------------------------------------------------------------------


@given(random_flows().filter(is_valid))
def test_a_plan_numbers_its_nodes_in_an_order_that_can_be_run(drawn):
    flow, _ = build(drawn)
    plan = make_plan(flow)
    assert [node.index for node in plan.nodes] == list(range(len(flow.tasks)))
    assert {node.task for node in plan.nodes} == set(flow.tasks)
    for node in plan.nodes:
        assert all(above < node.index for above in plan.upstream[node.index])
        assert len(set(plan.upstream[node.index])) == len(plan.upstream[node.index])
        for above in plan.upstream[node.index]:
            assert node.index in plan.dependents[above]
        for reader in plan.dependents[node.index]:
            assert node.index in plan.upstream[reader]
        assert list(plan.dependents[node.index]) == sorted(
            set(plan.dependents[node.index])
        )
        assert node.mapped == any(item.mapped for item in node.inputs)
    measured = {
        item.node
        for node in plan.nodes
        for item in node.inputs
        if item.mapped and item.node is not None
    }
    assert plan.measured == measured
    assert plan.terminal == {i for i, found in enumerate(plan.dependents) if not found}


def test_constants_are_inputs_and_no_nodes_above():
    with Flow("constants") as flow:
        one = plain("one")(1, y=[2])
        many = plain("many").map([1, 2], unmapped("a"))
    plan = make_plan(flow)
    index = {node.name: node.index for node in plan.nodes}
    assert plan.upstream[index["one"]] == plan.upstream[index["many"]] == ()
    given_values = {
        (item.key, str(item.value), item.mapped)
        for task in (one, many)
        for item in plan.nodes[index[task.name]].inputs
    }
    assert given_values == {
        ("x", "1", False),
        ("y", "[2]", False),
        ("x", "[1, 2]", True),
        ("y", "a", False),
    }


def test_reference_tasks_are_named():
    with Flow("reference") as flow:
        first = plain("first")()
        plain("second")(first)
        flow.set_reference_tasks([first])
    plan = make_plan(flow)
    assert names(plan, plan.reference) == ["first"]
    assert names(plan, plan.terminal) == ["second"]


@pytest.mark.parametrize(
    ("bind", "error", "text"),
    [
        (lambda t: t.map([1, 2], [3]), MappingLengthMismatch, "x has 2, y has 1"),
        (
            lambda t: t(mapped("abc"), 1),
            MappingMissingIterable,
            "can be iterated over",
        ),
        (lambda t: t.map(flatten([[1], [2]]), [1]), MappingLengthMismatch, "x has 2"),
    ],
    ids=["unequal", "nothing", "flattened"],
)
def test_constants_that_cannot_be_mapped_are_told_beforehand(bind, error, text):
    with Flow("mapping") as flow:
        bind(plain("many"))
    with pytest.raises(error, match=text):
        make_plan(flow)


# -- fusing ------------------------------------------------------------------------


@given(random_flows(max_size=12, mapped=False), st.data())
def test_fusing_puts_every_node_in_one_block_and_keeps_the_order(drawn, data):
    flow, _ = build(drawn)
    plan = make_plan(flow)
    candidates = [node.index for node in plan.nodes if not node.constant]
    group = (
        sorted(data.draw(st.sets(st.sampled_from(candidates)))) if candidates else []
    )
    blocks = fuse(plan, group)
    assert sorted(node for block in blocks for node in block) == group
    home = {node: number for number, block in enumerate(blocks) for node in block}
    for block in blocks:
        assert list(block) == sorted(block)
    for node in group:
        for above in plan.upstream[node]:
            if above in home:
                assert home[above] <= home[node]
    for block in blocks:
        # What is inside of a block is read inside of it, but for its last node.
        for node in block[:-1]:
            assert set(plan.dependents[node]) <= set(block)


def test_a_chain_is_one_block():
    with Flow("chain") as flow:
        last = plain("a")()
        for name in "bcd":
            last = plain(name)(last)
    assert fused(flow) == [["a", "b", "c", "d"]]


def test_a_diamond_stays_apart():
    #    a
    #   / \
    #  b   c
    #   \ /
    #    d - e
    with Flow("diamond") as flow:
        a = plain("a")()
        d = plain("d")(plain("b")(a), plain("c")(a))
        plain("e")(d)
    assert fused(flow) == [["a"], ["b"], ["c"], ["d", "e"]]


def test_two_that_can_run_side_by_side_are_not_joined():
    with Flow("join") as flow:
        plain("c")(plain("a")(), plain("b")())
    assert fused(flow) == [["a"], ["b"], ["c"]]


def test_a_collection_joins_the_task_it_was_made_for():
    with Flow("collection") as flow:
        plain("c")([plain("a")(), plain("b")()])
    assert fused(flow) == [["a"], ["b"], ["List", "c"]]


def test_a_chain_is_broken_where_something_else_reads_it():
    with Flow("chain") as flow:
        a = plain("a")()
        b = plain("b")(a)
        plain("c")(b)
        plain("d").map(b)
    assert fused(flow) == [["a", "b"], ["c"]]


# -- items -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ([1, 2], [1, 2]),
        ((1, 2), [1, 2]),
        ({"a": 1}, ["a"]),
        ({3}, [3]),
        (range(2), [0, 1]),
        (iter([1]), [1]),
        ([], []),
        ("ab", None),
        (b"ab", None),
        (bytearray(b"ab"), None),
        (3, None),
        (None, None),
        (Task("one"), None),
    ],
    ids=repr,
)
def test_the_items_of_a_value(value, items):
    assert items_of(value) == items


def test_a_list_is_not_copied():
    value = [1, 2]
    assert items_of(value) is value


@pytest.mark.parametrize(
    ("value", "flat"),
    [
        ([[1, 2], [3]], [1, 2, 3]),
        ([(1,), {2: 3}, range(2)], [1, 2, 0, 1]),
        ([], []),
        ([[]], []),
        ([[1], 2], [[1], 2]),
        ([["ab"], "c"], [["ab"], "c"]),
        (5, 5),
        ("abc", "abc"),
    ],
    ids=repr,
)
def test_flattening_unnests_one_level_or_nothing(value, flat):
    assert flattened(value) == flat
