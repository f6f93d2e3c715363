import pickle

import pytest

from prefect_dask_core import operators
from prefect_dask_core.edges import unmapped
from prefect_dask_core.errors import GraphError
from prefect_dask_core.flows import Flow
from prefect_dask_core.results import JSONSerializer, LocalResult
from prefect_dask_core.tasks import Task, task


@task
def number():
    return 7


def value_of(flow, made):
    """Value of a task: what a plain run of its upstream tasks gives."""
    inputs = dict(flow.constants.get(made, {}))
    for edge in flow.edges_to(made):
        if edge.key is not None:
            inputs[edge.key] = value_of(flow, edge.upstream_task)
    return made.call_body(inputs)


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [
        (lambda t: t + 2, "Add", 9),
        (lambda t: 2 + t, "Add", 9),
        (lambda t: t - 2, "Sub", 5),
        (lambda t: 2 - t, "Sub", -5),
        (lambda t: t * 2, "Mul", 14),
        (lambda t: 2 * t, "Mul", 14),
        (lambda t: t / 2, "Div", 3.5),
        (lambda t: 14 / t, "Div", 2),
        (lambda t: t // 2, "FloorDiv", 3),
        (lambda t: 15 // t, "FloorDiv", 2),
        (lambda t: t % 4, "Mod", 3),
        (lambda t: 9 % t, "Mod", 2),
        (lambda t: t**2, "Pow", 49),
        (lambda t: 2**t, "Pow", 128),
        (lambda t: t & 0, "And", 0),
        (lambda t: 3 & t, "And", 7),
        (lambda t: t.or_(3), "Or", 7),
        (lambda t: t.not_(), "Not", False),
        (lambda t: t > 2, "GreaterThan", True),
        (lambda t: t >= 8, "GreaterThanOrEqual", False),
        (lambda t: t < 2, "LessThan", False),
        (lambda t: t <= 7, "LessThanOrEqual", True),
        (lambda t: 2 > t, "LessThan", False),  # noqa: SIM300
        (lambda t: t.is_equal(7), "Equal", True),
        (lambda t: t.is_not_equal(7), "NotEqual", False),
    ],
)
def test_an_operator_makes_a_task(build, name, value):
    with Flow("f") as flow:
        made = build(number())
    assert made.name == name
    assert value_of(flow, made) == value


def test_two_tasks_can_be_operands():
    with Flow("f") as flow:
        made = number() + number()
    assert len(flow.upstream_tasks(made)) == 2
    assert value_of(flow, made) == 14


def test_all_tasks_of_an_operator_share_body_and_options():
    with Flow("f"):
        first, second = number() + 1, number() + 2
    assert first.fn is second.fn
    assert first.options is second.options


def test_every_body_travels_by_name():
    for body in operators.BODIES.values():
        assert pickle.loads(pickle.dumps(body)) is body


def test_an_item_is_named_after_its_key():
    with Flow("f") as flow:
        record = Task(lambda: {"a": [1, 2]}, name="record")()
        item = record["a"][1]
        other = record[number()]
    assert item.name == "record['a'][1]"
    assert other.name == "record[number]"
    assert value_of(flow, item) == 2


def test_an_item_is_kept_as_the_whole_value_is(run, tmp_path):
    @task
    def record(x):
        return {"a": x, "b": 2 * x}

    place = LocalResult(tmp_path, location="{x}.json", serializer=JSONSerializer())
    with Flow("f") as flow:
        whole = record.with_options(result=place, checkpoint=True)(3)
        item = whole["b"]
    assert item.checkpoint is True
    assert (item.result.dir, item.result.serializer) == (place.dir, place.serializer)
    state = run(flow)
    assert state[item].result() == 6
    found = {path.read_text() for path in tmp_path.rglob("*.json")}
    assert found == {'{"a": 3, "b": 6}'}  # not overwritten by the item
    items = [path for path in tmp_path.glob("*/*") if path.is_file()]
    assert [path.read_text() for path in items] == ["6"]


def test_an_item_of_what_is_not_kept_is_not_kept():
    place = LocalResult("folder")
    with Flow("f"):
        kept_not = Task("t", result=place, checkpoint=False)()
        plain = number()
        assert (kept_not[0].checkpoint, kept_not[0].result) == (False, place)
        assert (plain[0].checkpoint, plain[0].result) == (None, None)


def test_a_default_takes_the_place_of_a_missing_key_only():
    assert operators.get_item({"a": 1}, "b", default=3) == 3
    with pytest.raises(KeyError):
        operators.get_item({"a": 1}, "b")
    with pytest.raises(IndexError):
        operators.get_item([1], 5, default=3)


def test_a_task_with_a_known_number_of_outputs_is_unpacked():
    @task
    def pair() -> tuple[int, str]:
        return 1, "a"

    with Flow("f") as flow:
        first, second = pair()
    assert (first.name, second.name) == ("pair[0]", "pair[1]")
    assert value_of(flow, second) == "a"


def test_a_task_without_a_known_number_of_outputs_is_not_unpacked():
    with Flow("f"):
        made = number()
        with pytest.raises(TypeError, match=r"'number' cannot be unpacked .* nout="):
            _first, _second = made


def test_a_bar_puts_tasks_in_order_and_gives_the_last():
    with Flow("f") as flow:
        first, second, third = number(), number(), number()
        assert (first | second | third) is third
        assert (3 | first) is first
    assert flow.upstream_tasks(third) == {second}
    assert flow.upstream_tasks(second) == {first}
    assert len(flow.upstream_tasks(first)) == 1


def test_pipe_gives_the_task_to_another():
    @task
    def plus(x, y):
        return x + y

    with Flow("f") as flow:
        made = number().pipe(plus, y=3)
        assert number().pipe(unmapped).mapped is False
    assert value_of(flow, made) == 10


def test_pipe_refuses_an_argument_called_self():
    with pytest.raises(ValueError, match="called 'self'"):
        number.pipe(number, self=3)


def test_equality_and_truth_are_left_alone():
    first, second = Task("a"), Task("a")
    assert first != second
    assert first == first
    assert bool(first)


@pytest.mark.parametrize(
    "build",
    [lambda t: t + 1, lambda t: t["a"], lambda t: t | t, lambda t: 3 | t],
)
def test_an_operator_outside_of_a_flow_is_refused(build):
    with pytest.raises(GraphError, match=r"without a flow|needs a flow"):
        build(Task("a"))
