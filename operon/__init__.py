"""Durable execution for Python: workflows as supervised actors over Postgres."""

from operon.app import Operon
from operon.codec import Masked
from operon.contexts import (
    ApplicationContext,
    CommunicatorContext,
    HandlerContext,
    InitializerContext,
    TransactionContext,
    WorkflowContext,
)
from operon.errors import (
    CatalogError,
    ConfigurationError,
    DatabaseUnavailable,
    DatabaseUnusable,
    DecodingError,
    EncodingError,
    ExecutorStopped,
    InputError,
    InvocationError,
    MaxRetriesExceeded,
    NondeterminismError,
    NonExistentWorkflowError,
    NotAuthorizedError,
    OperonError,
    OperonInternalError,
    OutputError,
    PortInUse,
    RemoteError,
    RequestError,
    ResultTimeout,
    SchemaTooNew,
    StepTimeout,
    UnknownOperationError,
    WorkflowCancelledError,
    WorkflowConflictError,
    WorkflowDeadError,
)
from operon.handles import WorkflowHandle
from operon.http.markers import Body, Header, Path, Query
from operon.operations import communicator, initializer, transaction, workflow
from operon.retry import Retry
from operon.routes import delete, get, patch, post, put
from operon.rows import Row
from operon.status import Status, WorkflowStatus

__version__ = "0.1.0"

__all__ = [
    "ApplicationContext",
    "Body",
    "CatalogError",
    "CommunicatorContext",
    "ConfigurationError",
    "DatabaseUnavailable",
    "DatabaseUnusable",
    "DecodingError",
    "EncodingError",
    "ExecutorStopped",
    "HandlerContext",
    "Header",
    "InitializerContext",
    "InputError",
    "InvocationError",
    "Masked",
    "MaxRetriesExceeded",
    "NonExistentWorkflowError",
    "NondeterminismError",
    "NotAuthorizedError",
    "Operon",
    "OperonError",
    "OperonInternalError",
    "OutputError",
    "Path",
    "PortInUse",
    "Query",
    "RemoteError",
    "RequestError",
    "ResultTimeout",
    "Retry",
    "Row",
    "SchemaTooNew",
    "Status",
    "StepTimeout",
    "TransactionContext",
    "UnknownOperationError",
    "WorkflowCancelledError",
    "WorkflowConflictError",
    "WorkflowContext",
    "WorkflowDeadError",
    "WorkflowHandle",
    "WorkflowStatus",
    "communicator",
    "delete",
    "get",
    "initializer",
    "patch",
    "post",
    "put",
    "transaction",
    "workflow",
]
