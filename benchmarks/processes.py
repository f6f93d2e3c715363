"""Processes: what one holds in memory, asked in the process itself.

These functions also run in processes of schedulers, so this module imports nothing of
the package: what a scheduler holds should be what it has been given.
"""

from __future__ import annotations

import gc
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

Value = TypeVar("Value")

PROCESS: Final = Path("/proc/self")
#: Units of 1,000 x 1,000 bytes, as the bars have them.
MEGABYTE: Final = 1e6


def resident_megabytes() -> float:
    """Memory that this process has at this moment, garbage collected.

    Raises
    ------
    RuntimeError
        If the system does not say: only Linux does.
    """
    gc.collect()
    return _status("VmRSS")


def peak_megabytes() -> float:
    """Most memory this process has had, since it began or since `forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> float:
    """Begin to look for a new peak; the memory that the process has now."""
    begin = resident_megabytes()
    (PROCESS / "clear_refs").write_text("5", encoding="ascii")
    return begin


def _status(name: str) -> float:
    """A line of the system's record of this process, in megabytes."""
    try:
        text = (PROCESS / "status").read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise RuntimeError(
            f"this system has no {PROCESS / 'status'}, which the memory of a process "
            "is read from; measure memory on Linux."
        ) from error
    return status_megabytes(text, name)


def status_megabytes(text: str, name: str) -> float:
    """Megabytes of a line of ``/proc/<pid>/status``, which tells 1,024 bytes as kB.

    Examples
    --------
    >>> status_megabytes("VmHWM:\\t   125000 kB\\nVmRSS:\\t   1000 kB\\n", "VmRSS")
    1.024
    """
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"the system's record of this process has no {name}.")
    return 1024 * int(found[1]) / MEGABYTE


def count_tasks(dask_scheduler: Any = None) -> int:
    """Number of tasks a scheduler holds; runs there."""
    return len(dask_scheduler.tasks)


def in_fresh_process(work: Callable[..., Value], *arguments: Any) -> Value:
    """Call a function of a module in a process that has done nothing before.

    Its memory then grows by what the work needs: none is there already, left over
    from other work.

    Examples
    --------
    >>> in_fresh_process(divmod, 17, 5)
    (3, 2)
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()
