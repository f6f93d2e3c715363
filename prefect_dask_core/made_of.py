"""Made of: what tells whether a node still makes what it made, without its values.

Of each node the ledger keeps a digest of its constants and of the source of its task.
Who resumes the run compares them with those of now: so an edit is noticed where nobody
reads the node again, and no store is asked. What other nodes give is not digested: they
have digests of their own.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import md5
from typing import Any, Final

from dask.base import tokenize

from prefect_dask_core.diagnostics import is_secret
from prefect_dask_core.engine.plan import Input, Node, Plan, items_of
from prefect_dask_core.ledger.columns import indexes_in, ranges_of
from prefect_dask_core.parameters import Parameter
from prefect_dask_core.results.keeping import Keeper, MadeAnew
from prefect_dask_core.results.policies import (
    CachePolicy,
    CompoundPolicy,
    FlowParameters,
    Inputs,
    NoCache,
    RunId,
    ValidatorPolicy,
)

#: Most parts of a list that is mapped over that have a digest of their own, 16 bytes
#: each: lists up to this length are compared item by item.
MOST_PARTS: Final = 1024
#: Characters of a digest.
_LENGTH: Final = 16
#: Policies that take a stored value whatever the source of its task is.
_BLIND: Final = (FlowParameters, Inputs, NoCache, RunId, ValidatorPolicy)


@dataclass(frozen=True, slots=True)
class Items:
    """Digests of a constant that is mapped over.

    Parameters
    ----------
    count : int
        Number of items.
    size : int
        Items that have a digest together; the last ones may be fewer.
    digests : tuple of str
        In their order.
    """

    count: int
    size: int
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MadeOf:
    """What a node was made of, besides the values of others.

    Parameters
    ----------
    inputs : dict of str to str, Items or None
        By parameter, the digest of its constant; `None` of one that cannot be told.
    source : str or None
        Token of the source of the task; `None` where that does not count.
    anew : MadeAnew or None
        What did not stand any more when this attempt began.
    """

    inputs: dict[str, str | Items | None] = field(default_factory=dict)
    source: str | None = None
    anew: MadeAnew | None = None

    def encode(self) -> str:
        """As text, for the ledger."""
        inputs: dict[str, Any] = {
            name: [found.count, found.size, "".join(found.digests)]
            if isinstance(found, Items)
            else found
            for name, found in self.inputs.items()
        }
        anew: list[Any] | None = None
        if self.anew is not None:
            since, indexes = self.anew.since, self.anew.indexes
            anew = [since, None if indexes is None else ranges_of(indexes)]
        return json.dumps([inputs, self.source, anew], separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> MadeOf:
        """What `encode` wrote.

        Examples
        --------
        >>> found = MadeOf({"x": Items(3, 2, ("0" * 16, "1" * 16)), "y": "a"}, "b")
        >>> MadeOf.decode(found.encode()) == found
        True
        """
        inputs, source, anew = json.loads(text)
        return cls(
            {
                name: _items(*found) if isinstance(found, list) else found
                for name, found in inputs.items()
            },
            source,
            None if anew is None else _anew(*anew),
        )


def _items(count: int, size: int, text: str) -> Items:
    starts = range(0, len(text), _LENGTH)
    return Items(count, size, tuple(text[n : n + _LENGTH] for n in starts))


def _anew(since: float, indexes: str | None) -> MadeAnew:
    return MadeAnew(since, None if indexes is None else frozenset(indexes_in(indexes)))


@dataclass(frozen=True, slots=True)
class Change:
    """In what a node differs from what it was.

    Parameters
    ----------
    told : tuple of str
        For people.
    indexes : frozenset of int or None
        Children that differ; `None`: the whole node.
    resized : bool
        Whether it has more or fewer children now.
    """

    told: tuple[str, ...] = ()
    indexes: frozenset[int] | None = frozenset()
    resized: bool = False

    def __bool__(self) -> bool:
        return self.indexes is None or bool(self.indexes) or self.resized

    def __or__(self, other: Change) -> Change:
        return Change(
            (*self.told, *(told for told in other.told if told not in self.told)),
            joined(self.indexes, other.indexes),
            self.resized or other.resized,
        )

    def among(self, children: Collection[int] | None) -> Change:
        """What of it is said of some children; `None`: of all."""
        if children is None or self.indexes is None:
            return self
        return replace(self, indexes=self.indexes.intersection(children))


NO_CHANGE: Final = Change()


def joined(
    one: frozenset[int] | None, other: frozenset[int] | None
) -> frozenset[int] | None:
    """Children of either; `None` is the whole node."""
    return None if one is None or other is None else one | other


# -- digests -----------------------------------------------------------------------


def made_of_nodes(
    plan: Plan, keepers: Mapping[int, Keeper], parameters: Mapping[str, Any]
) -> dict[int, MadeOf]:
    """What the nodes of a plan are made of, by node; constants are left out.

    Parameters
    ----------
    plan : Plan
        What will run.
    keepers : mapping of int to Keeper
        How the values of nodes are kept in a store, of those that are.
    parameters : mapping of str to object
        Values of the parameters of the flow.
    """
    return {
        node.index: _made_of(node, keepers.get(node.index), parameters)
        for node in plan.nodes
        if not node.constant
    }


def _made_of(
    node: Node, keeper: Keeper | None, parameters: Mapping[str, Any]
) -> MadeOf:
    inputs = {
        item.key: _digest_of(item)
        for item in node.inputs
        if item.node is None and item.key is not None
    }
    if isinstance(node.task, Parameter) and node.name in parameters:
        inputs["value"] = (
            None if is_secret(node.name) else digest(parameters[node.name])
        )
    policy = None if keeper is None else keeper.policy
    counts = policy is not None and counts_source(policy)
    return MadeOf(inputs, node.task.source_token if counts else None)


def counts_source(policy: CachePolicy) -> bool:
    """Whether the key that a policy gives may depend on the source of the task.

    Examples
    --------
    >>> from prefect_dask_core.results.policies import DEFAULT, INPUTS
    >>> counts_source(DEFAULT), counts_source(INPUTS)
    (True, False)
    """
    if isinstance(policy, CompoundPolicy):
        return any(map(counts_source, policy.policies))
    return not isinstance(policy, _BLIND)


def _digest_of(item: Input) -> str | Items | None:
    assert item.key is not None
    if is_secret(item.key):
        # A digest of a short one tells it, and a new password makes nothing else.
        return None
    items = items_of(item.value) if item.mapped else None
    return digest(item.value) if items is None else _digests(items)


def _digests(items: list[Any], size: int | None = None) -> Items | None:
    count = len(items)
    if size is None:
        size = 1
        while size * MOST_PARTS < count:
            size *= 2
    found = []
    for start in range(0, count, size):
        one = digest(items[start : start + size])
        if one is None:
            return None
        found.append(one)
    return Items(count, size, tuple(found))


def digest(value: Any) -> str | None:
    """Digest of a value, the same in all processes; `None` if it has none.

    Examples
    --------
    >>> digest([1, "a"]) == digest([1, "a"]), digest([1]) == digest([True])
    (True, False)
    >>> digest((1,)) == digest([1]), digest(object())
    (False, None)
    """
    try:
        # Ten times as fast as `tokenize`. JSON refuses what marshal would write as
        # bare bytes, such as an array, and marshal keeps apart what JSON does not;
        # before its third version it writes the same whoever else refers to a text.
        json.dumps(value)
        told = marshal.dumps(value, 2)
    except (TypeError, ValueError, RecursionError):
        try:
            told = tokenize(value, ensure_deterministic=True).encode()
        except Exception:  # of the user's class
            return None
    return md5(told, usedforsecurity=False).hexdigest()[:_LENGTH]


# -- comparing ---------------------------------------------------------------------


def change_of(now: MadeOf, before: MadeOf, inputs: Iterable[Input] = ()) -> Change:
    """In what a node differs from what it was made of.

    Parameters
    ----------
    now, before : MadeOf
        What it is made of now, and what it was.
    inputs : iterable of Input
        Those of now: a list that has grown is digested anew, in parts of the old size.

    Examples
    --------
    >>> change_of(MadeOf({"x": digest(50)}), MadeOf({"x": digest(1)})).told
    ("it has another constant as 'x'",)
    """
    found = NO_CHANGE
    values = {item.key: item.value for item in inputs}
    if None not in (now.source, before.source) and now.source != before.source:
        found |= Change(("its function has changed",), None)
    for name in sorted({*now.inputs, *before.inputs}):
        if name not in before.inputs:
            found |= Change((f"it has a constant as {name!r} now",), None)
        elif name not in now.inputs:
            found |= Change((f"it had a constant as {name!r}",), None)
        else:
            new, old = now.inputs[name], before.inputs[name]
            both = isinstance(new, Items) and isinstance(old, Items)
            if both and new.size != old.size and name in values:  # type: ignore[union-attr]
                new = _digests(items_of(values[name]) or [], old.size)  # type: ignore[union-attr]
            found |= _change_of(name, new, old)
    return found


def _change_of(
    name: str, now: str | Items | None, before: str | Items | None
) -> Change:
    if now is None or before is None or now == before:
        return NO_CHANGE
    told = f"it has another constant as {name!r}"
    if isinstance(now, str) or isinstance(before, str):
        return Change((told,), None)
    resized, size = now.count != before.count, now.size
    if size != before.size:
        return Change((told,), None, resized)
    longer = max(len(now.digests), len(before.digests))
    differ = frozenset(
        index
        for part in range(longer)
        if now.digests[part : part + 1] != before.digests[part : part + 1]
        for index in range(part * size, min((part + 1) * size, now.count))
    )
    return Change((told,), differ, resized)
