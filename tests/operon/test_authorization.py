"""Who may call what: the decision, and what decorators say for it."""

from __future__ import annotations

from typing import Any

import pytest

import operon
from operon.authorization import authorized, caller_named, judge, rules_of
from operon.caller import NOBODY, Caller
from operon.catalog import Catalog
from operon.contexts import HandlerContext, TransactionContext
from operon.errors import CatalogError, InvocationError, NotAuthorizedError

anyhow: Any = operon  # for decorations that a type checker refuses too

ADA = Caller("ada", ("clerk", "admin"))
BOB = Caller("bob")


def nobody_known(ctx: operon.MiddlewareContext) -> None:
    return None


def somebody(ctx: operon.MiddlewareContext) -> operon.Authenticated:
    return operon.Authenticated("somebody")


async def outer(ctx: operon.MiddlewareContext, call_next: Any) -> Any:
    return await call_next()


async def inner(ctx: operon.MiddlewareContext, call_next: Any) -> Any:
    return await call_next()


async def innermost(ctx: operon.MiddlewareContext, call_next: Any) -> Any:
    return await call_next()


def test_no_required_role_lets_everyone_through_as_they_are() -> None:
    assert judge("op", (), NOBODY) is NOBODY
    assert judge("op", (), ADA) is ADA


def test_the_first_required_role_that_the_caller_has_is_assumed() -> None:
    verdict = judge("op", ("auditor", "admin", "clerk"), ADA)

    assert isinstance(verdict, Caller)
    assert (verdict.user, verdict.roles, verdict.assumed_role) == ("ada", ("clerk", "admin"), "admin")


@pytest.mark.parametrize(("caller", "status"), [(NOBODY, 401), (BOB, 403), (Caller(roles=("guest",)), 401)])
def test_somebody_unknown_is_401_and_somebody_without_a_role_403(caller: Caller, status: int) -> None:
    with pytest.raises(NotAuthorizedError) as refused:
        authorized("refund", ("admin", "auditor"), caller)

    assert refused.value.status == status


def test_a_refusal_says_what_would_be_needed() -> None:
    with pytest.raises(NotAuthorizedError) as refused:
        authorized("refund", ("admin", "auditor"), BOB)

    assert refused.value.message == "refund requires one of these roles: admin, auditor"


@pytest.mark.parametrize("roles", ["admin", b"admin", 7, None, ("",), (1,), ("a\nb",), ("a" * 256,), ("a",) * 1001])
def test_roles_that_could_not_be_compared_are_refused(roles: Any) -> None:
    with pytest.raises(InvocationError):
        operon.Authenticated("ada", roles)


@pytest.mark.parametrize("user", ["", None, 7, "a\0b", "a\nb", "\udc80", "a" * 256])
def test_a_user_that_could_not_be_stored_is_refused(user: Any) -> None:
    with pytest.raises(InvocationError):
        operon.Authenticated(user)


def test_roles_may_be_any_sequence_or_set() -> None:
    assert operon.Authenticated("ada", ["admin"]).roles == ("admin",)
    assert operon.Authenticated("ada", frozenset({"admin"})).roles == ("admin",)  # type: ignore[arg-type]
    assert operon.Authenticated("Zoë \u200dŁukasz").user == "Zoë \u200dŁukasz"


def test_a_script_may_speak_for_nobody_for_a_user_or_for_roles_alone() -> None:
    assert caller_named(None, ()) is NOBODY
    assert caller_named("ada", ["admin"]) == Caller("ada", ("admin",))
    assert caller_named(None, ("admin",)) == Caller(None, ("admin",))
    with pytest.raises(InvocationError):
        caller_named("ada", "admin")


def test_roles_go_above_or_below_the_decorator_of_the_operation() -> None:
    class Desk:
        @operon.required_roles("above")
        @operon.transaction
        @staticmethod
        async def above(tx: TransactionContext) -> None: ...

        @operon.transaction
        @operon.required_roles("below")
        @staticmethod
        async def below(tx: TransactionContext) -> None: ...

        @operon.transaction
        @staticmethod
        @operon.required_roles("bottom")
        async def bottom(tx: TransactionContext) -> None: ...

        @operon.required_roles("top")
        @operon.get("/top")
        @operon.transaction
        @staticmethod
        async def top(tx: TransactionContext) -> None: ...

        @operon.get("/between")
        @operon.required_roles("between")
        @staticmethod
        async def between(ctx: HandlerContext) -> None: ...

    functions: list[Any] = [Desk.above, Desk.below, Desk.bottom, Desk.top, Desk.between]

    assert [fn.required_roles for fn in functions] == [("above",), ("below",), ("bottom",), ("top",), ("between",)]


def test_a_class_s_roles_are_for_what_declares_none_also_in_subclasses() -> None:
    @operon.default_required_roles("user")
    class Shop:
        @operon.transaction
        @staticmethod
        async def defaulted(tx: TransactionContext) -> None: ...

        @operon.required_roles("admin")
        @operon.transaction
        @staticmethod
        async def own(tx: TransactionContext) -> None: ...

        @operon.required_roles()
        @operon.transaction
        @staticmethod
        async def opened(tx: TransactionContext) -> None: ...

    class Branch(Shop):
        @operon.transaction
        @staticmethod
        async def added(tx: TransactionContext) -> None: ...

    @operon.transaction
    async def outside(tx: TransactionContext) -> None: ...

    functions: list[Any] = [Shop.defaulted, Shop.own, Shop.opened, Branch.added, outside]

    assert [fn.required_roles for fn in functions] == [("user",), ("admin",), (), ("user",), None]


def test_middleware_runs_as_it_is_written_a_base_s_first() -> None:
    @operon.middleware(outer)
    class Base: ...

    @operon.middleware(inner)
    @operon.middleware(innermost)
    class Derived(Base): ...

    assert rules_of(Derived).middleware == (outer, inner, innermost)
    assert rules_of(Base).middleware == (outer,)


def test_a_subclass_s_own_authentication_wins() -> None:
    @operon.authentication(nobody_known)
    class Base: ...

    @operon.authentication(somebody)
    class Derived(Base): ...

    assert rules_of(Derived).authentication is somebody
    assert rules_of(Base).authentication is nobody_known


def test_stricter_rules_for_what_is_inherited_are_refused_because_they_would_not_hold() -> None:
    class Crud:
        @operon.transaction
        @staticmethod
        async def remove(tx: TransactionContext) -> None: ...

    @operon.default_required_roles("admin")
    class Admin(Crud): ...

    class Same(Crud): ...

    Catalog(Crud, Same)
    with pytest.raises(CatalogError, match=r"other roles.*Crud.*Crud\.remove") as refused:
        Catalog(Admin)

    assert "decorate" in str(refused.value.hint)


def test_roles_of_a_function_that_is_no_operation_are_refused() -> None:
    class Forgotten:
        @operon.required_roles("admin")
        @staticmethod
        async def refund(tx: TransactionContext) -> None: ...

    with pytest.raises(CatalogError, match=r"Forgotten\.refund requires roles, and nothing would check them"):
        Catalog(Forgotten)


def test_a_class_decorator_on_a_function_and_the_other_way_round_are_refused() -> None:
    async def fn() -> None: ...

    class Thing: ...

    for decorate in (
        operon.authentication(somebody),
        operon.default_required_roles("admin"),
        operon.middleware(outer),
    ):
        with pytest.raises(CatalogError, match="decorates classes"):
            decorate(fn)  # type: ignore[type-var]
    with pytest.raises(CatalogError, match="decorates functions"):
        operon.required_roles("admin")(Thing)


def test_decorators_without_their_arguments_are_refused() -> None:
    async def fn() -> None: ...

    class Thing: ...

    for decorator, given in (
        (anyhow.authentication, Thing),
        (anyhow.middleware, Thing),
        (anyhow.authentication, None),
        (anyhow.required_roles, fn),
        (anyhow.required_roles, ["admin", "auditor"]),
        (anyhow.default_required_roles, Thing),
    ):
        with pytest.raises(CatalogError) as refused:
            decorator(given)
        assert refused.value.hint


def test_a_middleware_that_does_not_wait_is_refused_and_an_object_that_does_is_not() -> None:
    def plain(ctx: operon.MiddlewareContext, call_next: Any) -> Any:
        return None

    class Timer:
        async def __call__(self, ctx: operon.MiddlewareContext, call_next: Any) -> Any:
            return await call_next()

    operon.middleware(Timer())
    with pytest.raises(CatalogError, match="not `async def`"):
        operon.middleware(plain)


def test_roles_given_twice_are_refused_because_either_would_do() -> None:
    with pytest.raises(CatalogError, match=r"two @operon\.required_roles"):

        @operon.required_roles("admin")
        @operon.transaction
        @operon.required_roles("auditor")
        async def refund(tx: TransactionContext) -> None: ...


def test_two_authentication_functions_for_one_class_are_refused() -> None:
    with pytest.raises(CatalogError, match="two authentication functions"):

        @operon.authentication(somebody)
        @operon.authentication(nobody_known)
        class Desk:
            pass
