"""Run lines: the end of the log files of a run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path

from prefect_dask_core.runners.run_log import KEPT


def last_lines(files: Iterable[Path]) -> list[str]:
    """The last lines of some files together; of a file that is gone, a word on that."""
    lines: deque[str] = deque(maxlen=KEPT)
    left = 0
    for path in files:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    left += len(lines) == KEPT
                    lines.append(line.rstrip("\n"))
        except OSError as error:
            lines.append(f"({path} cannot be read: {error.strerror})")
    found = list(lines)
    return [f"({left:,} earlier lines are not here)", *found] if left else found
