import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.edges import (
    Annotation,
    Edge,
    flatten,
    mapped,
    sort_topologically,
    unmapped,
)
from prefect_dask_core.errors import CycleError, GraphError
from prefect_dask_core.tasks import Task
from tests.strategies import edges, graphs
from tests.work import calls_of

TASKS = [Task("first"), Task("second")]


# -- order -------------------------------------------------------------------------


@given(graphs())
def test_an_order_respects_every_edge(graph):
    nodes, pairs = graph
    place = {node: i for i, node in enumerate(sort_topologically(nodes, pairs))}
    assert len(place) == len(nodes)
    assert all(place[upstream] < place[downstream] for upstream, downstream in pairs)


@given(graphs())
def test_an_order_that_respects_every_edge_is_kept(graph):
    nodes, pairs = graph
    order = sort_topologically(nodes, pairs)
    assert sort_topologically(order, pairs) == order


@given(st.data(), graphs())
def test_an_order_depends_on_the_nodes_and_the_set_of_edges_below_each(data, graph):
    nodes, pairs = graph
    assert sort_topologically(nodes, pairs) == sort_topologically(nodes, list(pairs))


@given(graphs(acyclic=False))
def test_edges_have_an_order_or_a_cycle_that_is_named(graph):
    nodes, pairs = graph
    try:
        sort_topologically(nodes, pairs)
    except CycleError as error:
        path = str(error).split(": ")[1].split("; ")[0].split(" -> ")
        assert path[0] == path[-1]
        steps = itertools.pairwise(path)
        assert all((int(a), int(b)) in pairs for a, b in steps)


def test_a_cycle_is_named_in_the_order_of_its_edges():
    pairs = [("a", "b"), ("b", "c"), ("c", "a"), ("x", "a")]
    with pytest.raises(CycleError, match="cycle: a -> b -> c -> a; remove one"):
        sort_topologically("xabc", pairs)


def test_a_node_that_comes_before_itself_is_a_cycle():
    with pytest.raises(CycleError, match="cycle: a -> a"):
        sort_topologically("a", [("a", "a")])


def test_a_label_names_the_nodes_of_a_cycle():
    with pytest.raises(CycleError, match="A -> B -> A"):
        sort_topologically("ab", [("a", "b"), ("b", "a")], label=str.upper)


def test_an_edge_to_an_unknown_node_is_refused():
    with pytest.raises(GraphError, match="from a to z was given, but z is not among"):
        sort_topologically("a", [("a", "z")])


def test_a_node_keeps_its_place_where_the_edges_allow():
    assert sort_topologically("dcba", [("a", "c")]) == ("d", "a", "c", "b")


def test_a_long_chain_is_sorted_without_recursion():
    size = 50_000
    pairs = [(i, i + 1) for i in range(size - 1)]
    assert sort_topologically(range(size), pairs) == tuple(range(size))
    backwards = range(size - 1, -1, -1)
    assert sort_topologically(backwards, pairs) == tuple(range(size))


class Counting:
    """A node that counts how often any is looked up or compared."""

    looks = 0

    def __hash__(self):
        Counting.looks += 1
        return object.__hash__(self)

    def __eq__(self, other):
        Counting.looks += 1
        return self is other


def test_sorting_takes_linear_time():
    def looks(size):
        nodes = [Counting() for _ in range(size)]
        pairs = [(nodes[i // 2], nodes[i]) for i in range(1, size)]
        Counting.looks = 0
        calls = calls_of(lambda: sort_topologically(nodes, pairs))
        return calls + Counting.looks

    # Eight times the nodes; in quadratic time it would be 64 times as many.
    assert looks(4_000) < 10 * looks(500)


# -- edges -------------------------------------------------------------------------


@given(edges(TASKS), edges(TASKS))
def test_two_edges_are_equal_exactly_if_all_five_are(left, right):
    def five(edge):
        return (
            edge.upstream_task,
            edge.downstream_task,
            edge.key,
            edge.mapped,
            edge.flattened,
        )

    assert (left == right) == (five(left) == five(right))
    assert left != right or hash(left) == hash(right)


@given(edges(["a", "b"]))
def test_pickling_changes_nothing(edge):
    copy = pickle.loads(pickle.dumps(edge))
    assert repr(copy) == repr(edge)
    assert copy.tasks == edge.tasks


def test_tasks_of_an_edge_are_compared_by_identity():
    class Same(Task):
        def __eq__(self, other):
            return True

        __hash__ = Task.__hash__

    below = Task("below")
    assert Edge(Same("a"), below) != Edge(Same("b"), below)


def test_an_edge_knows_both_tasks():
    first, second = TASKS
    assert Edge(first, second).tasks == {first, second}


def test_an_edge_cannot_be_changed():
    edge = Edge(*TASKS)
    with pytest.raises(AttributeError, match="'key' stays; add another edge"):
        edge.key = "x"
    with pytest.raises(AttributeError, match="'key' stays"):
        del edge.key


def test_the_repr_of_an_edge_shows_what_is_special():
    assert repr(Edge(*TASKS)) == "<Edge first to second>"
    edge = Edge(*TASKS, key="x", mapped=True, flattened=True)
    assert repr(edge) == "<Edge first to second, key=x, mapped, flattened>"


def test_an_edge_is_not_equal_to_anything_else():
    assert Edge(*TASKS) != "an edge"


# -- annotations -------------------------------------------------------------------


def test_nested_annotations_merge_their_flags():
    for nested in (flatten(unmapped([1])), unmapped(flatten([1]))):
        assert nested == Annotation([1], mapped=False, flattened=True)
    assert mapped(flatten([1])) == Annotation([1], mapped=True, flattened=True)


def test_the_outer_of_two_contrary_annotations_wins():
    assert mapped(unmapped(1)).mapped is True
    assert unmapped(mapped(1)).mapped is False


def test_flatten_alone_says_nothing_on_mapping():
    assert flatten([1]).mapped is None
