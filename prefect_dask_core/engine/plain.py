"""Plain nodes: which go out, in which blocks, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prefect_dask_core.engine.block import Block, BlockReport
from prefect_dask_core.engine.book import FINAL, Book
from prefect_dask_core.engine.events import Assignment
from prefect_dask_core.engine.fanout import MOST_BROUGHT
from prefect_dask_core.engine.grouping import Group, Together, put_together
from prefect_dask_core.engine.plan import Node, Plan, fuse
from prefect_dask_core.engine.readers import unfinished_readers
from prefect_dask_core.engine.segments import is_success
from prefect_dask_core.engine.steps import kept_of, step_of


class PlainNodes:
    """The nodes of a run that are not mapped, or run as if they were not.

    Parameters
    ----------
    book : Book
        What is known of the run.
    """

    def __init__(self, book: Book) -> None:
        self._book = book

    # -- from nodes to blocks ---------------------------------------------------------

    def may_go(self, node: Node) -> bool:
        """Whether a plain node that is ready goes out now."""
        return self._book.kinds.may_go(node, self._book.threads)

    def submit(self, nodes: Sequence[int]) -> None:
        """Submit nodes, in blocks that some of them may share."""
        if not nodes:
            return
        book = self._book
        assignments = []
        for together in self.together(sorted(nodes)):
            number = book.take_number()
            assignments.append(self.assign(number, together))
            for node in together.nodes:
                book.blocks_of[node] = [number]
        book.submit(assignments)

    def assign(self, number: int, together: Together) -> Assignment:
        """Make a block of nodes that run together."""
        book = self._book
        members = together.nodes
        reads: dict[int, int] = {}
        inside = frozenset(members)
        steps = tuple(
            step_of(book, book.plan.nodes[node], inside, reads, None)
            for node in members
        )
        block = Block(
            number,
            steps,
            0,
            1,
            together.aim,
            kept_of(book, members),
            parts=together.parts,
        )
        annotations = book.plan.nodes[members[0]].annotations
        return Assignment(block, tuple(reads), annotations=annotations)

    def together(self, nodes: Sequence[int]) -> Sequence[Together]:
        """Blocks that some plain nodes are joined into, in an order of their edges."""
        book = self._book
        assert isinstance(book.plan, Plan)
        groups = [Group(n, self.seconds(n)) for n in fuse(book.plan, nodes)]
        return put_together(
            groups,
            self.above,
            self.label,
            book.threads,
            is_there=self.is_there,
        )

    def is_there(self, index: int) -> bool:
        """Whether the value of a node is there, and small enough to come along."""
        book = self._book
        if book.status[index] != FINAL:
            return False
        if index in book.children:
            return len(book.children[index]) <= MOST_BROUGHT and all(
                segment.values is not None for segment in book.children[index].segments
            )
        known = book.plain.get(index)
        return known is None or not is_success(known) or known.values is not None

    def seconds(self, nodes: Sequence[int]) -> float | None:
        """Seconds that nodes take one after the other, `None` if it is not known."""
        book = self._book
        total = 0.0
        for node in nodes:
            seconds = book.kinds.seconds(book.plan.nodes[node])
            if seconds is None:
                return None
            total += seconds
        return total

    def above(self, index: int) -> Sequence[int]:
        """Nodes that a node reads."""
        return self._book.plan.upstream[index]

    def label(self, index: int) -> str:
        """Annotations of a node as a label."""
        return repr(sorted(self._book.plan.nodes[index].annotations.items()))

    # -- blocks that ended ------------------------------------------------------------

    def take(self, report: BlockReport) -> None:
        """Take in how nodes of a block ended."""
        book = self._book
        if report.number not in book.assigned:
            return  # superseded: it was submitted again under another number
        for node, segment in report.segments.items():
            # A child that was run node by node may report once more.
            if book.status[node] != FINAL and node not in book.children:
                book.plain[node] = segment
                book.make_final(node)
                book.make_ready(book.kinds.learn(book.plan.nodes[node], segment))

    def take_back(self, report: BlockReport) -> bool:
        """Submit the plain nodes anew that a block has handed back, and their readers.

        Nothing that reads one of them has begun: it finds that it is not there.

        Returns
        -------
        bool
            `False` if nodes are missing of which it had told before: Dask has run it
            again, and it has to be run once more.
        """
        book = self._book
        number = report.number
        assignment = book.assigned.get(number)
        if assignment is None or not assignment.block.parts:
            return True
        block = assignment.block
        gone = [s.node for s in block.steps if s.node not in report.segments]
        rest = [node for node in gone if book.status[node] != FINAL]
        if len(rest) < len(gone) and number in book.held:
            return False
        if not rest:
            return True
        stays = tuple(s for s in block.steps if s.node in report.segments)
        block = block._replace(
            steps=stays,
            keep=block.keep.difference(gone),
            parts=tuple(n for n in block.parts if n < len(stays)),
        )
        book.assigned[number] = replace(assignment, block=block)
        direct = {
            found
            for node in rest
            for reader in book.plan.dependents[node]
            for found in book.blocks_of.get(reader, ())
            if found in book.assigned
            and found != number
            and not book.has_ended(book.assigned[found])
        }
        affected = sorted({*direct, *unfinished_readers(book, sorted(direct))})
        for found in affected:
            rest += [step.node for step in book.assigned[found].block.steps]
        self.submit(sorted(rest))
        for found in affected:
            book.forget(found)
        book.release_blocks_of(stays[0].node)
        return True
