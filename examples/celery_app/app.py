"""A FastAPI backend that leaves long work to a task queue, without a customer's key in it."""

from __future__ import annotations

import os
from typing import Annotated, Any

from celery import Celery  # type: ignore[import-untyped]  # Celery comes without types
from celery.exceptions import TimeoutError as StillWaiting  # type: ignore[import-untyped]  # the same
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel

import kwai_middleware as kwai

# 1. The queue. The app knows a task by its name only; tasks.py runs in another process.
redis_url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
queue = Celery(broker=redis_url, backend=redis_url)

# 2. The app. The middleware binds each request's customer.
app = FastAPI()
app.add_middleware(kwai.ASGIMiddleware, required=True)


class Text(BaseModel):
    """What a customer wants to have summarised."""

    text: str


async def customer() -> kwai.Caller:
    """Who the request is for."""
    caller = kwai.current_caller()
    if caller is None:
        raise HTTPException(401)
    return caller


# 3. What goes into the queue is a reference: who the customer is, signed, good for a day, and no key.
@app.post("/summaries", status_code=202)
def start(content: Text, caller: Annotated[kwai.Caller, Depends(customer)]) -> dict[str, str]:
    """Begin a summary; `id` tells which one it is."""
    task = queue.send_task("tasks.summarise", args=[caller.reference(), content.text])
    return {"id": task.id}


@app.get("/summaries/{task_id}")
def summary(task_id: str, caller: Annotated[kwai.Caller, Depends(customer)]) -> dict[str, Any]:
    """Return a summary as soon as it is there, within half a minute; to the customer whose it is."""
    result = queue.AsyncResult(task_id)
    try:
        done = result.get(timeout=30, propagate=False)
    except StillWaiting:
        raise HTTPException(504) from None
    if result.failed():
        raise HTTPException(502)
    if done["customer"] != caller.identifier:
        raise HTTPException(404)
    return {"summary": done["summary"]}
