"""Records: what goes into the ledger, and what is read from it, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known of a flow run.

    Parameters
    ----------
    id : str
        Its id, hexadecimal.
    flow : str
        Name of the flow.
    name : str
        Name of the run.
    kind : str
        ``"graph"`` or ``"function"``: whether the flow is a graph or a function.
    version : str or None
        Version of the flow.
    source : str or None
        Where the flow is defined, as ``"etl.py:flow"``.
    runner : str
        What ran it.
    state, message : str or None
        Name of its state; ``"Running"`` until its end was written. Its message.
    begin, end : float or None
        Seconds since the epoch: begin of the first attempt, and end of the last one.
    attempt_begin : float
        When the last attempt began; that of a run that was never resumed is `begin`.
    seconds_before : float
        How long the attempts before the last one took together; of one that died, to
        its last sign of life.
    seen : float
        When its client last wrote.
    attempt : int
        Number of the last attempt, 1 of a run that was never resumed: so many there
        were.
    parent, parent_task, root : str or None
        Ids of the flow run and the task run around it, and of the outermost flow run.
    tags : tuple of str
        Tags of the blocks around it.
    logs : tuple of str
        Files that its logs were written to.
    host, process : str and int
        Where its client runs.
    counts : mapping of str to int
        Number of task runs by the name of their state.
    """

    id: str
    flow: str
    name: str
    kind: str
    version: str | None = None
    source: str | None = None
    runner: str = ""
    state: str = "Running"
    message: str | None = None
    begin: float = 0.0
    end: float | None = None
    seen: float = 0.0
    attempt: int = 1
    parent: str | None = None
    parent_task: str | None = None
    root: str | None = None
    tags: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    host: str = ""
    process: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    attempt_begin: float = 0.0
    seconds_before: float = 0.0

    @property
    def seconds_between(self) -> float:
        """How long nobody worked at it, from the first attempt to the last one."""
        return max(0.0, self.attempt_begin - self.begin - self.seconds_before)

    def seconds(self, now: float | None = None) -> float:
        """How long all attempts took together, without the time between them.

        Parameters
        ----------
        now : float, optional
            Seconds since the epoch, for a run that goes on; else it counts to its end,
            or to its last sign of life.

        Examples
        --------
        >>> run = RunRecord(
        ...     "7c0f", "etl", "etl", "graph", begin=10.0, end=95.0, attempt=2,
        ...     attempt_begin=90.0, seconds_before=4.0,
        ... )
        >>> run.seconds()
        9.0
        """
        end = self.end if self.end is not None else now
        last = (self.seen if end is None else end) - self.attempt_begin
        return self.seconds_before + max(0.0, last)


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt at a flow run: the first, or one that resumed it.

    Parameters
    ----------
    number : int
        Counted from 1.
    begin, end : float or None
        Seconds since the epoch; the last attempt may have no end yet. One that died
        ended with its last sign of life, as is written when the next one begins.
    state, message : str or None
        How it ended; ``"Lost"`` if it died.
    runner, host, process : str, str and int
        Where it ran.
    """

    number: int
    begin: float
    end: float | None
    state: str
    message: str | None
    runner: str
    host: str
    process: int


@dataclass(frozen=True, slots=True)
class InputRecord:
    """One edge of the graph: an input of a node that another node gives.

    Parameters
    ----------
    key : str or None
        Parameter of the body; `None` where only the order matters.
    above : str
        Slug of the node above.
    mapped, flattened : bool
        Whether it is taken element by element, and unnested first.
    """

    key: str | None
    above: str
    mapped: bool = False
    flattened: bool = False


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node of a run.

    Parameters
    ----------
    number : int
        Its number in its attempt.
    slug : str
        What names it in the run, as ``"load-3"``.
    task : str
        Name of its task.
    mapped : bool
        Whether it expands into children.
    length : int or None
        Number of children, once it is known.
    inputs : tuple of InputRecord
        What it reads.
    helper : bool
        Whether the package made it, such as the list of an argument.
    made_of : str or None
        Digests of its constants and its source, see `made_of`; `None` if unknown.
    """

    number: int
    slug: str
    task: str
    mapped: bool
    length: int | None = None
    inputs: tuple[InputRecord, ...] = ()
    helper: bool = False
    made_of: str | None = None


@dataclass(frozen=True, slots=True)
class DetailRecord:
    """What a state says of some runs, where its name alone says too little.

    Parameters
    ----------
    node : int
        Number of the node in its attempt.
    indexes : str
        Children that it is said of, as ``"3-5,9"``; empty of a plain node.
    count : int
        How many runs they are.
    state : str
        Class of the state.
    name : str
        Name of the state.
    message : str or None
        Its message.
    error, text, traceback : str or None
        Class, text and traceback of the exception.
    """

    node: int
    indexes: str
    count: int
    state: str
    name: str
    message: str | None = None
    error: str | None = None
    text: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class ParameterRecord:
    """One parameter of a flow run.

    Parameters
    ----------
    name : str
        Its name.
    told : str
        Its value for people, shortened.
    blob : bytes or None
        Its value, pickled; `None` if it was not kept.
    """

    name: str
    told: str
    blob: bytes | None = None


@dataclass(frozen=True, slots=True)
class AssetRecord:
    """What one run did to one asset.

    Parameters
    ----------
    key : str
        Key of the asset, a URI.
    event : str
        ``"succeeded"``, ``"failed"`` or ``"referenced"``.
    run : str
        Name of the task run.
    upstream : tuple of str
        Keys of the assets it was made of.
    by : str or None
        Tool that made it.
    metadata : mapping of str to object
        What the body added.
    """

    key: str
    event: str
    run: str
    upstream: tuple[str, ...] = ()
    by: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
