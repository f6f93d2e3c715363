import pickle

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.annotations import allow_failure, quote
from prefect_dask_core.arguments import Dict, List
from prefect_dask_core.context import context, tags
from prefect_dask_core.edges import Edge, flatten, mapped, unmapped
from prefect_dask_core.errors import (
    CycleError,
    DuplicateSlugError,
    GraphError,
    MappingMissingIterable,
    OptionTypeError,
    OptionValueError,
    ParameterBindError,
)
from prefect_dask_core.flows import Flow
from prefect_dask_core.parameters import Parameter
from prefect_dask_core.tasks import Constant, Task, task
from tests.strategies import graphs
from tests.work import calls_of


@task
def plus(x, y=1):
    return x + y


@task
def any_inputs(**inputs):
    return inputs


def made_of(graph):
    """A flow of plain tasks, given nodes and pairs of numbers."""
    nodes, pairs = graph
    by_number = {number: Task(f"t{number}") for number in nodes}
    flow = Flow("f", tasks=[by_number[number] for number in nodes])
    for upstream, downstream in pairs:
        flow.add_edge(by_number[upstream], by_number[downstream])
    return flow, by_number


# -- laws --------------------------------------------------------------------------


@given(graphs())
def test_sorted_tasks_respect_every_edge(graph):
    flow, _ = made_of(graph)
    place = {made: i for i, made in enumerate(flow.sorted_tasks())}
    assert place.keys() == flow.tasks
    for edge in flow.edges:
        assert place[edge.upstream_task] < place[edge.downstream_task]


@given(graphs())
def test_edges_are_found_from_both_ends(graph):
    flow, _ = made_of(graph)
    to = {edge for made in flow.tasks for edge in flow.edges_to(made)}
    back = {edge for made in flow.tasks for edge in flow.edges_from(made)}
    assert to == back == flow.edges
    for made, edges in flow.all_upstream_edges().items():
        assert flow.upstream_tasks(made) == {edge.upstream_task for edge in edges}
    for made, edges in flow.all_downstream_edges().items():
        assert flow.downstream_tasks(made) == {edge.downstream_task for edge in edges}


@given(graphs())
def test_root_and_terminal_tasks_are_the_ends(graph):
    flow, _ = made_of(graph)
    assert flow.root_tasks() == {t for t in flow.tasks if not flow.upstream_tasks(t)}
    ends = {t for t in flow.tasks if not flow.downstream_tasks(t)}
    assert flow.terminal_tasks() == flow.reference_tasks() == ends


@given(graphs())
def test_a_copy_is_equal_and_independent(graph):
    flow, _ = made_of(graph)
    copy = flow.copy()
    assert copy == flow
    copy.add_task(Task("another"))
    assert copy != flow
    assert copy.slugs.keys() - flow.slugs.keys() == copy.tasks - flow.tasks


@given(graphs())
def test_updating_an_empty_flow_gives_the_other_flow(graph):
    flow, _ = made_of(graph)
    empty = Flow("f")
    empty.update(flow)
    assert empty == flow
    assert list(empty.tasks) == list(flow.tasks)
    assert empty.slugs == flow.slugs


@given(graphs())
@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_pickling_changes_nothing(library, graph):
    flow, _ = made_of(graph)
    copy = library.loads(library.dumps(flow))
    assert [repr(t) for t in copy.sorted_tasks()] == [
        repr(t) for t in flow.sorted_tasks()
    ]
    assert list(map(repr, copy.edges)) == list(map(repr, flow.edges))
    assert list(copy.slugs.values()) == list(flow.slugs.values())


@given(st.data(), graphs())
def test_replacing_a_task_keeps_the_shape(data, graph):
    flow, by_number = made_of(graph)
    old = by_number[data.draw(st.sampled_from(sorted(by_number)))]
    above, below = flow.upstream_tasks(old), flow.downstream_tasks(old)
    new = Task("new")
    flow.replace(old, new)
    assert old not in flow
    assert flow.upstream_tasks(new) == above
    assert flow.downstream_tasks(new) == below


@given(graphs())
def test_the_same_steps_give_the_same_slugs_and_order(graph):
    first, _ = made_of(graph)
    second, _ = made_of(graph)
    assert list(first.slugs.values()) == list(second.slugs.values())
    assert list(map(repr, first)) == list(map(repr, second))


@given(st.lists(st.sampled_from(["a", "a-1", "a-1-1", "b"]), max_size=12))
def test_no_two_tasks_have_one_slug(names):
    flow = Flow("f", tasks=[Task(name) for name in names])
    assert len(set(flow.slugs.values())) == len(names)


def test_adding_a_task_takes_constant_time():
    def add(size):
        with Flow("f"):
            last = plus(0)
            for number in range(size):
                last = plus(last, y=number)

    # Eight times the tasks; in quadratic time it would be 64 times as many.
    assert calls_of(lambda: add(800)) < 10 * calls_of(lambda: add(100))


# -- flows -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", None])
def test_a_flow_needs_a_name(name):
    with pytest.raises(OptionValueError, match="a flow needs a name"):
        Flow(name)


def test_the_name_of_a_flow_is_a_string():
    with pytest.raises(OptionTypeError, match="the name of a flow is a string"):
        Flow(3)


def test_an_unknown_option_of_a_flow_is_refused():
    with pytest.raises(TypeError, match="has no option 'taks'; did you mean 'tasks'"):
        Flow("f", taks=[])


def test_tasks_edges_and_reference_tasks_can_be_given():
    a, b = Task("a"), Task(lambda x: x, name="b")
    flow = Flow("f", tasks=[a], edges=[Edge(a, b, key="x")], reference_tasks=[a])
    assert flow.tasks == {a, b}
    assert flow.edges == {Edge(a, b, key="x")}
    assert flow.reference_tasks() == {a}


def test_given_edges_can_be_checked_for_cycles_at_once():
    a, b = Task("a"), Task("b")
    with pytest.raises(CycleError, match="a-1 -> b-1 -> a-1"):
        Flow("f", edges=[Edge(a, b), Edge(b, a)], validate=True)


def test_a_flow_iterates_over_its_tasks_in_order():
    a, b = Task("a"), Task("b")
    flow = Flow("f", edges=[Edge(b, a)])
    assert list(flow) == [b, a]
    assert len(flow) == 2
    assert a in flow
    assert Task("a") not in flow
    assert repr(flow) == "<Flow: f>"


def test_an_empty_flow_is_true():
    assert Flow("f")


def test_flows_with_other_names_differ():
    assert Flow("f") == Flow("f")
    assert Flow("f") != Flow("g")
    assert Flow("f") != "f"


# -- block -------------------------------------------------------------------------


def test_a_block_makes_the_flow_active_and_restores_the_outer_one():
    with Flow("outer") as outer:
        with Flow("inner") as inner:
            assert context.flow is inner
            assert inner.is_open
        assert context.flow is outer
        assert not inner.is_open
    assert "flow" not in context


def test_a_block_can_be_entered_again():
    with Flow("f") as flow:
        plus(1)
    with flow:
        plus(1)
    assert len(flow) == 2


def test_a_cycle_is_refused_when_the_block_ends():
    a, b = Task("a"), Task("b")
    with pytest.raises(CycleError, match="a-1 -> b-1 -> a-1"), Flow("f") as flow:
        flow.chain(a, b, a)
    assert "flow" not in context


def test_an_inner_block_of_the_same_flow_does_not_look_for_cycles():
    seen = []
    with pytest.raises(CycleError), Flow("f") as flow:
        seen += enter_and_close_a_cycle(flow)
    assert seen == ["inner block ended"]


def enter_and_close_a_cycle(flow):
    a, b = Task("a"), Task("b")
    with flow:
        flow.chain(a, b, a)
    return ["inner block ended"]


def test_an_exception_in_a_block_is_not_hidden_by_a_cycle():
    a, b = Task("a"), Task("b")
    with pytest.raises(ZeroDivisionError), Flow("f") as flow:
        1 / (flow.chain(a, b, a) is None)


def test_a_task_that_was_made_in_the_block_and_not_added_is_warned_about():
    with pytest.warns(UserWarning, match="never added to it: 'unused'"), Flow("f"):
        Task("unused")


def test_a_task_made_in_the_outer_block_may_be_used_in_the_inner_one_only():
    with Flow("outer") as outer:
        called, bound, added = Task("called"), Task("bound"), Task("added")
        with Flow("inner") as inner:
            called()
            bound.bind()
            inner.add_task(added)
    assert [t.name for t in inner.tasks] == ["called", "bound", "added"]
    assert not outer.tasks


def test_a_task_made_in_the_inner_block_and_not_used_there_is_warned_about_once():
    with Flow("outer") as outer:
        with pytest.warns(UserWarning, match="flow 'inner' and never"), Flow("inner"):
            late = Task("late")
        late()
    assert len(outer.tasks) == 1


def test_a_task_that_was_made_in_the_block_and_called_is_not_warned_about():
    with Flow("f") as flow:
        local = Task(lambda x: x, name="local")
        local(1)
        local.map([1])
        Task("bound").bind()
        flow.add_task(Task("added"))
        Task("first").set_downstream(Task("second"))
        plus(Constant(3))


def test_a_flow_cannot_be_pickled_inside_its_own_block():
    with (
        Flow("f") as flow,
        pytest.raises(TypeError, match="cannot be pickled inside its own block"),
    ):
        pickle.dumps(flow)
    assert pickle.loads(pickle.dumps(flow)).name == "f"


# -- slugs -------------------------------------------------------------------------


def test_a_slug_is_name_tags_and_number():
    with Flow("f") as flow:
        plus(1)
        plus(2)
        with tags("b", "a"):
            plus(3)
        plus(4)
    assert list(flow.slugs.values()) == ["plus-1", "plus-2", "plus-a-b-1", "plus-3"]


def test_a_slug_that_is_taken_is_passed_over():
    flow = Flow("f", tasks=[Task("a", slug="a-1"), Task("a")])
    assert list(flow.slugs.values()) == ["a-1", "a-2"]


def test_a_slug_of_ones_own_that_is_taken_is_refused():
    flow = Flow("f", tasks=[Task("a", slug="mine")])
    with pytest.raises(DuplicateSlugError, match="a task with the slug 'mine' already"):
        flow.add_task(Task("b", slug="mine"))
    assert len(flow) == 1


def test_one_task_can_have_different_slugs_in_different_flows():
    a = Task("a")
    first, second = Flow("f", tasks=[a]), Flow("g", tasks=[Task("a"), a])
    assert (first.slugs[a], second.slugs[a]) == ("a-1", "a-2")


# -- tasks and edges ---------------------------------------------------------------


def test_adding_a_task_again_changes_nothing():
    a = Task("a")
    flow = Flow("f")
    assert flow.add_task(a) is flow.add_task(a) is a
    assert len(flow) == 1


@pytest.mark.parametrize("wrong", [3, "a", lambda: 3])
def test_what_is_no_task_cannot_be_added(wrong):
    with pytest.raises(OptionTypeError, match="decorate a function with @task"):
        Flow("f").add_task(wrong)


def test_adding_an_edge_adds_its_ends():
    a, b = Task("a"), Task("b")
    flow = Flow("f")
    edge = flow.add_edge(a, b)
    assert edge == Edge(a, b)
    assert flow.edges == {edge}
    assert list(flow.tasks) == [a, b]


def test_the_same_plain_edge_twice_is_one():
    a, b = Task("a"), Task("b")
    flow = Flow("f")
    flow.add_edge(a, b)
    flow.add_edge(a, b)
    assert len(flow.edges) == 1


def test_annotations_of_an_end_win_over_the_flags():
    flow = Flow("f")
    a, b = Task("a"), any_inputs.copy()
    assert flow.add_edge(mapped(a), b, key="x").mapped
    assert not flow.add_edge(unmapped(a), b, key="y", mapped=True).mapped
    assert flow.add_edge(flatten(a), b, key="z").flattened
    assert flow.add_edge(a, b, key="w", flattened=True).flattened


def test_a_task_cannot_come_before_itself():
    a = Task("a")
    with pytest.raises(GraphError, match="'a' cannot come before itself"):
        Flow("f").add_edge(a, a)


@pytest.mark.parametrize("key", ["not a name", "1x", 3, ""])
def test_a_key_is_the_name_of_a_parameter(key):
    with pytest.raises(GraphError, match="a key is the name of a parameter"):
        Flow("f").add_edge(Task("a"), any_inputs.copy(), key=key)


def test_a_key_that_the_body_does_not_take_is_refused():
    with pytest.raises(ParameterBindError, match=r"no parameter 'z'; .*: x, y"):
        Flow("f").add_edge(Task("a"), plus.copy(), key="z")


def test_an_input_cannot_be_bound_twice():
    flow = Flow("f")
    bound = plus(Task("a"), flow=flow)
    for again in (
        lambda: flow.add_edge(Task("b"), bound, key="x"),
        lambda: flow.add_edge(3, bound, key="x"),
        lambda: bound.bind(3, flow=flow),
    ):
        with pytest.raises(GraphError, match="'x' of task 'plus' was bound before"):
            again()
    assert len(flow.edges) == 1
    assert flow.constants == {}


def test_one_task_can_be_bound_in_two_flows():
    first, second = Flow("f"), Flow("g")
    mine = plus.copy()
    mine.bind(1, flow=first)
    mine.bind(2, flow=second)
    assert (first.constants[mine], second.constants[mine]) == ({"x": 1}, {"x": 2})


def test_a_refused_edge_leaves_the_flow_as_it_was():
    flow = Flow("f", tasks=[Task("a", slug="mine")])
    before = flow.copy()
    with pytest.raises(DuplicateSlugError):
        plus(Task("b", slug="mine"), flow=flow)
    assert flow == before
    with pytest.raises(ParameterBindError):
        flow.add_edge(Task("c"), plus.copy(), key="z")
    assert flow == before


def test_a_cycle_can_be_refused_at_once():
    a, b = Task("a"), Task("b")
    flow = Flow("f")
    flow.add_edge(a, b)
    with pytest.raises(CycleError):
        flow.add_edge(b, a, validate=True)
    with pytest.raises(CycleError):
        flow.validate()


def test_a_chain_is_one_edge_after_another():
    a, b, c = Task("a"), Task("b"), Task("c")
    flow = Flow("f")
    assert flow.chain(a, b, c) == [Edge(a, b), Edge(b, c)]
    with pytest.raises(CycleError):
        flow.chain(c, a, validate=True)


def test_dependencies_of_all_kinds_are_set_at_once():
    a, b, c, middle = Task("a"), Task("b"), Task("c"), plus.copy()
    flow = Flow("f")
    found = flow.set_dependencies(
        middle,
        upstream_tasks=[a],
        downstream_tasks=[b],
        keyword_tasks={"x": c, "y": 3},
    )
    assert found is None
    assert flow.edges == {Edge(a, middle), Edge(middle, b), Edge(c, middle, key="x")}
    assert flow.constants == {middle: {"y": 3}}


def test_mapped_dependencies_map_what_comes_before_only():
    a, b, middle = Task("a"), Task("b"), plus.copy()
    flow = Flow("f")
    flow.set_dependencies(middle, upstream_tasks=[a], downstream_tasks=[b], mapped=True)
    assert flow.edges == {Edge(a, middle, mapped=True), Edge(middle, b)}


def test_a_task_is_added_even_without_dependencies():
    flow, a = Flow("f"), Task("a")
    flow.set_dependencies(a)
    assert flow.tasks == {a}


# -- arguments ---------------------------------------------------------------------


def test_a_plain_argument_is_a_constant_without_a_node():
    flow = Flow("f")
    bound = plus([1, 2], y={"a": 1}, flow=flow)
    assert flow.tasks == {bound}
    assert flow.constants[bound] == {"x": [1, 2], "y": {"a": 1}}


def test_a_constant_given_by_an_edge_is_kept_as_a_constant():
    flow, bound = Flow("f"), plus.copy()
    edge = flow.add_edge(3, bound, key="x")
    assert edge.upstream_task.value == 3
    assert not flow.edges
    assert flow.constants == {bound: {"x": 3}}


@pytest.mark.parametrize(
    "argument", [mapped([1]), flatten([[1]]), flatten(mapped([[1]]))]
)
def test_an_annotated_constant_is_a_node(argument):
    flow = Flow("f")
    bound = plus(argument, flow=flow)
    (edge,) = flow.edges_to(bound)
    assert isinstance(edge.upstream_task, Constant)


def test_a_constant_that_comes_first_is_a_node():
    flow = Flow("f")
    bound = plus(1, upstream_tasks=[3], flow=flow)
    assert [t.name for t in flow.upstream_tasks(bound)] == ["3"]


def test_tasks_inside_a_collection_are_collected():
    with Flow("f") as flow:
        a, b = plus(1), plus(2)
        bound = plus([a, {"b": (b, 3)}])
    (outer,) = flow.upstream_tasks(bound)
    assert isinstance(outer, List)
    assert [edge.key for edge in flow.edges_to(outer)] == ["arg_1", "arg_2"]
    inner = next(t for t in flow.upstream_tasks(outer) if t is not a)
    assert isinstance(inner, Dict)
    assert flow.constants[inner] == {"keys": ["b"]}
    assert flow.sorted_tasks()[-1] is bound


def test_a_generator_of_tasks_can_be_mapped_over():
    with Flow("f") as flow:
        bound = plus.map(plus(i) for i in range(3))
    ((edge),) = flow.edges_to(bound)
    assert isinstance(edge.upstream_task, List)
    assert edge.mapped


def test_a_generator_is_kept_as_a_list_where_it_is_mapped_over():
    with Flow("f") as flow:
        bound = plus.map(i for i in range(3))
    ((edge),) = flow.edges_to(bound)
    assert edge.upstream_task.value == [0, 1, 2]


def test_a_mapped_call_without_anything_to_map_over_leaves_the_flow_as_it_was():
    with Flow("f") as flow, pytest.raises(MappingMissingIterable):
        plus.map("abc")
    assert not flow.tasks


def test_unmapped_arguments_of_a_mapped_call_are_not_mapped():
    with Flow("f") as flow:
        bound = plus.map([1, 2], unmapped(plus(1)))
    flags = {edge.key: edge.mapped for edge in flow.edges_to(bound)}
    assert flags == {"x": True, "y": False}


def test_tasks_that_come_first_are_mapped_with_the_call():
    with Flow("f") as flow:
        first = plus.map([1, 2])
        second = plus.map([1, 2], upstream_tasks=[first, unmapped(plus(1))])
    plain_edges = [edge for edge in flow.edges_to(second) if edge.key is None]
    assert [edge.mapped for edge in plain_edges] == [True, False]


# -- questions ---------------------------------------------------------------------


def test_tasks_are_found_by_all_criteria_together():
    class Special(Task):
        pass

    a, b, c = Task("a", tags=["x", "y"]), Task("a", slug="mine"), Special("b")
    flow = Flow("f", tasks=[a, b, c])
    assert flow.get_tasks() == [a, b, c]
    assert flow.get_tasks(name="a") == [a, b]
    assert flow.get_tasks(name="a", slug="mine") == [b]
    assert flow.get_tasks(tags=["x"]) == [a]
    assert flow.get_tasks(tags=["x", "z"]) == []
    assert flow.get_tasks(task_type=Special) == [c]


def test_parameters_are_the_tasks_that_are_parameters():
    with Flow("f") as flow:
        parameter = Parameter("x")
        plus(parameter)
    assert flow.parameters() == {parameter}
    assert isinstance(flow.parameters(), set)


def test_sorted_tasks_can_be_limited_to_what_comes_after_some():
    a, b, c, d = (Task(name) for name in "abcd")
    flow = Flow("f")
    flow.chain(a, b, c)
    flow.add_task(d)
    assert flow.sorted_tasks(root_tasks=[b]) == (b, c)
    assert flow.sorted_tasks(root_tasks=[]) == ()


@pytest.mark.parametrize(
    "ask",
    [
        lambda flow, t: flow.edges_to(t),
        lambda flow, t: flow.edges_from(t),
        lambda flow, t: flow.upstream_tasks(t),
        lambda flow, t: flow.downstream_tasks(t),
        lambda flow, t: flow.sorted_tasks(root_tasks=[t]),
        lambda flow, t: flow.set_reference_tasks([t]),
        lambda flow, t: flow.replace(t, Task("b")),
    ],
)
def test_a_foreign_task_is_refused(ask):
    with pytest.raises(GraphError, match="<Task: plus> is not a task of flow 'f'"):
        ask(Flow("f"), plus)


def test_reference_tasks_can_be_chosen_and_given_back():
    a, b = Task("a"), Task("b")
    flow = Flow("f", edges=[Edge(a, b)])
    flow.set_reference_tasks([a])
    assert flow.reference_tasks() == {a}
    flow.set_reference_tasks([])
    assert flow.reference_tasks() == {b}


def test_what_a_flow_tells_cannot_be_changed_from_outside():
    flow = Flow("f", tasks=[Task("a")])
    for told in (flow.slugs, flow.constants):
        with pytest.raises(TypeError, match="does not support item assignment"):
            told[Task("b")] = "x"
    assert not hasattr(flow.tasks, "add")


# -- update and replace ------------------------------------------------------------


def test_updating_brings_tasks_edges_and_constants():
    with Flow("f") as first:
        a = plus(1)
    with Flow("g") as second:
        b = plus(plus(2))
    first.update(second)
    assert first.tasks == {a, *second.tasks}
    assert first.edges == second.edges
    assert first.constants.keys() == {a, *second.upstream_tasks(b)}
    first.update(second)
    assert len(first) == 3


def test_parameters_of_one_name_are_merged_on_request_only():
    with Flow("f") as first:
        mine = Parameter("x")
        a = plus(mine)
    with Flow("g") as second:
        other = Parameter("x", default=3)
        b = plus(other)
    with pytest.raises(DuplicateSlugError):
        first.copy().update(second)
    first.update(second, merge_parameters=True)
    assert first.parameters() == {other}
    assert first.downstream_tasks(other) == {a, b}
    assert first.slugs[other] == "x"


def test_reference_tasks_are_merged_on_request_only():
    a, b = Task("a"), Task("b")
    first, second = Flow("f", tasks=[a]), Flow("g", tasks=[b, Task("c")])
    first.set_reference_tasks([a])
    second.set_reference_tasks([b])
    kept = first.copy()
    kept.update(second)
    assert kept.reference_tasks() == {a}
    first.update(second, merge_reference_tasks=True)
    assert first.reference_tasks() == {a, b}


def test_replacing_a_task_moves_keys_flags_constants_and_reference():
    flow = Flow("f")
    a, old, new = Task("a"), plus.copy(), plus.copy(name="new")
    flow.add_edge(a, old, key="x", mapped=True, flattened=True)
    flow.add_edge(3, old, key="y")
    flow.set_reference_tasks([old])
    flow.replace(old, new)
    assert flow.edges == {Edge(a, new, "x", True, True)}
    assert flow.constants == {new: {"y": 3}}
    assert flow.reference_tasks() == {new}
    with pytest.raises(GraphError, match="was bound before"):
        flow.add_edge(a, new, key="x")


def test_a_replacement_that_lacks_an_input_is_refused_before_anything_changes():
    flow = Flow("f")
    old = plus(1, flow=flow)
    before = flow.copy()
    with pytest.raises(ParameterBindError, match="task 'new' has no parameter 'x'"):
        flow.replace(old, Task("new"))
    assert flow == before
    assert flow.constants == before.constants


def test_replacing_a_task_by_itself_changes_nothing():
    flow = Flow("f")
    a = plus(1, flow=flow)
    flow.replace(a, a)
    assert flow.tasks == {a}


def test_a_task_can_be_replaced_by_a_value():
    flow = Flow("f")
    a = Task("a")
    bound = plus(a, flow=flow)
    flow.replace(a, 3)
    assert [t.name for t in flow.upstream_tasks(bound)] == ["3"]


@pytest.mark.parametrize("annotate", [allow_failure, quote])
def test_annotations_of_function_flows_are_refused(annotate):
    load = Task(lambda x=None: x, name="load")
    with Flow("graph"):
        first = load()
        with pytest.raises(GraphError, match=r"'load' was given \w+\(\.\.\.\) inside"):
            load(annotate(first))
