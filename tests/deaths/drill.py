"""Drill: one run that is killed at points a seed decides, and resumed until it ends.

``python -m tests.deaths.drill --seeds 50`` runs many and prints what was killed when.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess as Process
from pathlib import Path

from prefect_dask_core.ledger import Ledger
from prefect_dask_core.results.metadata import DamagedRecord, unpack_record
from tests.deaths.scene import CHILDREN, be_client, be_scheduler, be_worker

FORK = multiprocessing.get_context("fork")
BODIES = 2 * CHILDREN + 1
#: What is killed together. The client goes with its scheduler: without one it gives up
#: by itself, but not before half a minute has passed.
VICTIMS = (
    ("client",),
    ("workers",),
    ("client", "workers"),
    ("client", "scheduler"),
    ("client", "scheduler", "workers"),
)
#: Seconds by which the clock of a machine may be set back.
SLACK = 0.2
#: Seconds that anything may take before a drill counts as stuck.
PATIENCE = 240


@dataclass
class Drill:
    """Processes and files of one run.

    Parameters
    ----------
    folder : Path
        Where everything is.
    kind : str
        ``"graph"`` or ``"function"``.
    ledger : str or None
        URL of the ledger; without one the store alone knows.
    """

    folder: Path
    kind: str
    ledger: str | None
    scheduler: Process | None = None
    workers: list[Process] = field(default_factory=list)
    clients: int = 0
    #: How often bodies had begun whose results were stored at the last death.
    counts: dict = field(default_factory=dict)

    def __post_init__(self):
        (self.folder / "begins").mkdir(parents=True)

    # -- processes ------------------------------------------------------------------

    def start(self, target, *arguments):
        """Start a process that has imported everything already."""
        log = self.folder / f"{target.__name__}.log"
        process = FORK.Process(target=logged, args=(log, target, *arguments))
        process.start()
        return process

    def bring_up(self):
        """Start what does not run."""
        file = self.folder / "address"
        if self.scheduler is None:
            self.kill("workers")  # of the scheduler before
            file.write_text("")
            self.scheduler = self.start(be_scheduler, str(file))
            self.until(file.read_text, "a scheduler")
        self.address = file.read_text()
        while len(self.workers) < 2:
            spill = str(self.folder / "spill")
            self.workers.append(self.start(be_worker, self.address, spill))

    def client(self):
        """Start the client: the run, or its resumption."""
        self.clients += 1
        known = (str(self.folder), self.kind, self.ledger or False, self.run_id())
        return self.start(be_client, self.address, *known)

    def kill(self, *victims, client=None):
        for victim in victims:
            processes = {
                "client": [client],
                "scheduler": [self.scheduler],
                "workers": self.workers,
            }[victim]
            for process in processes:
                if process is not None:
                    process.kill()  # signal 9
                    process.join()
        if "scheduler" in victims:
            self.scheduler = None
        if "workers" in victims:
            self.workers.clear()

    def until(self, happened, what):
        end = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < end, f"waited too long for {what}"
            time.sleep(0.01)

    def close(self):
        self.kill("scheduler", "workers")

    # -- what happened ----------------------------------------------------------------

    def run_id(self):
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "run").read_text() or None

    def begun(self):
        """Bytes of what the bodies noted, which says how far the run is."""
        return sum(f.stat().st_size for f in (self.folder / "begins").iterdir())

    def begins(self):
        """When each body began, by name and index."""
        found = defaultdict(list)
        for file in (self.folder / "begins").iterdir():
            for line in file.read_text().splitlines():
                name, index, when = line.split()
                found[name, int(index)].append(float(when))
        return found

    def stored(self):
        """When the result of each body was stored."""
        found = {}
        for file in (self.folder / "store").rglob("*"):
            if file.suffix == ".part":  # its writer died before it put it in its place
                continue
            with contextlib.suppress(OSError, DamagedRecord):
                metadata, _ = unpack_record(file.read_bytes())
                last = metadata.run.rpartition("/")[2]
                index = 0 if last == "value" else int(last)
                found[metadata.task, index] = metadata.created
        return found


def logged(log, target, *arguments):
    """Do something, and write what it prints into a file."""
    with log.open("a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        target(*arguments)


def drill(seed, folder):
    """Run one drill; what was done, as text."""
    chance = random.Random(seed)
    kind = chance.choice(["graph", "function"])
    ledger = chance.choice([str(folder / "ledger.sqlite"), None])
    scene = Drill(folder, kind, ledger)
    told = [f"{kind} flow, {'ledger' if ledger else 'store only'}"]
    try:
        for _ in range(chance.randint(1, 3)):
            victims = chance.choice(VICTIMS)
            share = chance.random()
            scene.bring_up()
            client = scene.client()
            before = scene.begun()
            # A line has some 32 bytes. Later rounds have less to do.
            wanted = before + share * max(0, 32 * BODIES - before)
            scene.until(
                lambda wanted=wanted, client=client: (
                    (scene.begun() >= wanted and scene.run_id() is not None)
                    or client.exitcode is not None
                ),
                "the point of death",
            )
            over = client.exitcode is not None
            told.append(f"{'+'.join(victims)} after {len(scene.begins())} bodies")
            scene.kill(*victims, client=client)
            check_once(scene)
            if "client" not in victims:
                scene.bring_up()  # the run goes on by itself on other workers
                client.join(PATIENCE)
                over = True
            if over:
                told.append(f"client ended with {client.exitcode}")
        scene.bring_up()
        client = scene.client()
        client.join(PATIENCE)
        log = (folder / "be_client.log").read_text()[-3000:]
        assert client.exitcode == 0, f"exit code {client.exitcode}: {log}"
        check_end(scene)
    finally:
        scene.close()
    runs = Counter(len(when) for when in scene.begins().values())
    told.append(f"bodies by their number of runs: {dict(sorted(runs.items()))}")
    return "; ".join(told)


def check_once(scene):
    """No body began after its result was stored."""
    stored = scene.stored()
    begins = scene.begins()
    late = {
        body: (when, begins[body])
        for body, when in stored.items()
        if any(begin > when + SLACK for begin in begins[body])
    }
    assert not late, f"{len(late)} bodies ran again: {dict(list(late.items())[:3])}"
    # Without a clock: what was stored when something died has not run since.
    again = {
        body: (count, begins[body])
        for body, count in scene.counts.items()
        if len(begins[body]) != count
    }
    assert not again, f"{len(again)} bodies ran again: {dict(list(again.items())[:3])}"
    scene.counts = {body: len(when) for body, when in begins.items() if body in stored}


def check_end(scene):
    """The value is right, and everything that ended is stored and known."""
    check_once(scene)
    value = json.loads((scene.folder / "value").read_text())
    assert value == sum(n**2 / 2 for n in range(CHILDREN))
    assert len(scene.stored()) == BODIES
    if scene.ledger is None:
        return
    ledger = Ledger(scene.ledger)
    run = ledger.run(scene.run_id())
    assert run.record.state == "Completed"
    assert run.record.attempt == len(run.attempts) == scene.clients
    for name in ("square", "halve"):
        (slug,) = [slug for slug, node in run.nodes.items() if node.task == name]
        assert run.counts(slug) == {"Completed": CHILDREN}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    bad = 0
    for seed in range(asked.first, asked.first + asked.seeds):
        folder = Path(tempfile.mkdtemp(prefix=f"drill-{seed}-"))
        begin = time.monotonic()
        try:
            told = drill(seed, folder / "run")
            shutil.rmtree(folder)
        except Exception as error:
            bad += 1
            traceback.print_exc()
            told = f"FAILED: {type(error).__name__}: {error} (see {folder})"
        print(f"seed {seed}, {time.monotonic() - begin:.0f} s: {told}", flush=True)
    print(f"{asked.seeds - bad} of {asked.seeds} as they should be")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
