"""Static graphs: `flow.run` beside `client.get` of the same graph.

Both sides compute the same small sums over the same edges on the same cluster, both
give the values of the nodes at the end, and these are compared. Reading them is part
of the time.

The keys of the raw graph are named as `dask.delayed` names them, function name and
token, which makes one group per function. Dask's scheduler looks at groups: it hands
out a large group of root tasks piecemeal ("root-ish" tasks, the setting
``distributed.scheduler.worker-saturation``), and our keys are grouped by task name, so
both sides are treated alike. A raw graph with all keys in one group has no root-ish
tasks, unless it is wide; it is measured as well, without a bar.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from dask._task_spec import Task as GraphTask
from dask._task_spec import TaskRef

from benchmarks.bench import Bench
from benchmarks.comparison import Bar, Measurement, Pair, in_turns, seconds
from prefect_dask_core import Flow, Task

#: Per node, the nodes it reads; all of lower numbers.
Edges = Sequence[Sequence[int]]

BAR: Final = Bar("ratio", 1.15)
#: Pairs per kind of graph; a raw chain takes minutes.
ROUNDS: Final = {"wide": 4, "tree": 4, "random": 4, "chain": 2}


def measure(bench: Bench) -> Iterator[Measurement]:
    """Each kind of graph, and what building it as a flow costs."""
    count = bench.choose(5_000, 200)
    for kind, full in ROUNDS.items():
        edges = EDGES[kind](count)
        rounds = bench.choose(full, 2)
        build, flow, nodes = built_flow(edges)
        ours = partial(time_flow, bench, flow, nodes, edges)
        what = f"{kind} graph, {count:,} nodes; peer: client.get"
        peer = partial(time_raw, bench, edges, key_per_function)
        yield Measurement(what, "s", in_turns(ours, peer, rounds), BAR)
        peer = partial(time_raw, bench, edges, key_in_one_group)
        pairs = in_turns(ours, peer, rounds // 2, warm_up=0)
        yield Measurement("  with the peer's keys in one group", "s", pairs)
        build_pair = Pair(1e6 * build / count)
        yield Measurement("  building the flow", "µs per task", (build_pair,))


# -- graphs --------------------------------------------------------------------------


def wide(count: int) -> Edges:
    """Nodes that read nothing."""
    return [[] for _ in range(count)]


def chain(count: int) -> Edges:
    """Each node reads the one before.

    Examples
    --------
    >>> chain(3)
    [[], [0], [1]]
    """
    return [[i - 1] if i else [] for i in range(count)]


def tree(count: int) -> Edges:
    """Half of the nodes are leaves; the others read two each, down to one.

    Examples
    --------
    >>> tree(7)
    [[], [], [], [], [0, 1], [2, 3], [4, 5]]
    """
    leaves = (count + 1) // 2
    pairs = [(2 * i, 2 * i + 1) for i in range(count - leaves)]
    inner = [
        [above for above in pair if above < leaves + i] for i, pair in enumerate(pairs)
    ]
    return [[] for _ in range(leaves)] + inner


def scattered(count: int) -> Edges:
    """Each node reads up to three of all nodes before it; always the same ones."""
    chance = random.Random(1)
    return [
        sorted(chance.sample(range(i), min(i, chance.randrange(4))))
        for i in range(count)
    ]


EDGES: Final[dict[str, Callable[[int], Edges]]] = {
    "wide": wide,
    "tree": tree,
    "random": scattered,
    "chain": chain,
}


def last_nodes(edges: Edges) -> list[int]:
    """Nodes that no other reads.

    Examples
    --------
    >>> last_nodes([[], [], [0]])
    [1, 2]
    """
    read = {above for node in edges for above in node}
    return [node for node in range(len(edges)) if node not in read]


# -- bodies, by the number of their inputs --------------------------------------------


def one() -> int:
    """Body of a node that reads nothing."""
    return 1


def add_one(first: int) -> int:
    """Body of a node that reads one other."""
    return first + 1


def add_two(first: int, second: int) -> int:
    """Body of a node that reads two others."""
    return first + second


def add_three(first: int, second: int, third: int) -> int:
    """Body of a node that reads three others."""
    return first + second + third


BODIES: Final[tuple[Callable[..., int], ...]] = (one, add_one, add_two, add_three)
TASKS: Final = tuple(Task(body) for body in BODIES)


# -- our side ------------------------------------------------------------------------


def built_flow(edges: Edges) -> tuple[float, Flow, list[Task]]:
    """Seconds it took to build a flow, the flow, and its task per node."""
    nodes: list[Task] = []
    flow = Flow("static graph")

    def build() -> None:
        with flow:
            for above in edges:
                nodes.append(TASKS[len(above)](*[nodes[i] for i in above]))

    return seconds(build), flow, nodes


def time_flow(bench: Bench, flow: Flow, nodes: Sequence[Task], edges: Edges) -> float:
    """Seconds from the start of a run to the values of its last nodes."""
    last = last_nodes(edges)
    values: list[Any] = []

    def run() -> None:
        state = flow.run(task_runner=bench.runner)
        values.extend(state[nodes[i]].result() for i in last)

    bench.settle()
    took = seconds(run)
    check_values(values, edges, "flow.run")
    return took


# -- the other side ------------------------------------------------------------------

KeyOf = Callable[[str, int, str], Any]


def key_per_function(token: str, node: int, function: str) -> Any:
    """Key as `dask.delayed` makes it: a group per function."""
    return f"{function}-{uuid.uuid4()}"


def key_in_one_group(token: str, node: int, function: str) -> Any:
    """Key that puts all nodes of a graph in one group."""
    return f"node-{token}", node


def time_raw(bench: Bench, edges: Edges, key_of: KeyOf) -> float:
    """Seconds of `client.get` for the values of the last nodes.

    Making the graph is not part of it, as making the flow is not part of ours.
    """
    graph, keys = raw_graph(edges, key_of)
    last = [keys[i] for i in last_nodes(edges)]
    values: list[Any] = []
    bench.settle()
    took = seconds(lambda: values.extend(bench.client.get(graph, last)))
    check_values(values, edges, "client.get")
    return took


def raw_graph(edges: Edges, key_of: KeyOf) -> tuple[dict[Any, GraphTask], list[Any]]:
    """Graph in Dask's own terms, and its key per node."""
    token = uuid.uuid4().hex
    keys = [
        key_of(token, node, BODIES[len(above)].__name__)
        for node, above in enumerate(edges)
    ]
    graph = {
        keys[node]: GraphTask(
            keys[node], BODIES[len(above)], *[TaskRef(keys[i]) for i in above]
        )
        for node, above in enumerate(edges)
    }
    return graph, keys


# -- both ----------------------------------------------------------------------------


def plain_values(edges: Edges) -> list[int]:
    """Value of each node, by a plain loop.

    Examples
    --------
    >>> plain_values([[], [0], [0, 1]])
    [1, 2, 3]
    """
    values: list[int] = []
    for above in edges:
        values.append(BODIES[len(above)](*[values[i] for i in above]))
    return values


def check_values(values: Sequence[int], edges: Edges, side: str) -> None:
    """Raise if a side did not compute what a plain loop computes."""
    plain = plain_values(edges)
    expected = [plain[i] for i in last_nodes(edges)]
    if list(values) != expected:
        raise RuntimeError(f"{side} gave other values than a plain loop does.")
