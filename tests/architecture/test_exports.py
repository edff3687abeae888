"""The names that applications may import, exactly. A name that is added or taken away is a decision, made here too."""

from __future__ import annotations

from types import ModuleType

import pytest

import actors
import operon
import operon.testing

OPERON = """
    ApplicationContext Authenticated Body CallNext CatalogError ChildSpec CommunicatorContext ConfigurationError
    DOWN DatabaseUnavailable DatabaseUnusable DecodingError Down DuplicateEventError EncodingError EventKey
    ExecutorFull ExecutorStopped HandlerContext Header InitializerContext InputError Intensity IntensityExceeded
    InvocationError MailboxFull Masked MaxRetriesExceeded MiddlewareContext NonExistentWorkflowError
    NondeterminismError NotAuthorizedError Operon OperonError OperonInternalError OutputError Path PortInUse Query
    Received RecvTimeout RemoteError RequestError ResultTimeout Retry Row SchemaTooNew Status StepTimeout Topic
    TransactionContext UnknownOperationError WorkflowCancelledError WorkflowConflictError WorkflowContext
    WorkflowDeadError WorkflowFinishedError WorkflowHandle WorkflowStatus WorkflowTimeout authentication child
    communicator default_required_roles delete get initializer middleware patch post put required_roles
    security_scheme supervise transaction workflow
"""

ACTORS = """
    Actor ActorCrashed ActorDead ActorsError AskTimeout Backoff ChildSnapshot ChildSpec ChildStartFailed ChildState
    Clock Crashed Down DynamicChild DynamicSupervisor Event Exit Happening Host Intensity IntensityExceeded
    Lifetime Mailbox MailboxFull MemoryMailbox Monitor NameTaken NoSuchChild Normal Ref Registry Reply Restart
    Shutdown Started Stopped Strategy Supervisor SupervisorNotRunning SupervisorSnapshot SupervisorState
    SupervisorSuspended Timer TooManyChildren Verdict Zombie decide spawn_actor
"""

TESTING = "TestRuntime"


@pytest.mark.parametrize(
    ("module", "names"),
    [(operon, OPERON), (actors, ACTORS), (operon.testing, TESTING)],
    ids=lambda it: getattr(it, "__name__", ""),
)
def test_a_module_exports_exactly_these_names(module: ModuleType, names: str) -> None:
    exported = module.__all__

    assert sorted(exported) == sorted(names.split())


@pytest.mark.parametrize("module", [operon, actors, operon.testing], ids=lambda module: module.__name__)
def test_every_exported_name_is_there(module: ModuleType) -> None:
    missing = [name for name in module.__all__ if not hasattr(module, name)]

    assert missing == []
