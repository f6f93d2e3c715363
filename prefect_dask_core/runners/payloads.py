"""Payloads: large parts that several blocks share, kept where the blocks run.

A definition or an argument of that kind is a key of its own. Dask forgets a key that
nobody holds once its readers have ended, and each later graph would bring it anew: an
argument of 40 MB, mapped over 2,000 children, was sent 35 times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from dask.typing import Key
from distributed import Future

#: Of these the scheduler computes the value anew, or has it.
_GOOD: Final = frozenset({"pending", "finished", "lost"})


class Payloads:
    """Futures of the payloads of a run, each as long as a node needs it."""

    def __init__(self) -> None:
        self._futures: dict[Key, Future[Any]] = {}
        self._needed_by: defaultdict[Key, set[int]] = defaultdict(set)
        self._needs: defaultdict[int, set[Key]] = defaultdict(set)

    def there(self) -> frozenset[Key]:
        """Keys that the scheduler has, so that no graph has to bring them.

        One that erred is not among them: it is let go, and has to be brought anew.
        """
        for key in [k for k, f in self._futures.items() if f.status not in _GOOD]:
            self._futures.pop(key).release()
        return frozenset(self._futures)

    def hold(self, futures: Mapping[Key, Future[Any]]) -> None:
        """Take over futures of payloads that a graph has brought."""
        self._futures.update(futures)

    def note(self, key: Key, nodes: Iterable[int]) -> None:
        """Note which nodes need a payload."""
        self._needed_by[key].update(nodes)
        for node in nodes:
            self._needs[node].add(key)

    def let_go(self, nodes: Collection[int]) -> list[Key]:
        """Release what only nodes needed that have ended, and give its keys."""
        gone = []
        for node in nodes:
            for key in self._needs.pop(node, ()):
                needed_by = self._needed_by[key]
                needed_by.discard(node)
                if not needed_by:
                    del self._needed_by[key]
                    gone.append(key)
                    future = self._futures.pop(key, None)
                    if future is not None:
                        future.release()
        return gone

    def clear(self) -> None:
        """Release all of them; the run has ended."""
        self._futures.clear()
