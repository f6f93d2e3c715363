"""Cache validators: whether the value of an earlier run may stand for a new one.

A validator of one's own is any callable ``(state, inputs, parameters) -> bool``; the
shipped ones also refuse a state that has expired.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dask.base import tokenize

from prefect_dask_core.states import Cached

#: A user's validator: the earlier state, the inputs and the flow's parameters of now.
ValidatorFunction = Callable[[Cached, Mapping[str, Any], Mapping[str, Any]], bool]
#: Whether a state is accepted for inputs and parameters; only those named count, if
#: any are.
Rule = Callable[
    [Cached, Mapping[str, Any], Mapping[str, Any], "frozenset[str] | None"], bool
]


def tokens(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Token of each input, by `dask.base.tokenize`: equal for equal values.

    Examples
    --------
    >>> tokens({"x": [1, 2]}) == tokens({"x": [1, 2]}) != tokens({"x": [1, 3]})
    True
    """
    return {name: tokenize(value) for name, value in inputs.items()}


def is_expired(state: Cached, now: float) -> bool:
    """Whether the time of a cached state is over.

    Parameters
    ----------
    state : Cached
        A state without a time of expiry never expires.
    now : float
        Seconds since the epoch.

    Examples
    --------
    >>> state = Cached(data=3, cached_result_expiration=100.0)
    >>> is_expired(state, now=99.9), is_expired(state, now=100.0)
    (False, True)
    """
    end = state.cached_result_expiration
    return end is not None and now >= end


@dataclass(frozen=True, slots=True)
class CacheValidator:
    """A named rule on a cached state that has not expired.

    Parameters
    ----------
    name : str
        Name used in messages.
    rule : callable (state, inputs, parameters, names) -> bool
        Whether the state may be used.
    names : frozenset of str, optional
        Names that the rule looks at; all unless given.

    Examples
    --------
    >>> state = Cached(data=9, hashed_inputs=tokens({"x": 3, "debug": True}))
    >>> all_inputs.accepts(state, {"x": 3, "debug": False}, {}, now=0.0)
    False
    >>> on_x = partial_inputs_only(validate_on=["x"])
    >>> on_x.accepts(state, {"x": 3, "debug": False}, {}, now=0.0)
    True
    """

    name: str
    rule: Rule
    names: frozenset[str] | None = None

    def accepts(
        self,
        state: Cached,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any] | None,
        now: float,
    ) -> bool:
        """Whether the state may be used.

        Parameters
        ----------
        state : Cached
            What an earlier run left.
        inputs : mapping of str to object
            Values of the new run's inputs, not their tokens.
        parameters : mapping of str to object, optional
            Parameters of the new flow run.
        now : float
            Seconds since the epoch.
        """
        if is_expired(state, now):
            return False
        return self.rule(state, inputs, parameters or {}, self.names)

    @property
    def has_key(self) -> bool:
        """Whether `counting` tells all that the rule looks at."""
        return self.rule in (_refuse, _accept, _same_inputs, _same_parameters)

    def counting(
        self, inputs: Mapping[str, Any], parameters: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """What has to be the same in both runs; `None` if no state is ever accepted.

        Examples
        --------
        >>> partial_inputs_only(["x"]).counting({"x": 3, "debug": True}, {})
        {'x': 3}
        >>> duration_only.counting({"x": 3}, {}), never_use.counting({"x": 3}, {})
        ({}, None)
        """
        if self.rule is _same_inputs:
            return _chosen(inputs, self.names)
        if self.rule is _same_parameters:
            return _chosen(parameters, self.names)
        return {} if self.rule is _accept else None

    def __call__(
        self,
        state: Cached,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any] | None,
    ) -> bool:
        """Whether the state may be used now; for use in a validator of one's own."""
        return self.accepts(state, inputs, parameters, time.time())

    def __reduce__(self) -> str | tuple[Any, ...]:
        # A shipped validator travels as its name, and is one object everywhere.
        if _SHIPPED.get(self.name) is self:
            return self.name
        return CacheValidator, (self.name, self.rule, self.names)


def _refuse(
    state: Cached,
    inputs: Mapping[str, Any],
    parameters: Mapping[str, Any],
    names: frozenset[str] | None,
) -> bool:
    return False


def _accept(
    state: Cached,
    inputs: Mapping[str, Any],
    parameters: Mapping[str, Any],
    names: frozenset[str] | None,
) -> bool:
    return True


def _same_inputs(
    state: Cached,
    inputs: Mapping[str, Any],
    parameters: Mapping[str, Any],
    names: frozenset[str] | None,
) -> bool:
    # Chosen first, so that the token of a large input nobody asks about is not made.
    return tokens(_chosen(inputs, names)) == _chosen(state.hashed_inputs or {}, names)


def _same_parameters(
    state: Cached,
    inputs: Mapping[str, Any],
    parameters: Mapping[str, Any],
    names: frozenset[str] | None,
) -> bool:
    # By token: parameters may be arrays, whose `==` is no bool.
    before = _chosen(state.cached_parameters or {}, names)
    return tokens(_chosen(parameters, names)) == tokens(before)


def _chosen(
    values: Mapping[str, Any], names: frozenset[str] | None
) -> Mapping[str, Any]:
    if names is None:
        return dict(values)
    return {name: values[name] for name in names if name in values}


#: Never: the body always runs. What tasks have without ``cache_for``.
never_use = CacheValidator("never_use", _refuse)
#: Until it expires. What tasks have with ``cache_for`` unless told otherwise.
duration_only = CacheValidator("duration_only", _accept)
#: Until it expires, for the same inputs.
all_inputs = CacheValidator("all_inputs", _same_inputs)
#: Until it expires, for the same parameters of the flow.
all_parameters = CacheValidator("all_parameters", _same_parameters)

_SHIPPED: Final[Mapping[str, CacheValidator]] = {
    validator.name: validator
    for validator in (never_use, duration_only, all_inputs, all_parameters)
}


def partial_inputs_only(validate_on: Iterable[str] | None = None) -> CacheValidator:
    """Until it expires, for the same values of some inputs.

    Parameters
    ----------
    validate_on : iterable of str, optional
        Names of the inputs; without any, every cached state that has not expired is
        accepted.

    Examples
    --------
    >>> partial_inputs_only(validate_on=["y", "x"]).name
    "partial_inputs_only(validate_on=['x', 'y'])"
    """
    return _partial("partial_inputs_only", _same_inputs, validate_on)


def partial_parameters_only(validate_on: Iterable[str] | None = None) -> CacheValidator:
    """Until it expires, for the same values of some parameters of the flow.

    Parameters
    ----------
    validate_on : iterable of str, optional
        Names of the parameters; without any, every cached state that has not expired
        is accepted.
    """
    return _partial("partial_parameters_only", _same_parameters, validate_on)


def _partial(
    kind: str, rule: Rule, validate_on: Iterable[str] | None
) -> CacheValidator:
    if isinstance(validate_on, str):
        raise TypeError(
            f"{kind}(validate_on={validate_on!r}): give names in a list, "
            f"[{validate_on!r}]."
        )
    names = frozenset(validate_on or ())
    for name in names:
        if not isinstance(name, str):
            raise TypeError(
                f"{kind}: the names in validate_on are strings, not {name!r}."
            )
    return CacheValidator(f"{kind}(validate_on={sorted(names)!r})", rule, names)
