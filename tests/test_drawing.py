import builtins
import shutil

import pytest

from prefect_dask_core import (
    Flow,
    Parameter,
    SequentialTaskRunner,
    flatten,
    states,
    task,
)
from prefect_dask_core.drawing import MOST_CHILDREN, color_of, picture_of
from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.signals import SKIP
from prefect_dask_core.states import State
from prefect_dask_core.tasks import Task


@task
def numbers(count):
    return list(range(count))


@task
def inverse(x):
    if x == 3:
        raise SKIP
    return 1 / x


@task
def plus(x, y=1):
    return x + y


@task
def total(xs):
    return sum(xs)


def mapped_flow():
    with Flow("mapped") as flow:
        inverses = inverse.map(numbers(Parameter("count")))
        total(plus.map(inverses))
    return flow


def after(flow, **parameters):
    return flow.run(parameters, task_runner=SequentialTaskRunner())


def lines_of(flow, state=None):
    return [line.strip() for line in flow.to_mermaid(state).splitlines()]


# -- what is drawn -----------------------------------------------------------------


def test_there_is_one_shape_per_task_and_one_arrow_per_edge():
    flow = mapped_flow()
    picture = picture_of(flow)
    assert [(n.id, n.lines, n.box) for n in picture.nodes] == [
        ("count", ("count",), False),
        ("numbers-1", ("numbers",), False),
        ("inverse-1", ("inverse <map>",), True),
        ("plus-1", ("plus <map>",), True),
        ("total-1", ("total",), False),
    ]
    assert [(e.start, e.end, e.label, e.dashed) for e in picture.edges] == [
        ("count", "numbers-1", "count", False),
        ("numbers-1", "inverse-1", "x", True),
        ("inverse-1", "plus-1", "x", True),
        ("plus-1", "total-1", "xs", False),
    ]


def test_constants_of_inputs_are_not_drawn():
    with Flow("f") as flow:
        plus(1, 2)
    assert len(picture_of(flow).nodes) == 1


def test_few_children_are_drawn_one_by_one():
    flow = mapped_flow()
    picture = picture_of(flow, after(flow, count=4))
    drawn = {node.id: node for node in picture.nodes}
    kinds = [drawn[f"inverse-1[{i}]"].state for i in range(4)]
    assert kinds == ["Failed", "Completed", "Completed", "Skipped"]
    assert drawn["inverse-1[0]"].lines == ("inverse[0]",)
    assert drawn["inverse-1[0]"].box
    arrows = {(edge.start, edge.end) for edge in picture.edges}
    assert ("numbers-1", "inverse-1[2]") in arrows
    assert ("inverse-1[2]", "plus-1[2]") in arrows
    assert ("inverse-1[2]", "plus-1[1]") not in arrows
    assert ("plus-1[2]", "total-1") in arrows


@pytest.mark.parametrize("count", [MOST_CHILDREN, MOST_CHILDREN + 1])
def test_many_children_are_counted_in_one_shape(count):
    flow = mapped_flow()
    picture = picture_of(flow, after(flow, count=count))
    found = [node for node in picture.nodes if node.id.startswith("inverse")]
    if count == MOST_CHILDREN:
        assert len(found) == count
    else:
        ((node),) = found
        assert node.lines[0] == "inverse <map>"
        assert sorted(node.lines[1].split(", ")) == [
            "1 Failed",
            "1 Skipped",
            f"{count - 2} Completed",
        ]
        assert node.state == "Failed"


def test_a_million_children_are_one_shape():
    with Flow("f") as flow:
        many = plus.map(numbers(3))
    children = [states.Completed()] * 1_000_000
    state = State(states={many: states.Mapped(states=children)})
    (_, node) = picture_of(flow, state).nodes
    assert node.lines == ("plus <map>", "1000000 Completed")


def test_children_of_flattened_inputs_are_joined_to_all():
    with Flow("f") as flow:
        nested = Task(lambda n: [n, n], name="nest").map([1, 2])
        plus.map(flatten(nested))
    picture = picture_of(flow, after(flow))
    assert len([edge for edge in picture.edges if edge.dashed]) == 2 * 4 + 2


def test_an_empty_fan_out_and_one_that_could_not_begin_are_one_shape():
    flow = mapped_flow()
    drawn = {n.id: n for n in picture_of(flow, after(flow, count=0)).nodes}
    assert drawn["inverse-1"].lines == ("inverse <map>", "no children")
    assert drawn["inverse-1"].state == "Mapped"
    drawn = {n.id: n for n in picture_of(flow, after(flow, count="x")).nodes}
    assert drawn["inverse-1"].state == "TriggerFailed"


def test_a_state_without_tasks_is_refused_and_unknown_tasks_have_no_colour():
    flow = mapped_flow()
    with pytest.raises(OptionTypeError, match="no states of tasks"):
        flow.to_mermaid(states.Completed())
    assert all(node.state is None for node in picture_of(flow, State(states={})).nodes)


def test_text_is_readable_on_every_colour():
    for kind in State.children():
        if kind.__module__ != State.__module__:
            continue  # of other tests
        fill, text = color_of(kind.__name__)
        assert fill == kind.color
        assert text in ("#000000", "#ffffff")
    assert color_of("Pending")[1] == "#000000"
    assert color_of("Cached")[1] == "#ffffff"


# -- Mermaid -----------------------------------------------------------------------


def test_a_flow_is_text_for_mermaid():
    assert mapped_flow().to_mermaid() == "\n".join(
        [
            "flowchart TD",
            '    count(["count"])',
            '    numbers_1(["numbers"])',
            '    inverse_1["inverse #lt;map#gt;"]',
            '    plus_1["plus #lt;map#gt;"]',
            '    total_1(["total"])',
            '    count -->|"count"| numbers_1',
            '    numbers_1 -.->|"x"| inverse_1',
            '    inverse_1 -.->|"x"| plus_1',
            '    plus_1 -->|"xs"| total_1',
        ]
    )


def test_states_are_classes_for_mermaid():
    flow = mapped_flow()
    lines = lines_of(flow, after(flow, count=2))
    assert "classDef Failed fill:#d55e00,color:#000000" in lines
    assert "class inverse_1_0 Failed" in lines
    assert "classDef Completed fill:#009e73,color:#000000" in lines
    assert "class count,numbers_1,inverse_1_1,plus_1_1 Completed" in lines


def test_ids_are_words_that_mean_nothing_to_mermaid():
    with Flow("f") as flow:
        for name in ("end", "Class", "a b", "a-b", "ü", "x[0]"):
            Parameter(name)()
    ids = [line.split("([")[0] for line in lines_of(flow)[1:]]
    assert ids == ["end_", "Class_", "a_b", "a_b_2", "task", "x_0"]


def test_labels_are_escaped_for_mermaid():
    with Flow("f") as flow:
        Task('a"b#c&d<e>`f`\n g')()
    text = "a#quot;b#35;c#amp;d#lt;e#gt;#96;f#96; g"
    assert lines_of(flow)[1].endswith(f'(["{text}"])')


# -- Graphviz ----------------------------------------------------------------------


def test_a_flow_is_a_graph_for_graphviz():
    pytest.importorskip("graphviz")
    source = mapped_flow().visualize().source
    assert 'n2 [label="inverse <map>" shape=box tooltip="inverse-1"]' in source
    assert "n1 [label=numbers shape=ellipse" in source
    assert "n1 -> n2 [label=x style=dashed]" in source
    assert "n0 -> n1 [label=count]" in source
    assert "rankdir" not in source
    assert "rankdir=LR" in mapped_flow().visualize(horizontal=True).source


def test_states_are_colours_for_graphviz():
    pytest.importorskip("graphviz")
    flow = mapped_flow()
    source = flow.visualize(after(flow, count=2)).source
    assert 'label="inverse[0]"' in source
    assert 'fillcolor="#d55e00"' in source
    assert 'fontcolor="#000000"' in source


def test_labels_are_escaped_for_graphviz():
    pytest.importorskip("graphviz")
    with Flow("odd / name") as flow:
        Task('<b>"x"\\n</b>')()
        Task("a:b", slug="a:b")() | plus(1)
    source = flow.visualize().source
    assert r'label="<b>\"x\"\\n</b>"' in source
    assert "n1 -> n2" in source
    assert source.startswith("digraph " + '"odd-name"')


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "graphviz":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'prefect_dask_core\[viz\]'"):
        mapped_flow().visualize()


@pytest.mark.skipif(shutil.which("dot") is None, reason="the program dot is missing")
@pytest.mark.parametrize(
    ("filename", "format", "written", "begin"),
    [
        ("flow.svg", None, "flow.svg", b"<?xml"),
        ("flow", None, "flow.pdf", b"%PDF"),
        ("flow", "png", "flow.png", b"\x89PNG"),
        ("flow.png", "svg", "flow.png.svg", b"<?xml"),
        ("flow.v2", None, "flow.v2.pdf", b"%PDF"),
    ],
)
def test_a_picture_is_written_into_a_file(tmp_path, filename, format, written, begin):
    pytest.importorskip("graphviz")
    flow = mapped_flow()
    state = after(flow, count=30)
    flow.visualize(state, filename=str(tmp_path / filename), format=format)
    assert [path.name for path in tmp_path.iterdir()] == [written]
    assert (tmp_path / written).read_bytes().startswith(begin)
