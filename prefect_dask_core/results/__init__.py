"""Results: where the values of tasks are kept, and in which form."""

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

__all__ = [
    "CompressedSerializer",
    "ConstantResult",
    "DateTimeSerializer",
    "HandlerResult",
    "JSONSerializer",
    "LocalResult",
    "PandasSerializer",
    "PickleSerializer",
    "PrefectResult",
    "Result",
    "Serializer",
]
