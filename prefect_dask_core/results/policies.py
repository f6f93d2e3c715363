"""Policies: the key under which the value of a run is kept, and found by others.

Runs with one key have one value. A policy gives no key where nothing of it can be told:
without inputs, outside of a flow, or where an input has no token that is the same in
all processes. Policies add up: ``INPUTS + TASK_SOURCE``; and an input can be left out:
``INPUTS - "debug"``.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import md5
from typing import Any, Final, TypeVar

from dask.base import tokenize

from prefect_dask_core.cache_validators import CacheValidator, never_use
from prefect_dask_core.errors import OptionTypeError, OptionValueError

PolicyT = TypeVar("PolicyT", bound="CachePolicy")


class IsolationLevel(str, enum.Enum):
    """What runs see of one another that compute one key at the same time."""

    #: Several may compute a key at once; the last one to end is kept.
    READ_COMMITTED = "READ_COMMITTED"
    #: One computes a key, the others wait for its value.
    SERIALIZABLE = "SERIALIZABLE"


class NoCacheKey(ValueError):
    """A run has no key, because one of its inputs cannot be told from others."""


class CachePolicy:
    """Base of the policies; one of one's own overrides `compute_key`.

    Notes
    -----
    A subclass may be of any kind, with attributes that are set in ``__init__``, or a
    dataclass, frozen or not.

    Examples
    --------
    >>> policy = (INPUTS - "debug") + TASK_SOURCE
    >>> policy.configure(isolation_level="SERIALIZABLE").isolation_level.value
    'SERIALIZABLE'
    """

    # No fields: a dataclass can only be derived from one that is frozen if it is, too.
    #: Where it is noted which keys are taken, if not beside the values.
    key_storage: Any = None
    #: Whether several runs may compute one key at once; they may if it is `None`.
    isolation_level: IsolationLevel | None = None
    #: What makes the others wait; see `results.locks`.
    lock_manager: Any = None

    def compute_key(
        self,
        task_ctx: Any,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Key of a run, `None` if it has none.

        Parameters
        ----------
        task_ctx : TaskRunContext
            The task run, before it begins.
        inputs : mapping of str to object
            Arguments of the body, defaults included.
        flow_parameters : mapping of str to object
            Parameters of the flow run.
        **kwargs
            What later versions may tell.

        Raises
        ------
        NoCacheKey
            If it cannot be told which key it is; a policy that is a sum of this and
            others has none then, either.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not define compute_key()."
        )

    @classmethod
    def from_cache_key_fn(
        cls, cache_key_fn: Callable[[Any, dict[str, Any]], str | None]
    ) -> CachePolicy:
        """Policy of a function ``(task_run_context, parameters) -> str or None``."""
        return CacheKeyFnPolicy(cache_key_fn=cache_key_fn)

    def configure(
        self: PolicyT,
        key_storage: Any = None,
        lock_manager: Any = None,
        isolation_level: IsolationLevel | str | None = None,
    ) -> PolicyT:
        """Copy of the policy with settings; what is `None` stays as it is."""
        level = self.isolation_level
        if isolation_level is not None:
            level = as_isolation_level(isolation_level)
        changed = {
            "key_storage": self.key_storage if key_storage is None else key_storage,
            "lock_manager": self.lock_manager if lock_manager is None else lock_manager,
            "isolation_level": level,
        }
        found = copy.copy(self)
        for name, value in changed.items():
            if getattr(found, name) is not value:
                object.__setattr__(found, name, value)  # it may be frozen
        return found

    def __add__(self, other: CachePolicy) -> CachePolicy:
        if not isinstance(other, CachePolicy):
            return NotImplemented
        if isinstance(other, NoCache):
            return self
        return _compound(self, other)

    def __sub__(self, name: str) -> CachePolicy:
        if not isinstance(name, str):
            raise OptionTypeError(
                f"a cache policy minus {name!r}: give the name of an input, as in "
                '`INPUTS - "debug"`.'
            )
        return self


def as_isolation_level(given: IsolationLevel | str) -> IsolationLevel:
    """An isolation level by its name."""
    try:
        return IsolationLevel(given)
    except ValueError:
        known = ", ".join(level.value for level in IsolationLevel)
        raise OptionValueError(
            f"there is no isolation level {given!r}; the levels are {known}."
        ) from None


@dataclass(frozen=True)
class _Shipped(CachePolicy):
    """What the policies here have in common: they are values, equal by their fields."""

    key_storage: Any = field(default=None, kw_only=True)
    isolation_level: IsolationLevel | None = field(default=None, kw_only=True)
    lock_manager: Any = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Inputs(_Shipped):
    """One value for the same arguments.

    Parameters
    ----------
    exclude : tuple of str
        Names of arguments that do not count.
    """

    exclude: tuple[str, ...] = ()

    def compute_key(
        self,
        task_ctx: Any,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Token of the arguments; `None` without any."""
        counting = {k: v for k, v in inputs.items() if k not in self.exclude}
        return token_of(counting) if counting else None

    def __sub__(self, name: str) -> CachePolicy:
        super().__sub__(name)
        return replace(self, exclude=tuple(sorted({*self.exclude, name})))


@dataclass(frozen=True)
class TaskSource(_Shipped):
    """One value as long as the text of the function is the same."""

    def compute_key(
        self,
        task_ctx: Any,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Token of the text, see `sources`; `None` without a task."""
        if task_ctx is None:
            return None
        found: str = task_ctx.task.source_token
        return found


@dataclass(frozen=True)
class RunId(_Shipped):
    """One value in a flow run."""

    def compute_key(
        self,
        task_ctx: Any,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Id of the flow run, else of the task run."""
        if task_ctx is None:
            return None
        found = kwargs.get("kept_as")
        if not found:
            # Made when it is read, which takes longer than all else here.
            run = task_ctx.task_run
            found = run.flow_run_id or run.id
        return None if found is None else str(found)


@dataclass(frozen=True)
class FlowParameters(_Shipped):
    """One value for the same parameters of the flow."""

    def compute_key(
        self,
        task_ctx: Any,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Token of the parameters; `None` without any."""
        return token_of(flow_parameters) if flow_parameters else None


@dataclass(frozen=True)
class NoCache(_Shipped):
    """No run takes the value of another one."""

    def compute_key(
        self,
        task_ctx: Any,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """None."""
        return None

    def __add__(self, other: CachePolicy) -> CachePolicy:
        return other


@dataclass(frozen=True)
class CacheKeyFnPolicy(_Shipped):
    """The key that a function gives.

    Parameters
    ----------
    cache_key_fn : callable (task_run_context, parameters) -> str or None
        The function.
    """

    cache_key_fn: Callable[[Any, dict[str, Any]], str | None] | None = None

    def compute_key(
        self,
        task_ctx: Any,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """What the function says."""
        assert self.cache_key_fn is not None
        return self.cache_key_fn(task_ctx, dict(inputs))


@dataclass(frozen=True)
class CompoundPolicy(_Shipped):
    """One value where several policies agree.

    Parameters
    ----------
    policies : tuple of CachePolicy
        Those that give no key do not count.
    """

    policies: tuple[CachePolicy, ...] = ()

    def compute_key(
        self,
        task_ctx: Any,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Hash of the keys of all; `None` if none has one."""
        keys = [
            policy.compute_key(task_ctx, inputs, flow_parameters, **kwargs)
            for policy in self.policies
        ]
        # The length keeps keys apart that hold a line break, the number those of
        # different policies.
        told = [f"{n}:{len(k)}:{k}" for n, k in enumerate(keys) if k is not None]
        return _hash("\n".join(told)) if told else None

    def __sub__(self, name: str) -> CachePolicy:
        super().__sub__(name)
        return replace(self, policies=tuple(p - name for p in self.policies))


@dataclass(frozen=True)
class ValidatorPolicy(_Shipped):
    """The rule of a cache validator, as a key: equal where it would accept.

    Parameters
    ----------
    name : str
        Name under which tasks share values.
    validator : CacheValidator
        A shipped one; what a validator of one's own accepts cannot be told by a key.
    """

    name: str = ""
    validator: CacheValidator = never_use

    def compute_key(
        self,
        task_ctx: Any,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Hash of the name and of what the validator looks at."""
        counting = self.validator.counting(inputs, flow_parameters)
        if counting is None:
            return None
        token = token_of(counting)
        return _hash(f"{self.name}\n{self.validator.name}\n{token}")


def _compound(left: CachePolicy, right: CachePolicy) -> CachePolicy:
    """Both policies, with the settings of either."""
    settings: dict[str, Any] = {}
    for name in ("key_storage", "isolation_level", "lock_manager"):
        given = [
            found
            for found in (getattr(left, name), getattr(right, name))
            if found is not None
        ]
        if len(given) == 2 and given[0] != given[1]:
            raise OptionValueError(
                f"cache policies with different {name} cannot be added: {given[0]!r} "
                f"and {given[1]!r}; configure the sum instead."
            )
        settings[name] = given[0] if given else None
    members: list[CachePolicy] = []
    excluded: set[str] | None = None
    for policy in (left, right):
        for member in getattr(policy, "policies", (policy,)):
            if isinstance(member, Inputs):
                excluded = (excluded or set()).union(member.exclude)
            elif member not in members:
                members.append(member)
    if excluded is not None:  # once, however often it was added
        members.append(Inputs(exclude=tuple(sorted(excluded))))
    return CompoundPolicy(policies=tuple(members), **settings)


INPUTS: Final = Inputs()
TASK_SOURCE: Final = TaskSource()
RUN_ID: Final = RunId()
FLOW_PARAMETERS: Final = FlowParameters()
NO_CACHE: Final = NoCache()
#: Older name of `NO_CACHE`.
NONE: Final = NO_CACHE
#: What tasks have that keep their values and do not say.
DEFAULT: Final = INPUTS + TASK_SOURCE + RUN_ID


def task_input_hash(context: Any, arguments: Mapping[str, Any]) -> str:
    """Key of the code and of the arguments; for use as ``cache_key_fn=``.

    Parameters
    ----------
    context : TaskRunContext
        The task run.
    arguments : mapping of str to object
        Arguments of the body.

    Raises
    ------
    NoCacheKey
        If an argument has no token that is the same everywhere; the run has no key.
    """
    found = token_of(arguments)
    return _hash(f"{context.task.task_key}\n{context.task.source_token}\n{found}")


def token_of(values: Mapping[str, Any]) -> str:
    """Token of named values, whatever their order.

    Raises
    ------
    NoCacheKey
        If one has no token that is the same in all processes.

    Examples
    --------
    >>> token_of({"x": 1, "y": [2]}) == token_of({"y": [2], "x": 1})
    True
    >>> token_of({"x": 1}) == token_of({"x": True})
    False
    """
    parts = []
    for name in sorted(values):
        value = values[name]
        kind = type(value)
        if kind in _PLAIN:
            # What tokenize would take 20 µs for. The length keeps texts apart that
            # hold what looks like the next part.
            told = repr(value)
            parts.append(f"{name!r}:{kind.__name__}:{len(told)}:{told}")
            continue
        try:
            token = tokenize(value, ensure_deterministic=True)
        except Exception as error:
            raise NoCacheKey(
                f"the input {name!r}, a {kind.__qualname__}, has no token that is the "
                f"same in all processes ({type(error).__name__}: {error}); give it "
                f'__dask_tokenize__, or leave it out with `policy - "{name}"`.'
            ) from error
        parts.append(f"{name!r}::{token}")
    return _hash("\n".join(parts))


_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})


def _hash(text: str) -> str:
    # A name and no secret: nobody is kept out by it.
    return md5(
        text.encode(errors="backslashreplace"), usedforsecurity=False
    ).hexdigest()
