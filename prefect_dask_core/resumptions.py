"""Resumptions: a run that goes on under its id, as the ledger knows it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from prefect_dask_core.errors import LedgerError, ResumeError
from prefect_dask_core.ledger import Ledger, LedgerRun, RunRecord
from prefect_dask_core.recording import SIGN_OF_LIFE

_LOGGER: Final = logging.getLogger("prefect_dask_core.resuming")


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
    def after(self) -> int:
        """The attempt that it goes on after; 0 of one that is not recorded."""
        return 0 if self.first is None else self.first.record.attempt

    @property
    def name(self) -> str | None:
        """Name of the run, as far as it is known."""
        return None if self.first is None else self.first.record.name

    @property
    def places(self) -> tuple[str, ...]:
        """Folders of this machine that its values are stored in, as it is recorded."""
        spans = () if self.first is None else self.first.spans
        found = {span.kept.place for _, span in spans if span.kept is not None}
        return tuple(sorted(filter(os.path.isdir, found)))

    def tell_if_unknown(
        self, flow: str, given: Collection[str], declared: Collection[str]
    ) -> None:
        """Warn of parameters that have their defaults because nothing is recorded.

        Parameters
        ----------
        flow : str
            Name of the flow.
        given, declared : collection of str
            Parameters that are given now, and all that the flow has.
        """
        left = [repr(name) for name in declared if name not in given]
        if self.first is None and left:
            _LOGGER.warning(
                "flow %r resumes run %s without a ledger, so what its parameters were "
                "is not known: %s not given now, and the default stands; give the "
                "parameters that the run had, or the ledger= that it is recorded in",
                flow,
                self.run_id,
                f"{', '.join(left)} {'is' if len(left) == 1 else 'are'}",
            )

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
        wanted = [name for name in declared if name not in given]
        known = self._kept(wanted)
        for name, told in self.first.parameters_told.items():
            if name in declared and name not in known and name not in given:
                raise ResumeError(
                    f"run {self.run_id} cannot be resumed without its parameter "
                    f"{name!r}, which the ledger does not have ({told}); give it: "
                    f"{self._giving(name)}."
                )
        return {**known, **given}

    def _kept(self, names: Collection[str]) -> dict[str, Any]:
        """Parameters that the ledger has."""
        assert self.first is not None
        try:
            return self.first.parameters(names)
        except LedgerError as error:
            raise ResumeError(f"{error}; give it to resume the run.") from error

    def before(self) -> dict[str, Any]:
        """Parameters of the first run, as far as they can be compared with others."""
        found: dict[str, Any] = {}
        for name in () if self.first is None else self.first.parameters_told:
            # What cannot be unpickled any more is another value.
            with contextlib.suppress(LedgerError):
                found.update(self.first.parameters([name]))  # type: ignore[union-attr]
        return found

    def _giving(self, name: str) -> str:
        """How a parameter is given to a run that is resumed."""
        if self.first is not None and self.first.record.kind == "function":
            call = f"my_flow.resume(run_id, {{{name!r}: ...}})"
        else:
            call = f"flow.run(resume=run_id, parameters={{{name!r}: ...}})"
        return f"{call}, or dask flow resume ... --param {name}=VALUE"


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
            f"{record.process} on {record.host}; resume it when that has ended. On "
            f"another host it counts as dead {3 * SIGN_OF_LIFE:g} s after its last "
            "sign of life."
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
    if record.host != socket.gethostname() or record.process == os.getpid():
        return now - record.seen < 3 * SIGN_OF_LIFE
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(record.process)
        # Else another process has its number by now.
        older = found.create_time() <= record.attempt_begin + 1.0
        return bool(older and found.status() != psutil.STATUS_ZOMBIE)
    return False
