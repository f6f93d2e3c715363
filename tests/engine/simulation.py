"""A runner without threads: blocks run when a source of random choices says so.

It keeps blocks as Dask's scheduler keeps keys: a block stays known as long as it is
held or something known depends on it; its result may be lost and is then computed
again; one that cannot be run takes down what reads it.
"""

from __future__ import annotations

import pickle
from collections import Counter, defaultdict
from functools import partial

from prefect_dask_core.engine.block import careful_piece
from prefect_dask_core.engine.block_results import StaleInput, result_of
from prefect_dask_core.engine.book import Book
from prefect_dask_core.engine.driver import Driver
from prefect_dask_core.engine.events import (
    BlockAdvanced,
    BlockDone,
    BlockLost,
    BlockReached,
    BlockWaiting,
    Finish,
    Release,
    ReportLost,
    Resized,
    ResultsLost,
    Started,
    Submit,
    TriedLong,
)
from prefect_dask_core.engine.fanout import LONG, most_in_flight
from prefect_dask_core.engine.grouping import Kinds
from prefect_dask_core.engine.running import run_block
from prefect_dask_core.engine.sources import Items
from prefect_dask_core.engine.unreadable import PackedApart
from prefect_dask_core.planning import make_plan
from prefect_dask_core.testing import FakeShell

WAITING, DONE, ERRED, RELEASED = "waiting", "done", "erred", "released"


class SlowShell(FakeShell):
    """A shell in which each call takes as long as a random source says."""

    def __init__(self, random, speeds):
        super().__init__()
        self.random, self.speeds = random, speeds

    def call(self, call):
        self.spend(self.random.choice(self.speeds))
        return super().call(call)


class Key:
    """A block, as the scheduler knows it."""

    def __init__(self, assignment):
        self.assignment = assignment
        self.status = WAITING
        self.result = None
        self.blame = None


class Simulation:
    """One flow run on a simulated cluster.

    Parameters
    ----------
    flow : Flow
        What to run.
    random : random.Random
        Chooses what happens next.
    threads : int
        Threads the driver is told of.
    speeds : sequence of float
        Seconds a call may take.
    big : float
        Share of the reports whose values stay on the cluster.
    want_all : bool
        Whether all values are wanted, or only those of the last nodes.
    mute : float
        Share of the reports of plain nodes that are lost with their worker.
    one_kind : bool
        Whether one plain node per thread is tried for all, which then share blocks.
    """

    def __init__(
        self,
        flow,
        random,
        threads=2,
        speeds=(0.0, 0.01, 0.4),
        big=0.5,
        want_all=False,
        mute=0.0,
        one_kind=False,
    ):
        self.plan = make_plan(flow)
        self.wanted = self.plan.terminal | self.plan.reference
        if want_all:
            self.wanted = frozenset(range(len(self.plan.nodes)))
        self.driver = Driver(Book(self.plan, self.wanted))
        if one_kind:
            self.driver.book.kinds = Kinds(lambda task: 0, tried=1)
        self.random, self.threads = random, threads
        self.speeds, self.big, self.mute = speeds, big, mute
        self.untold: dict[int, BlockDone] = {}  # reports that were lost
        self.keys: dict[int, Key] = {}
        self.held: set[int] = set()
        self.messages: list = []
        self.reports: list = []
        self.ran: Counter = Counter()  # how often each child of each node ran
        self.submitted: Counter = Counter()
        self.in_flight: dict[int, tuple] = {}  # blocks of lanes: number -> nodes
        self.waiting: set[int] = set()
        self.ended: Counter = Counter()  # lane blocks whose report arrived
        self.losses = 0
        self.told_long = False
        self.were_long = False
        self.allowed_once = 0
        self.gone: set[int] = set()  # results that were lost, as futures tell
        self.stale: set[int] = set()  # blocks that found fewer children than promised
        self.reason, self.divisible = "", False
        #: Children of blocks whose items no worker can read.
        self.unreadable = frozenset()
        #: Blocks that were lost for that.
        self.unread = set()
        self.finished = False

    # -- the driver's side --------------------------------------------------------

    def start(self):
        self.feed(Started(self.threads))

    def feed(self, event):
        if isinstance(event, BlockWaiting) and event.number in self.in_flight:
            self.waiting.add(event.number)
        if isinstance(event, BlockDone) and event.report.number in self.in_flight:
            self.ended[self.in_flight.pop(event.report.number)] += 1
        if isinstance(event, Resized):
            self.threads = event.threads
        for command in self.driver.handle(event):
            match command:
                case Submit(assignments, hold):
                    self.submit(assignments, hold)
                case Release(numbers):
                    self.release(numbers)
                case Finish():
                    self.finished = True
        self.check()

    def submit(self, assignments, hold):
        assert not self.finished, "submitted after the end"
        assert hold <= {a.block.number for a in assignments}
        for assignment in assignments:
            block = assignment.block
            for number in assignment.reads:
                assert number in self.keys, f"{block.number} reads unknown {number}"
            self.submitted[block.number] += 1
            if block.number not in self.keys:
                self.keys[block.number] = Key(assignment)
                if block.steps[0].mapped and block.aim and assignment.given is None:
                    nodes = tuple(step.node for step in block.steps)
                    self.in_flight[block.number] = nodes
                for number in assignment.reads:
                    above = self.keys[number]
                    if above.status == ERRED:  # which the driver does not know yet
                        self.keys[block.number].status = ERRED
                        self.keys[block.number].blame = above.blame
        self.held |= hold
        self.forget()

    def release(self, numbers):
        for number in numbers:
            assert number in self.held, f"{number} was released and is not held"
            self.held.discard(number)
            self.in_flight.pop(number, None)
        self.forget()

    # -- the scheduler's side -----------------------------------------------------

    def readers(self):
        found = defaultdict(list)
        for number, key in self.keys.items():
            for above in key.assignment.reads:
                found[above].append(number)
        return found

    def forget(self):
        """Forget what nobody holds and nothing known reads."""
        while True:
            readers = self.readers()
            gone = [n for n in self.keys if n not in self.held and not readers[n]]
            if not gone:
                break
            for number in gone:
                del self.keys[number]
        for number, key in self.keys.items():
            done = all(self.keys[r].status in (DONE, ERRED) for r in readers[number])
            if key.status == DONE and number not in self.held and done:
                key.status, key.result = RELEASED, None

    def wake(self):
        """Released results that something waits for are computed again."""
        changed = True
        while changed:
            changed = False
            for key in list(self.keys.values()):
                if key.status != WAITING:
                    continue
                for above in key.assignment.reads:
                    if self.keys[above].status == RELEASED:
                        self.keys[above].status = WAITING
                        changed = True

    def ready(self):
        self.wake()
        return [
            number
            for number, key in self.keys.items()
            if key.status == WAITING
            and all(self.keys[n].status == DONE for n in key.assignment.reads)
        ]

    def run(self, number):
        """Run a block, and put its messages in the queue."""
        key = self.keys[number]
        assignment = key.assignment
        if assignment.given is not None:
            key.result, key.status = result_of(assignment.given), DONE
            self.forget()
            return
        block = assignment.block
        if block.apart:
            block = self.with_unreadable_items(block)
        elif self.is_unreadable(block):
            self.losses += 1
            self.reason, self.divisible = "cannot be read", False
            self.unread.add(number)
            self.err(number)
            return
        waiting = partial(self.tell_waiting, number)
        try:
            result, report = run_block(
                block,
                [self.keys[n].result for n in assignment.reads],
                {"parameters": {}},
                SlowShell(self.random, self.speeds),
                waiting,
                lambda found: self.messages.append(BlockAdvanced(self.trimmed(found))),
            )
        except StaleInput:
            self.err(number)
            self.stale.add(number)
            self.forget()
            return
        for node, segment in report.segments.items():
            for index in range(segment.start, segment.stop):
                self.ran[node, index] += 1
        key.result, key.status = result, DONE
        done = BlockDone(self.trimmed(report))
        steps = assignment.block.steps
        plain = len(steps) == 1 and not steps[0].mapped
        if plain and self.random.random() < self.mute:
            self.losses += 1
            self.untold[number] = done
        else:
            self.messages.append(done)
            self.reports.append(done)
        self.forget()

    def trimmed(self, report):
        """The report as it travels: some values are too large to come along."""
        segments = {
            node: segment.without_values()
            if self.random.random() < self.big
            else segment
            for node, segment in report.segments.items()
        }
        return report._replace(segments=segments)

    # -- troubles -----------------------------------------------------------------

    def kill(self, number, reason="a worker died", divisible=True):
        """A block kills its workers: it and all that reads it is lost."""
        self.losses += 1
        block = self.keys[number].assignment.block
        if block.careful:
            piece = careful_piece(block.start, block.stop)
            reached = range(block.start, block.stop, piece)
            self.messages.append(BlockReached(number, self.random.choice(reached)))
        self.err(number)
        self.reason, self.divisible = reason, divisible

    def is_unreadable(self, block):
        """Whether a block has children whose items no worker can read."""
        return any(n in self.unreadable for n in range(block.start, block.stop))

    def with_unreadable_items(self, block):
        """A block whose items are pickled one by one, as its worker reads it."""
        if not self.is_unreadable(block):
            return block
        steps = []
        for step in block.steps:
            inputs = []
            for item in step.inputs:
                if isinstance(item.source, Items):
                    blobs = [
                        b"not a pickle"
                        if block.start + offset in self.unreadable
                        else pickle.dumps(value)
                        for offset, value in enumerate(item.source.values)
                    ]
                    values = PackedApart(step.task.name, blobs)
                    item = item._replace(source=item.source._replace(values=values))
                inputs.append(item)
            steps.append(step._replace(inputs=tuple(inputs)))
        return block._replace(steps=tuple(steps))

    def err(self, number):
        """A block ends by an error, and so does all that reads it."""
        lost = [number]
        for found in lost:
            key = self.keys[found]
            key.status, key.result, key.blame = ERRED, None, number
            for reader in self.readers()[found]:
                if self.keys[reader].status in (WAITING, RELEASED):
                    lost.append(reader)

    def tell_waiting(self, number, done, busy):
        self.messages.append(BlockWaiting(number, done, busy))

    def look(self):
        """Tell the driver of lost blocks, as looks at the futures do."""
        if self.stale:  # what was told before is known before
            self.random.shuffle(self.messages)
            while self.messages:
                self.feed(self.messages.pop())
        looks = 0
        while not self.finished and self._look_once():
            looks += 1
            assert looks < 100, "the driver submits what is lost again and again"
        return self._tell_of_lost_reports() or looks > 0

    def _tell_of_lost_reports(self):
        """Tell of blocks that ended without a word, of some by what they have left."""
        self.wake()
        untold, self.untold = self.untold, {}
        told = False
        for number in self.driver.silent():
            if number not in untold:
                continue
            status = self.keys[number].status if number in self.keys else RELEASED
            if status == DONE:
                self.feed(untold[number])
            elif status == RELEASED:
                self.feed(ReportLost((number,)))
            told = told or status in (DONE, RELEASED)
        return told

    def _look_once(self):
        victims = defaultdict(list)
        for number in sorted(self.held):
            key = self.keys.get(number)
            if key is not None and key.status == ERRED:
                victims[key.blame].append(number)
        for culprit, numbers in victims.items():
            stale = culprit in self.stale
            lost = tuple(numbers)
            divisible = self.divisible and not stale
            of_items = culprit in self.unread
            self.feed(
                BlockLost(
                    culprit, self.reason, divisible, lost, stale, of_items=of_items
                )
            )
        return bool(victims)

    def lose_result(self, number):
        """A worker dies that holds a result; it is computed again."""
        self.losses += 1
        self.keys[number].status, self.keys[number].result = WAITING, None
        self.gone.add(number)

    def is_computed_anew(self, number):
        return number in self.keys and self.keys[number].status == WAITING

    # -- running ------------------------------------------------------------------

    def step(self):
        """Let one thing happen; whether there was one."""
        ready = self.ready()
        choices = [*(["run"] * bool(ready)), *(["tell"] * bool(self.messages))]
        if not choices and self.driver.is_trying:
            self.tell_long()  # those that were tried may all be lost
            return True
        if not choices:
            return self.look()
        if self.driver.is_trying and self.random.random() < 0.1:
            self.tell_long()
        elif self.gone and self.random.random() < 0.5:
            gone, self.gone = self.gone, set()
            still = [n for n in sorted(gone & self.held) if self.is_computed_anew(n)]
            if still:
                self.feed(ResultsLost(tuple(still)))
        elif self.random.choice(choices) == "run":
            self.run(self.random.choice(ready))
        else:
            self.feed(self.messages.pop(self.random.randrange(len(self.messages))))
        return True

    def tell_long(self):
        """Say that what is tried takes long."""
        self.told_long = True
        self.feed(TriedLong())

    def to_the_end(self, most=20_000):
        """Go on until the driver has finished."""
        for _ in range(most):
            if self.finished:
                return
            assert self.step(), "nothing happens any more, and the run has not ended"
        raise AssertionError("the run does not end")

    # -- laws ---------------------------------------------------------------------

    def check(self):
        """What holds after each event."""
        self.were_long = self.were_long or max(self.speeds) >= LONG
        if not self.threads:
            self.allowed_once = max(self.allowed_once, most_in_flight(0, 0))
        if self.finished:
            return
        assert self.driver.held() == self.held
        for nodes in set(self.in_flight.values()):
            busy = [
                n
                for n, found in self.in_flight.items()
                if found == nodes and n not in self.waiting
            ]
            long = self.told_long or self.were_long
            allowed = most_in_flight(self.threads, self.ended[nodes], long)
            assert len(busy) <= max(allowed, self.allowed_once)

    def check_end(self):
        """What holds once the run has ended."""
        assert self.finished
        for node in self.plan.nodes:
            state = self.driver.state(node.index)
            if not node.mapped or state.states is None:
                continue
            at = 0
            for segment in self.driver.segments(node.index):
                assert segment.start == at, "a child is known twice or not at all"
                at = segment.stop
            assert at == len(state)
        needed = set()
        for index in self.wanted:
            for segment in self.driver.segments(index):
                if segment.values is None:
                    needed.update(
                        n
                        for n in self.driver.blocks_of(index)
                        if self.driver.holds(n, index, segment.start)
                    )
        assert self.held <= needed | self.unread_crashes(), "held for nobody"

    def unread_crashes(self):
        return set()

    def states(self):
        """States of all nodes, with the values that stayed on the cluster."""
        found = []
        for node in self.plan.nodes:
            for segment in self.driver.segments(node.index):
                if segment.values is None:
                    segment.values = self.fetched(node.index, segment)
            found.append(self.driver.state(node.index))
        return found

    def fetched(self, index, segment):
        for number in self.driver.blocks_of(index):
            if number in self.held and self.driver.holds(number, index, segment.start):
                key = self.keys[number]
                for above in (*key.assignment.reads, number):
                    if self.keys[above].status in (WAITING, RELEASED):
                        self.keys[above].status = WAITING
                while key.status == WAITING:
                    self.run(self.random.choice(self.ready()))
                return key.result.segments[index].values
        return None
