"""The graphs that are measured, and both sides' way to say them."""

from __future__ import annotations

import dask.local
import pytest

from benchmarks.static_graphs import (
    EDGES,
    built_flow,
    check_values,
    key_in_one_group,
    key_per_function,
    last_nodes,
    plain_values,
    raw_graph,
)
from prefect_dask_core import SequentialTaskRunner

KINDS = pytest.mark.parametrize("kind", EDGES)


@KINDS
@pytest.mark.parametrize("count", [1, 2, 7, 8, 50])
def test_a_node_reads_earlier_nodes_only_and_each_once(kind, count):
    edges = EDGES[kind](count)

    assert len(edges) == count
    for node, above in enumerate(edges):
        assert len(set(above)) == len(above)
        assert all(0 <= other < node for other in above)


def test_a_tree_ends_in_one_node():
    assert last_nodes(EDGES["tree"](99)) == [98]


@KINDS
def test_both_sides_compute_what_a_plain_loop_does(kind):
    edges = EDGES[kind](40)
    expected = [plain_values(edges)[i] for i in last_nodes(edges)]

    _, flow, nodes = built_flow(edges)
    state = flow.run(task_runner=SequentialTaskRunner())
    assert [state[nodes[i]].result() for i in last_nodes(edges)] == expected

    for key_of in (key_per_function, key_in_one_group):
        graph, keys = raw_graph(edges, key_of)
        last = [keys[i] for i in last_nodes(edges)]
        assert list(dask.local.get_sync(graph, last)) == expected


def test_a_wrong_value_is_told():
    with pytest.raises(RuntimeError, match=r"client.get gave other values"):
        check_values([1, 2], [[], []], "client.get")
