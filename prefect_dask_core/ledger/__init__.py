"""Ledger: records of flow runs in a database, for history, reports and resume."""

from prefect_dask_core.ledger.columns import PLAIN, Kept, Span
from prefect_dask_core.ledger.reading import Ledger, LedgerRun, NodeColumns
from prefect_dask_core.ledger.records import (
    AssetRecord,
    AttemptRecord,
    DetailRecord,
    InputRecord,
    NodeRecord,
    ParameterRecord,
    RunRecord,
)
from prefect_dask_core.ledger.writing import Batch, RunWriter

__all__ = [
    "PLAIN",
    "AssetRecord",
    "AttemptRecord",
    "Batch",
    "DetailRecord",
    "InputRecord",
    "Kept",
    "Ledger",
    "LedgerRun",
    "NodeColumns",
    "NodeRecord",
    "ParameterRecord",
    "RunRecord",
    "RunWriter",
    "Span",
]
