from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.edges import Edge
from prefect_dask_core.task_graph import TaskGraph
from prefect_dask_core.tasks import Task

SIZE = 8
EDGES = st.sets(
    st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)).filter(
        lambda ends: ends[0] < ends[1]
    )
)


def built(edges):
    graph = TaskGraph()
    tasks = [Task(f"t{number}") for number in range(SIZE)]
    for task in reversed(tasks):
        graph.add(task, graph.free_slug(task.name))
    for above, below in sorted(edges):
        graph.link(Edge(tasks[above], tasks[below]))
    return graph, tasks


@given(EDGES)
def test_the_order_respects_every_edge(edges):
    graph, tasks = built(edges)
    place = {task: number for number, task in enumerate(graph.order())}
    assert len(place) == SIZE
    assert all(place[tasks[above]] < place[tasks[below]] for above, below in edges)


@given(EDGES, st.integers(0, SIZE - 1))
def test_a_removed_task_leaves_nothing_behind(edges, number):
    graph, tasks = built(edges)
    graph.bind(tasks[number], "x", 1)
    graph.remove(tasks[number])
    left, _ = built({ends for ends in edges if number not in ends})
    assert tasks[number] not in graph
    assert len(graph.edges) == len(left.edges)
    assert graph.constants == {}
    for table in (graph.edges_to, graph.edges_from):
        assert tasks[number] not in table
        assert all(
            tasks[number] not in (edge.upstream_task, edge.downstream_task)
            for found in table.values()
            for edge in found
        )
    assert not graph.has_slug(f"t{number}-1")
    assert tasks[number] not in graph.order()


@given(EDGES, st.sets(st.integers(0, SIZE - 1)))
def test_the_order_from_some_tasks_holds_what_comes_after_them(edges, roots):
    graph, tasks = built(edges)
    reached = set(roots)
    for above, below in sorted(edges):  # edges lead to higher numbers
        if above in reached:
            reached.add(below)
    assert set(graph.order_from(tasks[n] for n in roots)) == {tasks[n] for n in reached}


def test_a_copy_changes_without_the_original():
    graph, tasks = built({(0, 1)})
    graph.bind(tasks[1], "x", 1)
    twin = graph.copy()
    twin.bind(tasks[1], "y", 2)
    twin.link(Edge(tasks[1], tasks[2]))
    twin.remove(tasks[0])
    assert len(graph.edges) == 1
    assert graph.constants == {tasks[1]: {"x": 1}}
    assert graph.bound[tasks[1]] == {"x"}
    assert tasks[0] in graph
    assert graph.has_slug("t0-1")


def test_free_slugs_count_on_and_leave_out_the_taken():
    graph = TaskGraph()
    graph.add(Task("a"), "load-2")
    assert [graph.free_slug("load") for _ in range(3)] == ["load-1", "load-3", "load-4"]
