"""Mistakes in the code of an application: found before anything runs, with the place and the way out."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

import operon
from operon.app import Operon
from operon.contexts import CommunicatorContext, HandlerContext, TransactionContext, WorkflowContext

anyhow: Any = operon  # for calls that a type checker refuses too


class Box:
    @operon.workflow(name="pack")
    @staticmethod
    async def pack(ctx: WorkflowContext) -> None: ...


class Crate:
    @operon.transaction(name="pack")
    @staticmethod
    async def pack(tx: TransactionContext) -> None: ...


class Shelf:
    @operon.get("/things/<thing>")
    @staticmethod
    async def one(ctx: HandlerContext, thing: str) -> None: ...


class Drawer:
    @operon.get("/things/<thing>")
    @staticmethod
    async def other(ctx: HandlerContext, thing: str) -> None: ...


def lines_of(error: BaseException) -> list[str]:
    return [word for word in str(error).split() if "test_declarations.py:" in word]


def test_two_operations_of_one_name_are_refused_with_both_places() -> None:
    app = Operon(Box, Crate)

    with pytest.raises(operon.CatalogError, match="two operations are named 'pack'") as clash:
        app.context()

    assert len(set(lines_of(clash.value))) == 2
    assert "name=" in str(clash.value.hint)


def test_two_functions_of_one_route_are_refused_with_both_places() -> None:
    app = Operon(Shelf, Drawer)

    with pytest.raises(operon.CatalogError, match="GET /things/<thing>") as clash:
        app.context()

    assert len(set(lines_of(clash.value))) == 2
    assert clash.value.hint


def test_an_operation_decorator_above_a_route_is_refused_where_it_is_written() -> None:
    with pytest.raises(operon.CatalogError, match="above another decorator") as refused:

        @anyhow.workflow  # type: ignore[untyped-decorator]
        @anyhow.post("/upside-down")  # type: ignore[untyped-decorator]
        async def upside_down(ctx: WorkflowContext) -> None: ...

    assert "route decorator at the top" in str(refused.value.hint)


def test_two_operation_decorators_are_refused() -> None:
    with pytest.raises(operon.CatalogError, match="above another decorator"):

        @anyhow.workflow  # type: ignore[untyped-decorator]
        @operon.transaction
        async def both(ctx: TransactionContext) -> None: ...


@pytest.mark.parametrize("isolation", ["SERIALISABLE", "serializable", "", "READ UNCOMMITTED"])
def test_an_unknown_isolation_level_is_refused_with_the_known_ones(isolation: str) -> None:
    with pytest.raises(operon.CatalogError, match="isolation level") as refused:

        @anyhow.transaction(isolation=isolation)  # type: ignore[untyped-decorator]
        async def careless(tx: TransactionContext) -> None: ...

    assert "READ COMMITTED, REPEATABLE READ, SERIALIZABLE" in str(refused.value.hint)


@pytest.mark.parametrize("decorator", ["workflow", "transaction"])
def test_a_synchronous_workflow_or_transaction_is_refused_with_its_place(decorator: str) -> None:
    with pytest.raises(operon.CatalogError, match="is not `async def`") as refused:

        @getattr(anyhow, decorator)  # type: ignore[untyped-decorator]
        def blocking(ctx: Any) -> None: ...

    assert len(lines_of(refused.value)) == 1
    assert refused.value.hint


def test_an_operation_without_a_context_is_refused() -> None:
    class Forgetful:
        @anyhow.workflow  # type: ignore[untyped-decorator]
        @staticmethod
        async def forgot() -> None: ...

    with pytest.raises(operon.CatalogError, match="takes no context") as refused:
        Operon(Forgetful).context()

    assert "ctx" in str(refused.value.hint)


def test_an_annotation_that_cannot_be_stored_is_refused_at_launch_with_the_argument() -> None:
    class Files:
        @operon.workflow
        @staticmethod
        async def read(ctx: WorkflowContext, connection: Operon) -> None: ...

    with pytest.raises(operon.CatalogError, match=r"Files.read: argument 'connection'") as refused:
        Operon(Files).context()

    assert refused.value.hint


def test_an_annotation_that_does_not_exist_is_refused_at_launch() -> None:
    class Lost:
        @anyhow.workflow  # type: ignore[untyped-decorator]
        @staticmethod
        async def find(ctx: WorkflowContext, what: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore

    with pytest.raises(operon.CatalogError, match="'Missing', cannot be resolved") as refused:
        Operon(Lost).context()

    assert refused.value.hint


def test_a_path_without_a_slash_is_refused_with_the_right_one() -> None:
    with pytest.raises(operon.CatalogError, match="does not begin with a slash") as refused:
        operon.get("shows")

    assert refused.value.hint == "write '/shows'"


def test_a_variable_of_a_path_that_is_no_parameter_is_refused_at_launch() -> None:
    class Shows:
        @operon.get("/shows/<shwo>")
        @staticmethod
        async def show(ctx: HandlerContext, show: str) -> None: ...

    with pytest.raises(operon.CatalogError, match="shwo"):
        _ = Operon(Shows).quart


@pytest.mark.parametrize(
    "options",
    [{"max_attempts": 0}, {"interval_seconds": -1}, {"backoff_rate": 0.5}, {"retry_on": "ValueError"}, {"jitter": 1}],
)
def test_a_retry_that_makes_no_sense_is_refused_with_the_option(options: dict[str, Any]) -> None:
    with pytest.raises(operon.ConfigurationError, match=next(iter(options))) as refused:
        operon.Retry(**options)

    assert refused.value.hint


@pytest.mark.parametrize("seconds", [0, -1.5])
def test_a_timeout_that_makes_no_sense_is_refused(seconds: float) -> None:
    with pytest.raises(operon.CatalogError, match="timeout_seconds"):

        @operon.communicator(timeout_seconds=seconds)
        async def hurried(ctx: CommunicatorContext) -> None: ...


def test_an_application_shows_its_quart_and_gives_contexts_where_no_event_loop_runs() -> None:
    app = Operon(Shelf)

    rules = [rule.rule for rule in app.quart.url_map.iter_rules()]

    assert "/things/<thing>" in rules
    assert app.context(user="ada").authenticated_user == "ada"


def test_an_application_of_nothing_is_refused() -> None:
    with pytest.raises(operon.ConfigurationError, match="nothing to run") as refused:
        Operon()

    assert refused.value.hint == "Operon(__name__, Class, ...)"


def test_a_module_that_is_not_imported_is_refused() -> None:
    with pytest.raises(operon.CatalogError, match=r"tests\.nowhere") as refused:
        Operon("tests.nowhere").context()

    assert refused.value.hint


@pytest.mark.parametrize(
    ("keyword", "suggested"), [("databse_url", "database_url"), ("heartbeat", "heartbeat_seconds"), ("Port", "port")]
)
def test_an_unknown_setting_is_refused_with_the_one_that_was_meant(keyword: str, suggested: str) -> None:
    with pytest.raises(operon.ConfigurationError, match=f"no setting '{keyword}'") as refused:
        anyhow.Operon(Box, **{keyword: "x"})

    assert refused.value.hint == f"did you mean {suggested!r}?"


@pytest.mark.parametrize(
    "settings",
    [
        {"port": "eighty"},
        {"lease_seconds": 0},
        {"lease_seconds": 3},
        {"pool_size": -1},
        {"env": "prod"},
        {"max_live": 1.5},
    ],
)
def test_a_setting_of_the_wrong_kind_is_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(operon.ConfigurationError, match=next(iter(settings))) as refused:
        _ = Operon(Box, **settings).settings

    assert refused.value.hint


def test_a_setting_of_the_environment_is_checked_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPERON_POOL_SIZE", "many")

    with pytest.raises(operon.ConfigurationError, match="pool_size"):
        _ = Operon(Box).settings


async def test_an_embedded_postgres_is_refused_in_production(tmp_path: Any) -> None:
    app = Operon(Box, env="production", data_dir=str(tmp_path / "postgres"))

    with pytest.raises(operon.DatabaseUnusable, match="production") as refused:
        async with app:
            pass

    assert "database_url" in str(refused.value.hint)
    assert not (tmp_path / "postgres").exists()


async def test_a_database_that_cannot_be_reached_is_refused_without_its_password() -> None:
    app = Operon(Box, database_url="postgresql://ada:s3cret@127.0.0.1:1/nowhere")

    with pytest.raises(operon.DatabaseUnusable, match=r"ada:\*\*\*@127\.0\.0\.1:1/nowhere") as refused:
        async with app:
            pass

    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in repr(app.settings)
    assert refused.value.hint


async def test_a_call_before_the_application_runs_says_how_to_run_it() -> None:
    app = Operon(Box)

    with pytest.raises(operon.ExecutorStopped) as refused:
        await Box.pack(app.context(workflow_uuid=UUID(int=1)))

    assert "async with app:" in str(refused.value.hint)
