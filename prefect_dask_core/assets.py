"""Assets: data outside of the flow that tasks read or make, known by their keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prefect_dask_core.context import context
from prefect_dask_core.errors import (
    MissingContextError,
    OptionTypeError,
    OptionValueError,
)

#: A URI: a scheme in lower case, and a path without whitespace or reserved characters.
_KEY: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s?#%&<>\"'\\{}|^`\[\]]+")
#: Longest key and longest description, in characters.
LONGEST_KEY: Final = 512
LONGEST_DESCRIPTION: Final = 2500


@dataclass(frozen=True, slots=True)
class AssetProperties:
    """What people want to know of an asset.

    Parameters
    ----------
    name, url, description : str, optional
        For people.
    owners : tuple of str
        Who is responsible.
    """

    name: str | None = None
    url: str | None = None
    description: str | None = None
    owners: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "owners", tuple(self.owners or ()))
        if self.description and len(self.description) > LONGEST_DESCRIPTION:
            raise OptionValueError(
                f"the description of an asset has {len(self.description)} characters, "
                f"and at most {LONGEST_DESCRIPTION} are possible; give a url instead."
            )


@dataclass(frozen=True, slots=True)
class Asset:
    """Data outside of the flow.

    Parameters
    ----------
    key : str
        A URI, such as ``"s3://bucket/sales.csv"``. Assets are equal if their keys are.
    properties : AssetProperties, optional
        For people.

    Raises
    ------
    OptionValueError
        If the key is no such URI.

    Examples
    --------
    >>> Asset("s3://bucket/sales.csv") == Asset("s3://bucket/sales.csv")
    True
    >>> Asset("sales.csv")
    Traceback (most recent call last):
    prefect_dask_core.errors.OptionValueError: 'sales.csv' is no key of an asset; ...
    """

    key: str
    properties: AssetProperties | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.key, str):
            raise OptionTypeError(f"the key of an asset is a string, not {self.key!r}.")
        if len(self.key) > LONGEST_KEY or not _KEY.fullmatch(self.key):
            raise OptionValueError(
                f"{self.key!r} is no key of an asset; write a URI such as "
                f"'s3://bucket/sales.csv', of at most {LONGEST_KEY} characters, "
                "without whitespace or any of ?#%&<>\"'\\{}|^`[]."
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Asset) and other.key == self.key

    def __hash__(self) -> int:
        return hash((Asset, self.key))

    def add_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Add to what the running task records of this asset; see below."""
        add_asset_metadata(self, metadata)


def as_assets(given: Iterable[Asset | str]) -> tuple[Asset, ...]:
    """Assets, from assets and keys.

    Examples
    --------
    >>> as_assets(["db://sales"])
    (Asset(key='db://sales', properties=None),)
    """
    return tuple(item if isinstance(item, Asset) else Asset(item) for item in given)


def add_asset_metadata(asset: Asset | str, metadata: Mapping[str, Any]) -> None:
    """Add to what the running task records of one of its assets.

    Parameters
    ----------
    asset : Asset or str
        An asset that the task materializes, or its key.
    metadata : mapping of str to object
        Merged into what earlier calls gave.

    Raises
    ------
    MissingContextError
        Outside of a running task.
    OptionValueError
        If the task does not materialize the asset.
    """
    key = asset.key if isinstance(asset, Asset) else asset
    notes: dict[str, dict[str, Any]] | None = context.get("_asset_notes")
    if notes is None:
        raise MissingContextError(
            f"metadata of the asset {key!r} can only be added in the body of a running "
            "task that materializes it."
        )
    if key not in notes:
        known = ", ".join(map(repr, notes)) or "none"
        raise OptionValueError(
            f"the running task does not materialize {key!r}, but: {known}; name it in "
            "@materialize(...)."
        )
    notes[key].update(metadata)
