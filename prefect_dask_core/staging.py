"""Staging: runs submitted in a transaction, which count together with it.

They store their values aside, wherever they run. When the block commits, the values are
put in their places and the hooks are called here, where the block is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from prefect_dask_core.results.keeping import (
    Keeper,
    is_staged,
    publish,
    withdraw,
)
from prefect_dask_core.results.places import own_name
from prefect_dask_core.results.transactions import Transaction
from prefect_dask_core.states import Cached, Completed, Skipped, State
from prefect_dask_core.tasks import Task


@dataclass(frozen=True, slots=True)
class SubmittedRuns:
    """A node that was submitted in a transaction: a run, or those of its children.

    Parameters
    ----------
    task : Task
        The definition.
    future : PrefectFuture or FutureList
        What stands for the runs; held, so that their states are there at the end.
    keeper : Keeper or None
        How their values are kept.
    prefix : str
        Where their own keys begin.
    """

    task: Task
    future: Any
    keeper: Keeper | None
    prefix: str

    def transactions(self, parent: Transaction) -> Iterator[Transaction]:
        """A staged transaction for each run that succeeded; waits for their end."""
        self.future.wait()
        hooks = self.task.options.on_rollback, self.task.options.on_commit
        keeper = self.keeper
        stores = keeper is not None and keeper.store is not None and keeper.writes
        if not stores and not any(hooks):
            return
        for index, state in self._ended():
            if not isinstance(state, Completed) or isinstance(state, Skipped | Cached):
                continue
            found = Transaction(parent=parent, name=self._name(index))
            if keeper is not None and stores:
                own = self.prefix + own_name(index)
                if is_staged(keeper, parent.id, own):
                    found.write_with(
                        partial(_publish, keeper, parent.id, own),
                        discard=partial(withdraw, keeper, parent.id, own),
                    )
                elif state.message is None:
                    # Stored by an earlier attempt at the flow, so it counts already;
                    # a state that a body made by hand, without a value, says more.
                    continue
            # The value stays where it is: what is written is what was put aside.
            found.stage(None, *hooks)
            yield found

    def _ended(self) -> Iterator[tuple[int | None, State]]:
        states = getattr(self.future, "states", None)
        if states is None:
            yield None, self.future.state
        else:
            yield from enumerate(states)

    def _name(self, index: int | None) -> str:
        return self.task.name if index is None else f"{self.task.name}[{index}]"


def _publish(keeper: Keeper, transaction: str, own: str, value: None) -> None:
    """Put what a run has put aside in its place."""
    publish(keeper, transaction, own)
