"""Refunds over an API: a token says who asks, and a refund remembers who asked for it when its server is killed."""

# pyright: reportUnknownMemberType=false
# PyJWT's types name those of `cryptography`, which HS256 does not need.

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import uuid4

import jwt
import pytest
from quart.typing import TestClientProtocol as HttpClient

from examples import jwt_api
from examples.jwt_api import Refunds, token_of
from examples.pretend_bank import PretendBank
from operon.testing import TestRuntime
from tests.examples.served import Answer, served

PAID = re.compile("charged -100 cents")
BODY = {"card": "4242", "cents": 100}


@pytest.fixture
async def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[TestRuntime]:
    monkeypatch.setattr(jwt_api, "bank", PretendBank(tmp_path / "ledger.txt", answer_seconds=0))
    async with TestRuntime(Refunds) as runtime:
        yield runtime


@pytest.fixture
def client(runtime: TestRuntime) -> HttpClient:
    return runtime.app.quart.test_client()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_support_pays_back_and_an_auditor_sees_it(client: HttpClient) -> None:
    paid = await client.post("/refunds", json=BODY, headers=bearer(token_of("ada", "support")))
    seen = await client.get("/refunds", headers=bearer(token_of("eve", "auditor")))

    assert await paid.get_json() is True
    assert await seen.get_json() == ["ada: 100 cents to 4242"]


async def test_who_has_no_token_or_the_wrong_role_is_refused(client: HttpClient) -> None:
    anybody = await client.post("/refunds", json=BODY)
    basic = await client.post("/refunds", json=BODY, headers={"authorization": "Basic YTpi"})
    auditor = await client.post("/refunds", json=BODY, headers=bearer(token_of("eve", "auditor")))
    support = await client.get("/refunds", headers=bearer(token_of("ada", "support")))

    assert [answer.status_code for answer in (anybody, basic, auditor, support)] == [401, 401, 403, 403]


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        token_of("ada", "support", seconds=-60),
        jwt.encode({"sub": "ada", "roles": ["support"], "exp": 4_000_000_000}, "another secret " * 3, "HS256"),
        jwt.encode({"sub": "ada", "roles": ["support"], "exp": 4_000_000_000}, None, "none"),
        jwt.encode({"sub": "ada", "roles": ["support"]}, jwt_api.SECRET, "HS256"),
    ],
    ids=["malformed", "expired", "forged", "unsigned", "for ever"],
)
async def test_a_token_that_is_not_valid_is_401_and_says_so(client: HttpClient, token: str) -> None:
    answer = await client.post("/refunds", json=BODY, headers=bearer(token))

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')


async def test_a_colleague_s_refund_is_not_found(client: HttpClient) -> None:
    paid = await client.post("/refunds", json=BODY, headers=bearer(token_of("ada", "support")))
    path = f"/refunds/{paid.headers['operon-workflowuuid']}"

    own = await client.get(path, headers=bearer(token_of("ada", "support")))
    other = await client.get(path, headers=bearer(token_of("bob", "support")))

    assert (own.status_code, other.status_code) == (200, 404)


async def test_the_module_prints_a_token() -> None:
    printed = await asyncio.to_thread(
        subprocess.check_output, [sys.executable, "-m", "examples.jwt_api", "ada", "support"], text=True
    )

    claims = jwt.decode(printed.strip(), jwt_api.SECRET, algorithms=["HS256"])
    assert (claims["sub"], claims["roles"]) == ("ada", ["support"])


async def test_a_refund_goes_on_with_its_user_s_roles_when_its_server_is_killed(
    database_url: str, tmp_path: Path
) -> None:
    key = str(uuid4())
    ada, bob = (f"Bearer {token_of(user, 'support')}" for user in ("ada", "bob"))
    async with served("examples.jwt_api", tmp_path, "--database-url", database_url) as api:
        request = asyncio.create_task(api.post("/refunds", BODY, Idempotency_Key=key, Authorization=ada))
        await api.said(PAID)  # the money is on its way, and the refund is not booked yet
        await api.kill()
        with pytest.raises(OSError):
            await request

    async with served("examples.jwt_api", tmp_path, "--database-url", database_url) as api:
        again = await api.post("/refunds", BODY, Idempotency_Key=key, Authorization=ada)
        other = await api.post("/refunds", BODY, Idempotency_Key=key, Authorization=bob)
        auditor = f"Bearer {token_of('eve', 'auditor')}"
        booked = await api.get("/refunds", Authorization=auditor)

    assert again == Answer(200, True)
    assert other.status == 409
    assert booked == Answer(200, ["ada: 100 cents to 4242"])
    assert len(PretendBank(tmp_path / ".operon/ledger.txt", 0).charged()) == 1
