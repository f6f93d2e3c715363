"""Report: a run as one page of HTML that needs nothing else, no network and no cluster.

The text is HTML made here, so that it can be read, searched and printed; plots are
drawn by Bokeh, whose code is in the page.
"""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from prefect_dask_core._version import __version__
from prefect_dask_core.engine.views import RunView
from prefect_dask_core.monitor.palette import COLORS, ORDER
from prefect_dask_core.monitor.report_columns import HERE, Durations, durations, runs_of
from prefect_dask_core.monitor.report_plots import plots_of
from prefect_dask_core.monitor.report_style import STYLE
from prefect_dask_core.monitor.summary import (
    Failure,
    RunSummary,
    TaskSummary,
    summarize,
    told_by,
)
from prefect_dask_core.monitor.texts import Told, cut, duration
from prefect_dask_core.runners.redaction import short_text, without_secrets
from prefect_dask_core.states import Pending, State, TriggerFailed
from prefect_dask_core.traces import trace_of

#: Most failures and lines of log that a page shows.
MOST_FAILURES: Final = 200
MOST_LOG_LINES: Final = 5_000
#: Characters of a message, of a traceback, of a line of log and of all lines together
#: that it shows at most: texts may be of any length, a page is to be opened and sent.
LONGEST_MESSAGE: Final = 300
LONGEST_TRACE: Final = 10_000
LONGEST_LINE: Final = 2_000
LONGEST_LOG: Final = 3_000_000
#: Most tasks in a table.
MOST_TASKS: Final = 500


def write_report(view: RunView, path: str | os.PathLike[str]) -> Path:
    """Write the report of a run into a file.

    Parameters
    ----------
    view : RunView
        The run; one that goes on is shown as it is at this moment.
    path : str or path
        The file. What stood there is replaced once the page is complete; folders that
        are missing are made.

    Returns
    -------
    Path
        The file.
    """
    found = Path(path)
    # A run may have taken hours by now; its page is not lost for want of a folder.
    found.parent.mkdir(parents=True, exist_ok=True)
    aside = found.with_name(f".{found.name}.{os.getpid()}.part")
    try:
        aside.write_text(page_of(view), encoding="utf-8")
        os.replace(aside, found)
    finally:
        aside.unlink(missing_ok=True)
    return found


def page_of(view: RunView) -> str:
    """The report of a run, as HTML."""
    runs = runs_of(view)
    state = view.state or Pending("the run goes on.")
    last = float(runs.end.max()) if len(runs) else 0.0
    end = view.end if view.end is not None else view.info.begin + last
    summary = summarize(view, state, end, MOST_FAILURES)
    script, plots = plots_of(view, runs, max(summary.seconds, last))
    log = view.log_lines()
    sections = [
        ("Summary", _tasks(summary, durations(runs))),
        ("Timeline", _timeline(plots, summary)),
        ("Graph", plots["graph"]),
        ("Durations", plots["durations"]),
        ("Failures", _failures(summary, view)),
        ("Logs", _log(log)),
    ]
    links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name, _ in sections)
    body = "".join(
        f'<section id="{name.lower()}"><h2>{name}</h2>{content}</section>'
        for name, content in sections
    )
    title = f"{view.info.flow_name}: {state.name}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body>"
        f"<header>{_head(view, summary)}</header><nav>{links}</nav><main>{body}</main>"
        f"<footer>prefect_dask_core {_text(__version__)}</footer>"
        f"{script}</body></html>\n"
    )


# -- the head ----------------------------------------------------------------------


def _head(view: RunView, summary: RunSummary) -> str:
    info = view.info
    began = datetime.fromtimestamp(info.begin).astimezone()
    facts = [
        ("Run", info.run_name),
        ("Id", info.run_id),
        ("Began", began.strftime("%Y-%m-%d %H:%M:%S %Z")),
        ("Took", duration(summary.seconds)),
    ]
    if info.parent_run_id is not None:
        facts.append(("Inside of run", info.parent_run_id))
    facts += [
        (f"Parameter {name}", _value(name, value))
        for name, value in info.parameters.items()
    ]
    rows = "".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"
        for name, value in facts
        if name != "Run" or value != info.run_id
    )
    message = summary.state.message
    told = f'<p class="message">{_text(_short(message))}</p>' if message else ""
    return (
        f"<h1>{_text(info.flow_name)} {_chip(summary.state)}</h1>{told}<dl>{rows}</dl>"
        f"{legend_of(summary.tasks)}"
    )


def _chip(state: State) -> str:
    """The name of a state in its colour, and in words."""
    color = COLORS.get(type(state).__name__, state.color)
    return (
        f'<span class="chip"><i style="background:{color}"></i>'
        f"{_text(state.name)}</span>"
    )


def legend_of(tasks: Iterable[TaskSummary]) -> str:
    """Each state that occurs with its colour and its number of task runs, as HTML."""
    counts: Counter[str] = sum((task.counts for task in tasks), Counter())
    chips = "".join(
        f'<span class="chip"><i style="background:{COLORS[name]}"></i>'
        f"{counts[name]:,} {name}</span>"
        for name in ORDER
        if counts[name]
    )
    return f'<p class="legend">{chips}</p>'


# -- sections ----------------------------------------------------------------------


def _tasks(summary: RunSummary, found: Sequence[Durations]) -> str:
    if not summary.tasks:
        return "<p>The run had no tasks.</p>"
    times = {one.task: one for one in found}
    titles = ("Task", "Runs", "States", "Retries", "Median", "Longest", "Added up")
    head = "".join(f"<th>{title}</th>" for title in titles)
    rows = "".join(_task(t, times.get(t.name)) for t in summary.tasks[:MOST_TASKS])
    more = len(summary.tasks) - MOST_TASKS
    rest = f"<p>and {more:,} more tasks</p>" if more > 0 else ""
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{rest}"
    )


def _task(task: TaskSummary, times: Durations | None) -> str:
    parts = "".join(
        f'<i style="background:{COLORS[name]};flex:{task.counts[name]}"></i>'
        for name in ORDER
        if task.counts[name]
    )
    told = ", ".join(
        f"{task.counts[name]:,} {name}" for name in ORDER if task.counts[name]
    )
    longest = task.longest_name if task.runs > 1 else ""
    cells = [
        f'<td class="name">{_text(task.name)}</td>',
        f'<td class="number">{task.runs:,}</td>',
        f'<td><div class="share">{parts}</div>{told}</td>',
        f'<td class="number">{task.retries:,}</td>' if task.retries else "<td></td>",
    ]
    if times is None:
        cells.append("<td></td>" * 3)
    else:
        cells += [
            f'<td class="number">{duration(times.median)}</td>',
            f'<td class="number">{duration(times.most)} '
            f"<small>{_text(longest)}</small></td>",
            f'<td class="number">{duration(times.total)}</td>',
        ]
    return f"<tr>{''.join(cells)}</tr>"


def _timeline(plots: dict[str, str], summary: RunSummary) -> str:
    legend = legend_of(summary.tasks)
    note = plots["note"]
    return (
        f"{legend}<p>{note}</p><h3>By task</h3>{plots['by_task']}"
        f"<h3>By worker</h3>{plots['by_worker']}"
    )


def _failures(summary: RunSummary, view: RunView) -> str:
    if not summary.failures:
        return "<p>Nothing failed.</p>"
    shown = "".join(_failure(failure, view) for failure in summary.failures)
    total = summary.failed + summary.refused
    told = f"{summary.failed:,} failed or crashed"
    if summary.refused:
        told += f", and {summary.refused:,} did not run because of that"
    more = total - len(summary.failures)
    rest = f"<p>{more:,} more are not shown.</p>" if more else ""
    return f"<p>{told}.</p>{shown}{rest}"


def _failure(failure: Failure, view: RunView) -> str:
    segment, state = failure.segment, failure.state
    offset = 0 if failure.index is None else failure.index - segment.start
    attempts = segment.attempts_of(offset)
    begin, end = segment.begins[offset], segment.ends[offset]
    facts = [f"{attempts} attempt" + "s" * (attempts != 1)] if attempts else []
    if begin:
        facts.append(f"began after {duration(max(0.0, begin - view.info.begin))}")
        facts.append(f"took {duration(max(0.0, end - begin))}")
        facts.append(f"on {segment.worker or HERE}")
    trace = "" if isinstance(state, TriggerFailed) else _trace(state)
    text = trace or state.message or state.name
    if len(text) > LONGEST_TRACE:  # the end of a traceback tells most
        text = f"…{text[-LONGEST_TRACE:]}"
    text = without_secrets(text)
    return (
        f'<details><summary>{_chip(state)}<b class="name">{_text(failure.name)}</b>'
        f'<span class="told">{_text(without_secrets(told_by(state)))}</span></summary>'
        f"<p>{_text(', '.join(facts))}</p><pre>{_text(text)}</pre></details>"
    )


def _trace(state: State) -> str:
    """The traceback of what made a run fail, if it is known."""
    # Of a run that the ledger tells of only the text is known.
    told = getattr(state.data, "traceback_text", "")
    return str(told) if told else trace_of(state)


def _log(lines: Sequence[str]) -> str:
    if not lines:
        return "<p>Nothing was logged.</p>"
    shown, room = [], LONGEST_LOG
    for line in reversed(lines[-MOST_LOG_LINES:]):
        shown.append(cut(line, LONGEST_LINE))
        room -= len(shown[-1])
        if room < 0:
            break
    shown.reverse()
    left = len(lines) - len(shown)
    rest = f"<p>The last {len(shown):,} of {len(lines):,} lines.</p>" if left else ""
    return f'{rest}<pre class="log">{_text(chr(10).join(shown))}</pre>'


def _text(value: Any) -> str:
    return html.escape(str(value))


def _short(text: str) -> str:
    """A message on one page, without what looks like a secret."""
    return cut(without_secrets(text[: 2 * LONGEST_MESSAGE]), LONGEST_MESSAGE)


def _value(name: str, value: Any) -> str:
    """The value of a parameter; no `__repr__` of the user's is called."""
    return _short(value) if isinstance(value, Told) else short_text(name, value)
