import pytest

from prefect_dask_core import (
    Flow,
    Parameter,
    SequentialTaskRunner,
    apply_map,
    case,
    flatten,
    mapped,
    merge,
    tags,
    task,
    unmapped,
)
from prefect_dask_core.errors import (
    GraphError,
    MappingLengthMismatch,
    MappingMissingIterable,
    OptionTypeError,
)
from prefect_dask_core.signals import SKIP
from prefect_dask_core.tasks import Constant, Task


@task
def identity(x):
    return x


@task
def plus(x, y=1):
    return x + y


@task
def fail_on_two(x):
    if x == 2:
        raise ValueError("two")
    return x


def in_order(flow, **parameters):
    return flow.run(parameters, task_runner=SequentialTaskRunner())


def value(function, *args, **kwargs):
    """What apply_map of some arguments gives, in order."""
    with Flow("f") as flow:
        made = apply_map(function, *args, **kwargs)
    return in_order(flow)[made].result()


def test_all_tasks_of_the_function_are_mapped(run):
    def twice(x):
        return plus(plus(x), 10)

    with Flow("f") as flow:
        made = apply_map(twice, identity([1, 2, 3]))
        total = identity(made)
    state = run(flow)
    assert state[total].result() == [12, 13, 14]
    assert state[made].is_mapped()
    assert len(state[made]) == 3


def test_the_mapped_chain_goes_item_by_item(run):
    def chain(x):
        return plus(fail_on_two(x))

    with Flow("f") as flow:
        made = apply_map(chain, [1, 2, 3])
    state = run(flow)
    assert [child.is_successful() for child in state[made]] == [True, False, True]


def test_arguments_may_be_given_by_position_and_by_name():
    assert value(lambda x, *, y: plus(x, y), [1, 2], y=[10, 20]) == [11, 22]


def test_an_unmapped_argument_is_given_whole():
    assert value(lambda x, y: plus(x, y), [[1], [2]], unmapped([9])) == [[1, 9], [2, 9]]
    with Flow("f") as flow:
        whole = identity([9])
        made = apply_map(lambda x, y: plus(x, y), [[1], [2]], unmapped(whole))
    assert in_order(flow)[made].result() == [[1, 9], [2, 9]]


def test_a_flattened_argument_is_unnested_first(run):
    with Flow("f") as flow:
        nested = identity([[1, 2], [], [3]])
        made = apply_map(lambda x: plus(plus(x)), flatten(nested))
    assert run(flow)[made].result() == [3, 4, 5]


def test_a_flattened_argument_may_be_mapped_itself(run):
    with Flow("f") as flow:
        nested = identity.map([[1, 2], [], [3]])
        made = apply_map(lambda x, y: plus(x, y), flatten(nested), [10, 20, 30])
    assert run(flow)[made].result() == [11, 22, 33]


def test_several_results_may_be_returned():
    with Flow("f") as flow:
        low, high = apply_map(lambda x: (x - 1, x + 1), [1, 2])
    state = in_order(flow)
    assert (state[low].result(), state[high].result()) == ([0, 1], [2, 3])


def test_a_task_without_arguments_runs_once_per_item(run):
    @task
    def fresh():
        return 5

    with Flow("f") as flow:
        made = apply_map(lambda x: plus(fresh(), x), [1, 2, 3])
    assert run(flow)[made].result() == [6, 7, 8]
    (source,) = flow.get_tasks(name="fresh")
    assert len(in_order(flow)[source]) == 3


def test_a_task_without_arguments_is_skipped_with_its_item():
    @task
    def odd_only(x):
        if x % 2 == 0:
            raise SKIP
        return x

    @task
    def fresh():
        return 5

    with Flow("f") as flow:
        made = apply_map(lambda x: fresh(), odd_only.map([1, 2, 3]))
    kinds = [type(child).__name__ for child in in_order(flow)[made]]
    assert kinds == ["Completed", "Skipped", "Completed"]


def test_a_task_waits_for_an_unmapped_task_but_not_for_an_unmapped_value():
    with Flow("f") as flow:
        gate = identity("open")
        made = apply_map(lambda x, g, v: plus(x), [1], unmapped(gate), unmapped(3))
    assert gate in flow.upstream_tasks(made)
    assert not flow.get_tasks(name="3")


def test_tasks_from_outside_and_parameters_are_given_whole(run):
    with Flow("f") as flow:
        outside = identity([7])
        p = Parameter("p")
        made = apply_map(lambda x: (plus(x, outside), plus(p, x)), [[1], [2]])
    state = run(flow, p=[3])
    assert state[made[0]].result() == [[1, 7], [2, 7]]
    assert state[made[1]].result() == [[3, 1], [3, 2]]


def test_collections_and_operators_inside_the_function_are_mapped():
    assert value(lambda x: identity([x, {"a": x * 2}]), [1, 2]) == [
        [1, {"a": 2}],
        [2, {"a": 4}],
    ]
    assert value(lambda x: x["a"] + 1, [{"a": 1}, {"a": 2}]) == [2, 3]


def test_arguments_may_be_any_collection():
    assert value(plus, range(3)) == [1, 2, 3]
    assert value(plus, (x for x in (1, 2))) == [2, 3]
    assert sorted(value(plus, {1, 2})) == [2, 3]
    assert value(identity, {"a": 1, "b": 2}) == ["a", "b"]
    with Flow("f") as flow:
        made = apply_map(plus, [identity(1), 5])
    assert in_order(flow)[made].result() == [2, 6]


def test_a_task_can_be_mapped_too():
    assert value(plus, [1, 2], y=[3, 4]) == [4, 6]


def test_an_argument_that_is_no_collection_is_refused():
    with Flow("f") as flow:
        for wrong in (3, "abc", None):
            with pytest.raises(OptionTypeError, match="unmapped"):
                apply_map(plus, wrong)
    assert not flow.tasks


def test_something_has_to_be_mapped_over():
    def plus_one(x):
        return plus(x)

    with Flow("f"), pytest.raises(MappingMissingIterable, match="plus_one"):
        apply_map(plus_one, unmapped([1, 2]))


def test_arguments_of_unequal_length_are_refused():
    with Flow("f") as flow:
        apply_map(plus, [1, 2], [1, 2, 3])
    with pytest.raises(MappingLengthMismatch):
        in_order(flow)


def test_a_function_cannot_map_again():
    with Flow("f") as flow:
        xs = identity([1, 2])
        with pytest.raises(GraphError, match="twice over"):
            apply_map(lambda x: plus.map(x), xs)
        with pytest.raises(GraphError, match="twice over"):
            apply_map(lambda x: plus(mapped(x)), xs)
        with pytest.raises(GraphError, match="twice over"):
            apply_map(lambda x: apply_map(plus, x), xs)
    assert flow.tasks == {xs}


def test_without_a_flow_there_is_nothing_to_map_in():
    with pytest.raises(GraphError, match="there is none"):
        apply_map(plus, [1])


def test_a_flow_that_is_given_is_passed_on():
    seen = []

    def function(x, flow):
        seen.append(flow)
        return plus(x, flow=flow)

    flow = Flow("f")
    made = apply_map(function, [1, 2], flow=flow)
    assert in_order(flow)[made].result() == [2, 3]
    assert len(seen) == 1


def test_the_tasks_join_the_blocks_around(run):
    with Flow("f") as flow:
        with case(Parameter("p"), 1), tags("inside"):
            made = apply_map(lambda x: plus(plus(x)), [1, 2])
        after = identity(made)
    assert made.tags == {"inside"}
    assert run(flow, p=1)[after].result() == [3, 4]
    assert run(flow, p=2)[after].is_skipped()


def test_a_skipped_fan_out_is_passed_over_by_merge():
    with Flow("f") as flow:
        with case(Parameter("p"), 1):
            made = plus.map([1, 2])
        merged = merge(made, "nothing")
    assert in_order(flow, p=2)[merged].result() == "nothing"


def test_a_task_that_is_made_and_not_called_is_reported():
    with Flow("f"), pytest.warns(UserWarning, match="'forgotten'"):
        apply_map(lambda x: (Task("forgotten"), plus(x)), [1])


def test_a_function_may_give_back_its_argument():
    with Flow("f") as flow:
        xs = identity([1])
        assert apply_map(lambda x: x, xs) is xs
        constant = apply_map(lambda x: x, [1, 2])
    assert isinstance(constant, Constant)
    assert flow.tasks == {xs}


def test_an_empty_collection_gives_no_children(run):
    with Flow("f") as flow:
        made = apply_map(lambda x: plus(plus(x)), identity([]))
    assert run(flow)[made].result() == []
