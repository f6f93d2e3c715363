"""Yielded: what a generator hands out, held where the value of its run is kept."""

from __future__ import annotations

from typing import Any

from prefect_dask_core.engine.effects import Answer, Returned
from prefect_dask_core.states import NO_DATA, Completed


class Yielded:
    """What a generator yields, held if its run keeps its value.

    Parameters
    ----------
    keeps : bool
        Whether it does.
    """

    def __init__(self, keeps: bool) -> None:
        self._keeps = keeps
        self._values: list[Any] | None = None
        #: What the body returned.
        self.returned: Any = None

    def begin(self) -> None:
        """Begin an attempt, with nothing of the one before."""
        self._values = []

    def note(self, value: Any) -> None:
        """Note what was yielded."""
        if self._keeps and self._values is not None:
            self._values.append(value)

    def answer(self, answer: Answer) -> Answer:
        """The answer that the body has given, with the value of its run."""
        if not self._keeps or not isinstance(answer, Returned):
            return answer
        self.returned = answer.value
        return Returned(self._values)

    def answer_of_a_part(self) -> Answer:
        """The answer if the reader has left before the end."""
        # A part of the values must not stand for all of them.
        return Returned(Completed(data=NO_DATA) if self._keeps else None)

    def left(self, value: Any) -> list[Any]:
        """What is to be handed out yet: the stored value, if the body did not run."""
        is_stored = self._keeps and self._values is None
        return value if is_stored and isinstance(value, list) else []
