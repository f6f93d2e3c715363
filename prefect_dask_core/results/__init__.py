"""Results: where the values of tasks are kept, in which form and under which key."""

from prefect_dask_core.results.locks import (
    FileSystemLockManager,
    LockManager,
    MemoryLockManager,
)
from prefect_dask_core.results.metadata import ResultMetadata
from prefect_dask_core.results.policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CacheKeyFnPolicy,
    CachePolicy,
    IsolationLevel,
    task_input_hash,
)
from prefect_dask_core.results.result import (
    ConstantResult,
    HandlerResult,
    LocalResult,
    PrefectResult,
    Result,
)
from prefect_dask_core.results.serializers import (
    CompressedSerializer,
    DateTimeSerializer,
    JSONSerializer,
    PandasSerializer,
    PickleSerializer,
    Serializer,
)
from prefect_dask_core.results.store import ResultRecord, ResultStore
from prefect_dask_core.results.transaction_blocks import atransaction, transaction
from prefect_dask_core.results.transactions import (
    CommitMode,
    Transaction,
    TransactionState,
    get_transaction,
)

__all__ = [
    "DEFAULT",
    "FLOW_PARAMETERS",
    "INPUTS",
    "NONE",
    "NO_CACHE",
    "RUN_ID",
    "TASK_SOURCE",
    "CacheKeyFnPolicy",
    "CachePolicy",
    "CommitMode",
    "CompressedSerializer",
    "ConstantResult",
    "DateTimeSerializer",
    "FileSystemLockManager",
    "HandlerResult",
    "IsolationLevel",
    "JSONSerializer",
    "LocalResult",
    "LockManager",
    "MemoryLockManager",
    "PandasSerializer",
    "PickleSerializer",
    "PrefectResult",
    "Result",
    "ResultMetadata",
    "ResultRecord",
    "ResultStore",
    "Serializer",
    "Transaction",
    "TransactionState",
    "atransaction",
    "get_transaction",
    "task_input_hash",
    "transaction",
]
