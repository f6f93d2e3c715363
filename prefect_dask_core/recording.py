"""Recording: how a flow run gets into the ledger.

A watcher beside the run hands on what is new, a few times a second; it reads what the
runner knows anyway, so recording adds nothing to what a driver does.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Final

import cloudpickle
from dask.sizeof import sizeof

from prefect_dask_core.config import default_ledger, ledger_url
from prefect_dask_core.diagnostics import is_secret
from prefect_dask_core.engine.codes import STATE_BY_CODE, code_of
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.views import NodeView, RunView
from prefect_dask_core.errors import OptionTypeError
from prefect_dask_core.ledger import (
    PLAIN,
    Batch,
    DetailRecord,
    InputRecord,
    Kept,
    Ledger,
    NodeRecord,
    ParameterRecord,
    RunRecord,
    RunWriter,
    Span,
)
from prefect_dask_core.ledger import AssetRecord as AssetRow
from prefect_dask_core.ledger.columns import ranges_of
from prefect_dask_core.lineage import AssetRecord
from prefect_dask_core.monitor.watching import Maker, News
from prefect_dask_core.results.kept import KeptValues
from prefect_dask_core.results.places import own_name
from prefect_dask_core.states import State
from prefect_dask_core.traces import trace_of

_LOGGER: Final = logging.getLogger(__name__)

#: Names of state classes, by code.
NAMES: Final = tuple(state.__name__ for state in STATE_BY_CODE)
#: Seconds after which a run of which nothing is new says that it still lives.
SIGN_OF_LIFE: Final = 5.0
#: Largest parameter that is kept, in bytes: values belong into a store.
LARGEST_PARAMETER: Final = 1 << 20
#: Longest text of a parameter, in characters.
_LONGEST_TOLD: Final = 200
#: Context variable: the ledger of the function flow around; `False`: it has none.
LEDGER: Final = "_ledger"
#: What may be said of the ledger of a run.
Asked = Ledger | str | os.PathLike[str] | bool | None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run besides what its view tells.

    Parameters
    ----------
    kind : str
        ``"graph"`` or ``"function"``.
    flow : object
        The flow.
    runner : object
        What runs it.
    version : str or None
        Version of the flow.
    root : str or None
        Id of the outermost flow run.
    tags : frozenset of str
        Tags of the blocks around it.
    made_of : callable, optional
        Gives, by slug, what nodes are made of, as the ledger has it; called once,
        beside the run.
    """

    kind: str
    flow: Any
    runner: Any
    version: str | None = None
    root: str | None = None
    tags: frozenset[str] = frozenset()
    made_of: Callable[[], Mapping[str, str]] = dict


def check_ledger(flow: str, asked: object) -> None:
    """Refuse what says nothing of a ledger.

    Raises
    ------
    OptionTypeError
        If it is nothing of `Asked`; also a `TypeError`.
    """
    if asked is not None and not isinstance(asked, Ledger | str | os.PathLike | bool):
        raise OptionTypeError(
            f"flow {flow!r}: ledger={asked!r}, but expected a Ledger, the path or URL "
            "of one, True, False, or None for what dask.config says under "
            "prefect-dask-core.ledger.url."
        )


@functools.lru_cache(maxsize=8)
def _opened(url: str, process: int) -> Ledger:
    return Ledger(url)


def ledger_of(flow: str, asked: Asked) -> Ledger | None:
    """The ledger of a run; `None` if it is not recorded.

    Parameters
    ----------
    flow : str
        Name of the flow, for messages.
    asked : Ledger, str, path, bool or None
        What was asked for: a ledger, its URL or file; `True` for that of
        `dask.config`, or if it names none the default file; `None` for that of
        `dask.config`, if any.

    Raises
    ------
    LedgerError
        If it cannot be opened.
    OptionTypeError
        If `asked` is something else; also a `TypeError`.
    """
    check_ledger(flow, asked)
    if isinstance(asked, Ledger):
        return asked
    if asked is None or asked is True:
        url = ledger_url() or (default_ledger() if asked else None)
    else:
        url = None if asked is False else os.fspath(asked)
    # A connection does not outlive a fork, nor does an engine that has one.
    if url is None:
        return None
    found = _opened(url, os.getpid())
    if found.is_gone:  # a notebook, say, in which somebody tidies up
        _opened.cache_clear()
        found = _opened(url, os.getpid())
    return found


def recorder_of(
    ledger: Ledger, view: RunView, facts: RunFacts, after: int | None = None
) -> Maker:
    """What records a run.

    Parameters
    ----------
    ledger : Ledger
        Where to.
    view : RunView
        The run.
    facts : RunFacts
        What else is known.
    after : int, optional
        Of a run that is resumed, the attempt that it goes on after; it is entered now,
        and not by its watch, so that nobody else resumes it.
    """
    recorder = Recorder(ledger, view, facts)
    if after is not None:
        recorder.begin(after)
    return lambda view: recorder


class Recorder:
    """Writes one run into a ledger; a `monitor.watching.Watcher`.

    Parameters
    ----------
    ledger : Ledger
        Where to.
    view : RunView
        The run.
    facts : RunFacts
        What else is known.
    """

    def __init__(self, ledger: Ledger, view: RunView, facts: RunFacts) -> None:
        self._facts = facts
        self._fan_outs: set[int] = set()
        self._slugs: list[str] = []
        self._made_of: Mapping[str, str] | None = None
        self._counts: Counter[str] = Counter()
        self._wrote = 0.0
        self._last = Batch()
        self._writer = RunWriter(
            ledger.engine,
            _record_of(view, facts),
            list(_parameters_of(view.info.parameters)),
        )

    def __repr__(self) -> str:
        return "the ledger"

    def begin(self, after: int) -> None:
        """Enter the run at once; raises if that cannot be done.

        Parameters
        ----------
        after : int
            Attempt that it goes on after.

        Raises
        ------
        LedgerError
            If the ledger cannot be written.
        ResumeError
            If the run has begun again meanwhile.
        """
        self._find_source()
        self._writer.begin(after)

    def began(self, view: RunView) -> None:
        """Enter the run."""
        if not self._writer.attempt:
            self._find_source()
        self._write(Batch())

    def _find_source(self) -> None:
        # In the watch's thread where that is possible: it takes a millisecond or two.
        source = _source_of(self._facts.flow)
        self._writer.record = replace(self._writer.record, source=source)

    def advanced(self, view: RunView, news: News) -> None:
        """Write what is new; what is the last of it, with the end of the run."""
        batch = self._batch(view, news)
        if news.are_last:
            self._last = batch
            return
        quiet = time.time() - self._wrote
        if batch or self._writer.is_behind or quiet > SIGN_OF_LIFE:
            self._write(batch)

    def ended(self, view: RunView, state: State) -> None:
        """Write how the run ended."""
        batch = self._last
        batch.assets += _assets_of(state)
        told = state.message
        done = self._writer.end(
            batch, self._counts, time.time(), type(state).__name__, told
        )
        if not done:
            _LOGGER.warning(
                "run %s ended as %r, but the ledger could not be told; it lacks what "
                "was said above to be missing",
                view.info.run_id,
                state,
            )

    def close(self) -> None:
        """Close the connection, for which SQLite takes some milliseconds."""
        self._writer.close()

    def _write(self, batch: Batch) -> None:
        self._wrote = time.time()
        self._writer.write(batch, self._counts, self._wrote)

    def _batch(self, view: RunView, news: News) -> Batch:
        self._fan_outs.update(news.fan_outs)
        lengths = {number: _length(view, number) for number in news.fan_outs}
        batch = Batch(names=NAMES)
        for node in news.nodes:
            self._slugs.append(node.slug)
            batch.nodes.append(self._node(node, lengths.pop(node.number, None)))
        batch.lengths.update(lengths)
        groups: dict[tuple[int, bool, tuple[Any, ...]], list[int]] = {}
        for number, segment in news.segments:
            mapped = number in self._fan_outs
            batch.spans.append(_span(number, segment, mapped))
            codes = bytes(segment.codes)
            alike = codes == codes[:1] * len(codes)
            for code in codes[:1] if alike else set(codes):
                count = len(codes) if alike else codes.count(code)
                self._counts[NAMES[code]] += count
            for offset, state in segment.details.items():
                key = number, mapped, _told(state)
                groups.setdefault(key, []).append(segment.start + offset)
        for (number, mapped, told), indexes in groups.items():
            ranges = ranges_of(indexes) if mapped else ""
            batch.details.append(DetailRecord(number, ranges, len(indexes), *told))
        return batch

    def _node(self, node: NodeView, length: int | None) -> NodeRecord:
        if self._made_of is None:
            self._made_of = self._facts.made_of()
        inputs = tuple(
            InputRecord(edge.key, self._slugs[edge.node], edge.mapped, edge.flattened)
            for edge in node.edges
        )
        return NodeRecord(
            node.number,
            node.slug,
            node.name,
            node.mapped,
            length,
            inputs,
            node.helper,
            self._made_of.get(node.slug),
        )


def _length(view: RunView, number: int) -> int:
    children = view.children(number)
    return 0 if children is None else len(children)


def _span(number: int, segment: Segment, mapped: bool) -> Span:
    return Span(
        number,
        segment.start if mapped else PLAIN,
        bytes(segment.codes),
        segment.begins,
        segment.ends,
        segment.attempts,
        segment.worker,
        None if segment.kept is None else _kept(segment.kept, len(segment)),
        segment.waits or {},
    )


def _kept(found: KeptValues, count: int) -> Kept | None:
    """Where the values of a segment are stored."""
    keys = []
    for offset in range(count):
        key = found.key(offset)
        index = None if found.start is None else found.start + offset
        is_own = key == found.prefix + own_name(index)
        keys.append("." if is_own else key or "")
    return Kept(found.store.url, found.prefix, keys) if any(keys) else None


def _told(state: State) -> tuple[str | None, ...]:
    """What a state says: class, name, message; class, text and trace of its error."""
    kind = STATE_BY_CODE[code_of(state)].__name__
    error = state.data if isinstance(state.data, BaseException) else None
    if error is None:
        return kind, state.name, state.message, None, None, None
    kept = type(error).__name__, str(error), trace_of(state)
    return kind, state.name, state.message, *kept


# -- what is known at the begin and at the end ---------------------------------------


def _record_of(view: RunView, facts: RunFacts) -> RunRecord:
    info = view.info
    return RunRecord(
        id=info.run_id,
        flow=info.flow_name,
        name=info.run_name,
        kind=facts.kind,
        version=facts.version,
        runner=told_runner(facts.runner),
        begin=info.begin,
        seen=info.begin,
        parent=info.parent_run_id,
        parent_task=info.parent_task_run_id,
        root=facts.root or info.run_id,
        tags=tuple(sorted(facts.tags)),
        logs=tuple(_log_files(view)),
        host=socket.gethostname(),
        process=os.getpid(),
    )


def told_runner(runner: Any) -> str:
    """Class of a runner, and where it runs; its arguments may hold secrets.

    Examples
    --------
    >>> from prefect_dask_core import DaskTaskRunner, SequentialTaskRunner
    >>> told_runner(SequentialTaskRunner())
    'SequentialTaskRunner'
    >>> told_runner(DaskTaskRunner(address="tcp://10.0.0.1:8786"))
    'DaskTaskRunner at tcp://10.0.0.1:8786'
    """
    name = type(runner).__name__
    cluster = getattr(runner, "cluster", None)
    place = (
        getattr(runner, "address", None)
        or getattr(cluster, "scheduler_address", None)
        # Of a client.
        or getattr(getattr(cluster, "scheduler", None), "address", None)
    )
    return f"{name} at {place}" if place else name


def _log_files(view: RunView) -> Iterator[str]:
    """Files that what is logged by this package, and by bodies, is written to."""
    found: dict[str, None] = {}
    if view.log_file is not None:
        found[str(view.log_file)] = None
    logger: logging.Logger | None = logging.getLogger("prefect_dask_core.flow_runs")
    while logger is not None:
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                found[handler.baseFilename] = None
        logger = logger.parent if logger.propagate else None
    found.pop(os.devnull, None)
    yield from found


def _parameters_of(given: Mapping[str, Any]) -> Iterator[ParameterRecord]:
    for name, value in given.items():
        if is_secret(name):
            yield ParameterRecord(name, "not kept: its name is that of a secret")
            continue
        size = sizeof(value)
        if size > LARGEST_PARAMETER:
            yield ParameterRecord(name, f"not kept: {size:,} bytes are too many")
            continue
        # Only now: that of ten million numbers takes a second.
        told = shorten(_repr(value), _LONGEST_TOLD)
        try:
            blob = cloudpickle.dumps(value)
        except Exception as error:
            yield ParameterRecord(name, f"not kept: {_repr(error)}")
            continue
        yield ParameterRecord(name, told, blob)


def shorten(text: str, longest: int) -> str:
    """Text of at most so many characters.

    Examples
    --------
    >>> shorten("a long text", 7)
    'a lo...'
    """
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # of the user's class
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"


def _assets_of(state: State) -> Iterator[AssetRow]:
    records: tuple[AssetRecord, ...] = getattr(state.states, "assets", ())
    for record in records:
        yield AssetRow(
            record.asset.key,
            record.event,
            record.run,
            tuple(asset.key for asset in record.upstream),
            record.by,
            record.metadata,
        )


def _source_of(flow: Any) -> str | None:
    """Where a flow can be found again, as ``"/home/me/etl.py:flow"``."""
    for module in _modules_of_users():
        for name, value in list(vars(module).items()):
            if value is flow or _is_variant(value, flow):
                return f"{os.path.abspath(str(module.__file__))}:{name}"
    return None


def _is_variant(value: Any, flow: Any) -> bool:
    """Whether a flow is made of another one, with other options."""
    return type(value) is type(flow) and getattr(value, "fn", value) is getattr(
        flow, "fn", flow
    )


def _modules_of_users() -> Iterator[ModuleType]:
    """Modules of files that are neither Python's nor an installed package's."""
    loaded: dict[str, object] = dict(sys.modules)  # some packages put others there
    main = {"__main__": loaded["__main__"]} if "__main__" in loaded else {}
    for module in (main | loaded).values():
        path = getattr(module, "__file__", None)
        is_file = isinstance(path, str) and _is_of_users(path)
        if is_file and isinstance(module, ModuleType):
            yield module


@functools.lru_cache(maxsize=10_000)  # there are thousands of modules
def _is_of_users(path: str) -> bool:
    """Whether a module's file is neither Python's, nor installed, nor ours."""
    installed = (os.path.dirname(os.__file__), sys.prefix, sys.base_prefix)
    own = os.path.dirname(__file__)
    return path.endswith(".py") and not path.startswith((*installed, own))
