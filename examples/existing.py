"""A Quart application that was there before, and goes on as it was: its routes, its error pages, its server.

    hypercorn examples.existing:quart
    curl localhost:8000
    curl -X POST localhost:8000/sign-ups/Ada      # an old route, which starts a workflow now
    curl localhost:8000/greeting/Ada              # a new one, of Operon

What is new begins with `import operon`; `Operon(..., quart=quart)` starts and stops with the server.
"""

from quart import Quart

import operon
from operon import CommunicatorContext, WorkflowContext

quart = Quart(__name__)


@quart.get("/")
async def index() -> str:
    return "The old front page."


@quart.errorhandler(404)
async def missing(error: Exception) -> tuple[str, int]:
    return "The old page for what is not there.", 404


@quart.post("/sign-ups/<name>")
async def sign_up(name: str) -> str:
    handle = await greet(app.context(), name)  # durable from here on, whatever becomes of this request
    return f"Signed up: {await handle.get_result()}"


@operon.communicator
async def deliver(ctx: CommunicatorContext, greeting: str) -> None:
    ctx.logger.info("Delivered: %s", greeting)


@operon.get("/greeting/<name>")
@operon.workflow
async def greet(ctx: WorkflowContext, name: str) -> str:
    await deliver(ctx, f"Hello, {name}!")
    return f"Hello, {name}!"


app = operon.Operon(__name__, quart=quart)
