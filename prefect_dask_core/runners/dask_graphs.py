"""Graphs of blocks, as the scheduler is given them: layers with annotations."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from dask.base import get_annotations
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed import span

from prefect_dask_core.engine.compile import GraphBuilder
from prefect_dask_core.engine.events import Assignment
from prefect_dask_core.runners.stranded import Strandings


class Graphs:
    """Makes the graphs of one run.

    Parameters
    ----------
    builder : GraphBuilder
        Makes the tasks of the graph.
    name : str
        What the names of the layers begin with.
    flow : str
        Name of the flow, for the span that Dask shows it as.
    """

    def __init__(self, builder: GraphBuilder, name: str, flow: str) -> None:
        self._builder = builder
        self._name = name
        self._span = _span_of(flow)

    def made_of(
        self, assignments: Sequence[Assignment], strandings: Strandings
    ) -> HighLevelGraph:
        """Graph of some blocks: a layer for each kind of annotations.

        Layers also because a bare dict is tokenized first, task by task.

        Parameters
        ----------
        assignments : sequence of Assignment
            The blocks, each after those it reads.
        strandings : Strandings
            Where blocks that ask for certain workers are noted.
        """
        groups: dict[str, tuple[Mapping[str, Any], dict[Any, Any]]] = {
            "": (self._span, {})
        }
        around = get_annotations()
        # In their order, because a block refers to the keys of those before it.
        for assignment in assignments:
            found = assignment.annotations
            if around:
                found = {**around, **found}
            label = repr(sorted(found.items())) if found else ""
            _, graph = groups.setdefault(label, ({**found, **self._span}, {}))
            # What several blocks share is bound to no place.
            self._builder.add(assignment, graph, groups[""][1])
            if found:
                key = self._builder.key(assignment.block.number)
                task = assignment.block.steps[-1].task.name
                strandings.note(key, task, found, time.monotonic())
        layers = {
            f"{self._name}-{number}": MaterializedLayer(
                graph, annotations=dict(annotations)
            )
            for number, (annotations, graph) in enumerate(groups.values())
            if graph
        }
        return HighLevelGraph(layers, {name: set() for name in layers})


def _span_of(flow_name: str) -> Mapping[str, Any]:
    """Annotation of all graphs of a flow, which Dask shows as one span.

    Without one the scheduler keeps a span for each time that it was idle before. It
    never forgets a span, so all runs of a flow share one: its id is made of the name.
    """
    with span(flow_name):
        found = get_annotations()["span"]
    *around, _ = found["ids"]
    own = uuid.uuid5(uuid.NAMESPACE_OID, repr((around, flow_name)))
    return {"span": {**found, "ids": (*around, str(own))}}
