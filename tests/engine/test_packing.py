import pickle
import threading

import pytest

from prefect_dask_core import Task
from prefect_dask_core.edges import Edge
from prefect_dask_core.engine import packing
from prefect_dask_core.engine.block import Block, Step
from prefect_dask_core.engine.packing import (
    OWN_KEY_BYTES,
    Packer,
    load_shared,
    load_small,
    small_part,
    unpack,
)
from prefect_dask_core.engine.sources import (
    Fixed,
    Items,
    Local,
    Shared,
    StepInput,
    Whole,
)
from prefect_dask_core.errors import UnpicklableTaskError

LOCK = threading.Lock()


def block_of(task, *sources, number=0):
    inputs = tuple(
        StepInput(f"x{i}", "", source, None) for i, source in enumerate(sources)
    )
    step = Step(0, task, "slug", inputs, mapped=False)
    return Block(number, (step,), 0, 1, 0.0, frozenset())


def travel(packed, arguments=()):
    """A packed block as a worker reads it."""
    large = [load_shared(blob) for blob in packed.shared]
    return unpack(packed.header, packed.inline, [*arguments, *large])


def double(x):
    return 2 * x


def test_a_block_travels():
    block = block_of(Task(double), Fixed(3), Local(4))
    copy = travel(Packer().pack(block, 0))
    assert copy.steps[0].task.name == "double"
    assert copy.steps[0].task.fn(4) == 8
    assert copy.steps[0].inputs == block.steps[0].inputs
    assert copy[2:] == block[2:]


@pytest.mark.parametrize(
    "variables",
    [{}, {"color": "red"}, {"text": "x" * OWN_KEY_BYTES}, {"sizes": [1, 2]}],
    ids=["none", "primitive", "large", "list"],
)
def test_context_variables_of_a_step_travel(variables):
    block = block_of(Task(double), Fixed(3))
    step = block.steps[0]._replace(variables=variables)
    copy = travel(Packer().pack(block._replace(steps=(step,)), 0))
    assert copy.steps[0].variables == variables


@pytest.mark.parametrize("text", ["x" * OWN_KEY_BYTES, b"x" * OWN_KEY_BYTES])
def test_a_large_text_does_not_travel_inside_of_each_block(text):
    packer = Packer()
    above = Whole(1, (0,), False)
    packed = [
        packer.pack(block_of(Task(double), Fixed(text), above, number=i), 1)
        for i in range(2)
    ]
    for found in packed:
        assert len(found.header) + sum(map(len, found.inline)) < OWN_KEY_BYTES
        copy = travel(found, arguments=["above"])
        assert copy.steps[0].inputs[0].source == Shared(1)
    (blob,) = packed[0].shared
    assert packed[1].shared[0] is blob
    assert load_shared(blob) == text


def test_a_definition_is_pickled_once(monkeypatch):
    pickled = []
    dumps = packing.cloudpickle.dumps

    def counted(value, **more):
        pickled.append(value)
        return dumps(value, **more)

    monkeypatch.setattr(packing.cloudpickle, "dumps", counted)
    packer, task = Packer(), Task(lambda x: x)
    first = packer.pack(block_of(task, number=0), 0)
    second = packer.pack(block_of(task.copy(), number=1), 0)
    packer.pack(block_of(task.copy(), number=2), 0)
    assert len([value for value in pickled if isinstance(value, Task)]) == 1
    assert first.inline[0] is second.inline[0]


def test_a_copy_with_other_options_is_another_definition():
    packer, task = Packer(), Task(lambda x: x, name="one")
    names = [
        travel(packer.pack(block_of(t), 0)).steps[0].task.name
        for t in (task, task.with_options(name="two"), task)
    ]
    assert names == ["one", "two", "one"]


class Labelled(Task):
    def __init__(self, label, **options):
        self.label = label
        super().__init__(double, **options)


class Adder(Task):
    def __init__(self, number, **options):
        self.number = number
        super().__init__(**options)

    def run(self, x):
        return x + self.number


@pytest.mark.parametrize("make", [Labelled, Adder])
def test_copies_of_a_subclass_with_other_attributes_are_other_definitions(make):
    packer, task = Packer(), make(1)
    attribute = "label" if make is Labelled else "number"
    copies = [task, task.copy(**{attribute: 2})]
    found = [travel(packer.pack(block_of(t), 0)).steps[0].task for t in copies]
    assert [getattr(t, attribute) for t in found] == [1, 2]


def test_tasks_that_share_a_definition_stay_apart_in_a_block():
    task = Task(double)
    first, second, below = task.copy(), task.copy(), task.copy()
    edges = [Edge(first, below), Edge(second, below), Edge(first, below, "x")]
    step = Step(
        0,
        below,
        "slug",
        tuple(StepInput(e.key, "", Local(i), e) for i, e in enumerate(edges)),
        mapped=False,
    )
    packed = Packer().pack(Block(0, (step,), 0, 1, 0.0, frozenset()), 0)
    assert len(packed.inline) == 1
    a, b, c = (item.edge for item in travel(packed).steps[0].inputs)
    assert len({a, b, c}) == 3
    assert a.upstream_task is c.upstream_task
    assert a.downstream_task is b.downstream_task is c.downstream_task


def test_a_large_definition_is_a_part_of_its_own():
    text = "x" * OWN_KEY_BYTES
    packer, task = Packer(), Task(lambda: text)
    first, second = (packer.pack(block_of(task, number=i), 2) for i in range(2))
    assert first.inline == ()
    assert first.shared[0] is second.shared[0]
    assert len(first.header) < 1_000
    copy = travel(first, arguments=["above", "also above"])
    assert copy.steps[0].task.fn() == text


def test_a_large_argument_is_a_part_of_its_own_and_pickled_once():
    large = list(range(10_000))
    packer = Packer()
    task, other = Task(double), Task(lambda x: x)
    first = packer.pack(block_of(task, Fixed(large), Fixed(large)), 1)
    second = packer.pack(block_of(other, Fixed(1), Fixed(large)), 0)
    assert len(first.shared) == len(second.shared) == 1
    assert first.shared[0] is second.shared[0]
    copy = travel(first, arguments=["above"])
    assert [i.source for i in copy.steps[0].inputs] == [Shared(1), Shared(1)]
    assert load_shared(first.shared[0]) == large


def test_small_arguments_travel_in_the_message():
    packed = Packer().pack(block_of(Task(double), Fixed([1, 2]), Fixed("a")), 0)
    assert packed.shared == ()
    sources = [item.source for item in travel(packed).steps[0].inputs]
    assert sources == [Fixed([1, 2]), Fixed("a")]


def test_items_are_unpickled_when_the_first_is_read():
    class Item:
        loaded = 0

        def __reduce__(self):
            return _load_item, ()

    copy = travel(Packer().pack(block_of(Task(double), Items([Item()], 5)), 0))
    (item,) = copy.steps[0].inputs
    LOADED.clear()
    assert item.source.start == 5
    assert item.source.values[0] == "loaded"
    assert LOADED == [1]


LOADED = []


def _load_item():
    LOADED.append(1)
    return "loaded"


def test_small_definitions_are_unpickled_once_per_process():
    packed = Packer().pack(block_of(Task(lambda: object())), 0)
    assert travel(packed).steps[0].task is travel(packed).steps[0].task
    assert load_small(small_part(pickle.dumps("a"))) == "a"


def test_a_process_has_a_small_part_once_however_often_it_arrives():
    packed = Packer().pack(block_of(Task(double)), 0)
    part = packed.inline[0]
    assert pickle.loads(pickle.dumps(part)) is part
    gone = small_part(b"of a run that ended").blob
    assert gone not in set(packing._SMALL_PARTS)


# -- what cannot be pickled --------------------------------------------------------


def closure():
    lock = LOCK

    def body():
        return lock

    return Task(body, name="load")


def global_variable():
    namespace = {"LOCK": LOCK}
    exec("def body():\n    return LOCK", namespace)
    return Task(namespace["body"], name="load")


def attribute():
    task = Adder(1, name="load")
    task.number = LOCK
    return task


def handler():
    lock = LOCK

    def note(task, old, new):
        return lock and None

    return Task(double, name="load", state_handlers=[note])


def trigger():
    lock = LOCK
    return Task(double, name="load", trigger=lambda states: lock)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (closure, "closure variable 'lock' of task 'load' cannot be pickled"),
        (global_variable, "global variable 'LOCK' of task 'load' cannot be pickled"),
        (attribute, "attribute 'number' of task 'load' cannot be pickled"),
        (handler, "state handler .*note.* of task 'load' cannot be pickled"),
        (trigger, "its trigger of task 'load' cannot be pickled"),
    ],
)
def test_what_cannot_be_pickled_of_a_task_is_named(make, told):
    with pytest.raises(UnpicklableTaskError, match=told) as caught:
        Packer().pack(block_of(make()), 0)
    assert "belong inside the body of a task" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (Fixed([LOCK]), "argument 'x0' of task 'load'"),
        (Fixed([LOCK, "x" * OWN_KEY_BYTES]), "argument 'x0' of task 'load'"),
        (Items([1, LOCK], start=10), "item 11 of argument 'x0' of task 'load'"),
    ],
    ids=["small", "large", "item"],
)
def test_an_argument_that_cannot_be_pickled_is_named(source, told):
    with pytest.raises(UnpicklableTaskError, match=f"^{told} cannot be pickled"):
        Packer().pack(block_of(Task(double, name="load"), source), 0)


def test_a_context_variable_that_cannot_be_pickled_is_named():
    block = block_of(Task(double, name="load"), Fixed(1))
    step = block.steps[0]._replace(variables={"color": "red", "lock": LOCK})
    told = "^context variable 'lock' of task 'load' cannot be pickled"
    with pytest.raises(UnpicklableTaskError, match=told):
        Packer().pack(block._replace(steps=(step,)), 0)
