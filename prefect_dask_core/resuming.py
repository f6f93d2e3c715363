"""Resuming: what the ledger knows of a run that is to go on under its own id.

Two memories are asked when a run is resumed. The ledger says which task runs ended and
how, so that what nobody needs again is not even submitted. The store has the values,
and each task run looks there for its own: so nothing depends on the last batch that a
client wrote before it died.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import psutil

from prefect_dask_core.engine.columns import STATE_BY_CODE, Children, Segment
from prefect_dask_core.engine.plan import Node, Plan
from prefect_dask_core.errors import ResumeError
from prefect_dask_core.ledger import Ledger, LedgerRun, NodeRecord, RunRecord
from prefect_dask_core.ledger.columns import indexes_in
from prefect_dask_core.recording import SIGN_OF_LIFE
from prefect_dask_core.states import Mapped, Missing, State

_LOGGER: Final = logging.getLogger(__name__)

_CLASS_BY_NAME: Final = {state.__name__: state for state in STATE_BY_CODE}
_CODE_BY_NAME: Final = {
    state.__name__: code for code, state in enumerate(STATE_BY_CODE)
}
_MISSING: Final = Missing(
    "the run completed before it was resumed, and its value was not stored; with "
    "persist_result=True it would have been."
)


class Edge(NamedTuple):
    """An input of a node, as two runs compare it."""

    key: str | None
    above: str
    mapped: bool
    flattened: bool


@dataclass(frozen=True, slots=True)
class Resumption:
    """A run that goes on under its id.

    Parameters
    ----------
    run_id : str
        Its id, hexadecimal.
    first : LedgerRun or None
        What the ledger knows; `None` if nothing is recorded: then the store alone
        says what need not run again.
    """

    run_id: str
    first: LedgerRun | None = None

    @property
    def name(self) -> str | None:
        """Name of the run, as far as it is known."""
        return None if self.first is None else self.first.record.name

    def parameters(
        self, given: Mapping[str, Any], declared: Collection[str]
    ) -> dict[str, Any]:
        """Parameters of the first run, and those that are given now.

        Parameters
        ----------
        given : mapping of str to object
            Those that are given now.
        declared : collection of str
            Those that the flow has now.

        Raises
        ------
        ResumeError
            If one was not kept and is not given.
        """
        if self.first is None:
            return dict(given)
        known = self.first.parameters()
        for name, told in self.first.parameters_told.items():
            if name in declared and name not in known and name not in given:
                raise ResumeError(
                    f"run {self.run_id} cannot be resumed without its parameter "
                    f"{name!r}, which the ledger does not have ({told}); give it "
                    "beside resume=."
                )
        first = {name: value for name, value in known.items() if name in declared}
        return {**first, **given}


def find_run(
    ledger: Ledger | None, flow: str, kind: str, asked: str | uuid.UUID
) -> Resumption:
    """Find a run that is to be resumed.

    Parameters
    ----------
    ledger : Ledger or None
        Where it may be recorded.
    flow, kind : str
        Name of the flow that resumes it; ``"graph"`` or ``"function"``.
    asked : str or uuid.UUID
        Its id; in a ledger its first characters will do.

    Raises
    ------
    UnknownRunError
        If the ledger has no such run, or several.
    ResumeError
        If it is of another flow, or still runs; without a ledger, if it is no id.
    """
    if ledger is None:
        try:
            return Resumption(uuid.UUID(str(asked)).hex)
        except ValueError:
            raise ResumeError(
                f"flow {flow!r} cannot resume {asked!r}: without a ledger only a whole "
                "id, 32 hexadecimal digits, says which run is meant."
            ) from None
    first = ledger.run(str(asked))
    record = first.record
    if (record.flow, record.kind) != (flow, kind):
        what = f"flow {record.flow!r}"
        if record.flow == flow:
            what = f"a {record.kind} flow of the same name"
        raise ResumeError(
            f"flow {flow!r} cannot resume run {record.id}, which is one of {what}."
        )
    if is_alive(record, time.time()):
        raise ResumeError(
            f"run {record.id} of flow {flow!r} still runs, in process "
            f"{record.process} on {record.host}; it can be resumed when that has ended"
            f" (elsewhere, {3 * SIGN_OF_LIFE:g} s after its last sign of life)."
        )
    return Resumption(record.id, first)


def is_alive(record: RunRecord, now: float) -> bool:
    """Whether the client of a run that has no end still seems to run it.

    Parameters
    ----------
    record : RunRecord
        The run.
    now : float
        Seconds since the epoch.
    """
    if record.end is not None:
        return False
    if record.host != socket.gethostname():
        return now - record.seen < 3 * SIGN_OF_LIFE
    if record.process == os.getpid():
        return now - record.seen < 3 * SIGN_OF_LIFE
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(record.process)
        # Else another process has its number by now.
        older = found.create_time() <= record.begin + 1.0
        return older and found.status() != psutil.STATUS_ZOMBIE
    return False


# -- what differs ------------------------------------------------------------------


def edges_of(node: Node, slug_of: Mapping[int, str]) -> frozenset[Edge]:
    """Inputs of a node that other nodes give."""
    return frozenset(
        Edge(item.key, slug_of[item.node], item.mapped, item.flattened)
        for item in node.inputs
        if item.node is not None and item.node in slug_of
    )


def difference(
    now: tuple[str, bool, frozenset[Edge]], before: NodeRecord
) -> str | None:
    """In what a node differs from that of the first run; `None`: in nothing.

    Parameters
    ----------
    now : (str, bool, frozenset of Edge)
        Name of its task, whether it is mapped, and its inputs.
    before : NodeRecord
        What the ledger has.
    """
    task, mapped, edges = now
    if task != before.task:
        return f"it was a run of task {before.task!r}, and is one of {task!r}"
    if mapped != before.mapped:
        return "it was mapped" if before.mapped else "it was not mapped"
    earlier = frozenset(Edge(*i.__reduce_ex__(2)) for i in ()) | frozenset(
        Edge(i.key, i.above, i.mapped, i.flattened) for i in before.inputs
    )
    if edges == earlier:
        return None
    gone, new = _told(earlier - edges), _told(edges - earlier)
    told = [f"it read {gone}"] if gone else []
    told += [f"it reads {new} now"] if new else []
    return " and ".join(told)


def _told(edges: Iterable[Edge]) -> str:
    return ", ".join(
        sorted(f"{edge.above} as {edge.key or 'what comes first'}" for edge in edges)
    )
