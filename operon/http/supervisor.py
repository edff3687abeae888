"""`GET /operon/supervisor`: the supervision tree over all executors, for operators.

?executor=N           of this executor only
?depth=N              so many levels of each tree
?name=OPERATION       workflows of this name
?uuid=WORKFLOW        this workflow, and why it is where it is
?limit=N&after=UUID   pages of the workflows that are live in the executor that answers
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta
from quart.globals import request_ctx
from quart.wrappers import Response
from werkzeug.exceptions import NotFound

from operon.config import Settings
from operon.errors import NotAuthorizedError, RequestError
from operon.http import problems
from operon.http.admin import Verdict, is_served, verdict
from operon.masking import masked_logger
from operon.runtime.overview import Overview, Question

PATH = "/operon/supervisor"

logger = masked_logger("operon.http")


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query string."""

    name: Annotated[str, Meta(max_length=200)] | None = None
    uuid: UUID | None = None
    depth: Annotated[int, Meta(ge=0, le=100)] | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    after: UUID | None = None
    executor: Annotated[int, Meta(ge=1)] | None = None


def supervision(overview: Callable[[], Overview], settings: Settings) -> dict[str, Callable[[], Awaitable[Response]]]:
    """What to answer under which path; nothing where nobody could be let in."""
    if not is_served(settings):
        logger.warning(
            "%s is not served: it listens on %s, and there is no admin_token of at least 32 characters",
            PATH,
            settings.host,
        )
        return {}

    async def page() -> Response:
        request = request_ctx.request
        try:
            match verdict(request, settings.admin_token):
                case Verdict.UNKNOWN:
                    raise NotFound
                case Verdict.NO_TOKEN:
                    raise NotAuthorizedError("this needs the token of an administrator", status=401)
                case Verdict.LET_IN:
                    found = await overview().answer(question(request.args.to_dict()))
        except NotFound:
            raise
        except Exception as error:
            response = problems.answer(error, request)
        else:
            response = Response(msgspec.json.encode(found), content_type="application/json")
        response.headers["cache-control"] = "no-store"
        response.headers["x-content-type-options"] = "nosniff"
        return response

    return {PATH: page}


def question(arguments: Mapping[str, Any]) -> Question:
    """What a query string asks for. Raises RequestError."""
    try:
        asked = msgspec.convert(arguments, Asked, strict=False)
    except msgspec.ValidationError as error:
        raise RequestError(f"the query string is not understood: {error}") from None
    return Question(asked.name, asked.uuid, asked.depth, asked.limit, asked.after, asked.executor)
