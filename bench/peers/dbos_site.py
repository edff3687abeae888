"""DBOS's part of W8: FastAPI on uvicorn, with DBOS as `bench/peers/dbos_bench.py` tunes it.

Uvicorn with uvloop and httptools, its access log off; the handlers start workflows and await them as coroutines, as
DBOS's documentation of FastAPI does.
"""

from __future__ import annotations

import asyncio
import os
import socket

import uvicorn
from dbos import DBOS
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from bench import harness
from bench.peers.dbos_bench import config, no_steps

app = FastAPI()


class Order(BaseModel):
    item: str


@app.post("/bare", response_class=PlainTextResponse)
async def bare(order: Order) -> str:
    return order.item


@app.post("/spawn", response_class=PlainTextResponse)
async def spawn(order: Order) -> str:
    handle = await DBOS.start_workflow_async(no_steps, order.item)
    return handle.workflow_id


@app.post("/result", response_class=PlainTextResponse)
async def result(order: Order) -> str:
    return await no_steps(order.item)


async def main() -> None:
    DBOS(config=config(os.environ[harness.DATABASE_URL]))
    DBOS.launch()
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, http="httptools"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await harness.parent_says_go({"bench": "serving", "port": listening.getsockname()[1]})
    serving.cancel()
    os._exit(0)  # DBOS.destroy() waits for its threads, and nothing is left to do


if __name__ == "__main__":
    harness.run(main())
