"""A FastAPI app that tells whose token came, by the keys at the URL in the variable ISSUER."""

from __future__ import annotations

import os

from fastapi import FastAPI

from kwai_middleware import ASGIMiddleware, current_caller
from kwai_middleware.jwt_identity import JWTIdentity
from tests.support.issuer import AUDIENCE, NAME

app = FastAPI()
app.add_middleware(
    ASGIMiddleware, identify=JWTIdentity(jwks_url=os.environ["ISSUER"], issuer=NAME, audience=AUDIENCE, strip=True)
)


@app.get("/")
async def who() -> dict[str, str | None]:
    """Who is current."""
    caller = current_caller()
    return {"who": None if caller is None else caller.identifier}
