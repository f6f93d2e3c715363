"""Policies: the key under which the value of a run is kept, and found by others.

Runs with one key have one value. A policy gives no key where nothing of it can be told:
without inputs, outside of a flow, or where an input has no token that is the same in
all processes. Policies add up: ``INPUTS + TASK_SOURCE``; and an input can be left out:
``INPUTS - "debug"``.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import md5
from typing import Any, Final, TypeVar

from dask.base import tokenize

from prefect_dask_core.cache_validators import CacheValidator, never_use
from prefect_dask_core.errors import OptionTypeError, OptionValueError

_LOGGER: Final = logging.getLogger("prefect_dask_core.results")
PolicyT = TypeVar("PolicyT", bound="CachePolicy")


class IsolationLevel(str, enum.Enum):
    """What runs see of one another that compute one key at the same time."""

    #: Several may compute a key at once; the last one to end is kept.
    READ_COMMITTED = "READ_COMMITTED"
    #: One computes a key, the others wait for its value.
    SERIALIZABLE = "SERIALIZABLE"


@dataclass(frozen=True)
class CachePolicy:
    """Base of the policies; one of one's own overrides `compute_key`.

    Parameters
    ----------
    key_storage : ResultStore, str or path, optional
        Where it is noted which keys are taken, if not beside the values.
    isolation_level : IsolationLevel, optional
        Whether several runs may compute one key at once; they may unless given.
    lock_manager : LockManager, optional
        What makes the others wait; see `results.locks`.

    Examples
    --------
    >>> policy = (INPUTS - "debug") + TASK_SOURCE
    >>> policy.configure(isolation_level="SERIALIZABLE").isolation_level.value
    'SERIALIZABLE'
    """

    key_storage: Any = field(default=None, kw_only=True)
    isolation_level: IsolationLevel | None = field(default=None, kw_only=True)
    lock_manager: Any = field(default=None, kw_only=True)

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
        return replace(
            self,
            key_storage=self.key_storage if key_storage is None else key_storage,
            lock_manager=self.lock_manager if lock_manager is None else lock_manager,
            isolation_level=level,
        )

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
class Inputs(CachePolicy):
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
class TaskSource(CachePolicy):
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
class RunId(CachePolicy):
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
        run = task_ctx.task_run
        found = kwargs.get("kept_as") or run.flow_run_id or run.id
        return None if found is None else str(found)


@dataclass(frozen=True)
class FlowParameters(CachePolicy):
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
class NoCache(CachePolicy):
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
class CacheKeyFnPolicy(CachePolicy):
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
class CompoundPolicy(CachePolicy):
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
        told = [key for key in keys if key is not None]
        return _hash("\n".join(told)) if told else None

    def __sub__(self, name: str) -> CachePolicy:
        super().__sub__(name)
        return replace(self, policies=tuple(p - name for p in self.policies))


@dataclass(frozen=True)
class ValidatorPolicy(CachePolicy):
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
        token = None if counting is None else token_of(counting)
        if token is None:
            return None
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


def task_input_hash(context: Any, arguments: Mapping[str, Any]) -> str | None:
    """Key of the code and of the arguments; for use as ``cache_key_fn=``.

    Parameters
    ----------
    context : TaskRunContext
        The task run.
    arguments : mapping of str to object
        Arguments of the body.

    Returns
    -------
    str or None
        `None` if an argument has no token that is the same everywhere.
    """
    found = token_of(arguments)
    if found is None:
        return None
    return _hash(f"{context.task.task_key}\n{context.task.source_token}\n{found}")


def token_of(values: Mapping[str, Any]) -> str | None:
    """Token of named values, whatever their order; `None`, and a log line, without one.

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
            parts.append(f"{name}:{kind.__name__}:{len(told)}:{told}")
            continue
        try:
            token = tokenize(value, ensure_deterministic=True)
        except Exception as error:
            _LOGGER.warning(
                "no cache key: the input %r, a %s, has no token that is the same in "
                "all processes (%s: %s); give it __dask_tokenize__, or leave it out "
                'with `policy - "%s"`',
                name,
                kind.__qualname__,
                type(error).__name__,
                error,
                name,
            )
            return None
        parts.append(f"{name}::{token}")
    return _hash("\n".join(parts))


_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})


def _hash(text: str) -> str:
    # A name and no secret: nobody is kept out by it.
    return md5(
        text.encode(errors="backslashreplace"), usedforsecurity=False
    ).hexdigest()
