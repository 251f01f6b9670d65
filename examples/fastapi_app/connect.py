"""How a customer's OpenRouter key gets into the app: granted at OpenRouter in two clicks, or pasted into a form."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse

import kwai_middleware as kwai
from kwai_middleware import openrouter

pages = APIRouter(prefix="/connect")

Name = tuple[str | None, str | None, str | None]


def name_of(caller: kwai.Caller) -> Name:
    """By whom a customer is known: two issuers, or two organisations, may each have a customer 42."""
    return caller.issuer, caller.group, caller.identifier


# 1. Where the keys are. This belongs in your vault, encrypted, beside the customer: here it ends with the process.
vault: dict[Name, kwai.Secret] = {}

# Who is at OpenRouter just now. This belongs in your sessions on the server.
on_the_way: dict[Name, openrouter.Authorization] = {}


def keys_of(caller: kwai.Caller) -> tuple[kwai.Credential, ...]:
    """What the vault has for a customer. A function that asks a database may be async."""
    key = vault.get(name_of(caller))
    return () if key is None else (kwai.Credential(api_key=key),)


# 2. For the middleware: asked at the first model call of a customer who brought no key, then remembered for a minute.
keys = kwai.KeyResolver(keys_of, ttl=60)


def keep(caller: kwai.Caller, key: kwai.Secret) -> None:
    """Let this key pay from the next call on."""
    vault[name_of(caller)] = key
    keys.forget(caller)


async def signed_in() -> kwai.Caller:
    """The customer of this request; nobody connects a key to nobody."""
    caller = kwai.current_caller()
    if caller is None or caller.identifier is None:
        raise HTTPException(401, "Sign in first.")
    return caller


Customer = Annotated[kwai.Caller, Depends(signed_in)]


@contextlib.contextmanager
def trouble_is_told() -> Iterator[None]:
    """What goes wrong is the customer's to know: the messages say what to do, and hold no key."""
    try:
        yield
    except (openrouter.InvalidKey, openrouter.InvalidCode) as error:
        raise HTTPException(400, str(error)) from None
    except openrouter.OpenRouterUnavailable as error:
        raise HTTPException(503, str(error), {"Retry-After": f"{error.retry_after or 60:.0f}"}) from None


# 3. The page. A key is never shown again, only its fingerprint.
@pages.get("", response_class=HTMLResponse)
async def page(caller: Customer) -> str:
    """What is connected, and both ways to connect."""
    key = vault.get(name_of(caller))
    status = "No key is connected." if key is None else f"Connected: the key {key.fingerprint} pays."
    return f"""<!doctype html>
<title>OpenRouter</title>
<p>{status}</p>
<p><a href="connect/start">Connect OpenRouter</a></p>
<form method="post" action="connect/key">
<label>or paste a key: <input name="key" type="password" autocomplete="off"></label> <button>Save</button>
</form>
"""


# 4. Granted at OpenRouter: the customer goes there, agrees, and comes back with a code.
@pages.get("/start")
async def start(request: Request, caller: Customer) -> RedirectResponse:
    """Send the customer to OpenRouter."""
    begun = openrouter.start_authorization(str(request.url_for("callback")))
    on_the_way[name_of(caller)] = begun
    return RedirectResponse(begun.url, 303)


@pages.get("/callback")
async def callback(caller: Customer, state: str = "", code: str = "") -> RedirectResponse:
    """Take the code that the customer has come back with."""
    begun = on_the_way.get(name_of(caller))
    if begun is None or not begun.is_answered_by(state):
        # A link that somebody else sent: it would connect a key of theirs here, or the customer's key there.
        raise HTTPException(400, "You have not asked for this here: connect OpenRouter once more.")
    with trouble_is_told():
        granted = await openrouter.aexchange_code(code, begun.code_verifier)
    if on_the_way.get(name_of(caller)) is begun:  # and not one that another tab has begun meanwhile
        del on_the_way[name_of(caller)]
    keep(caller, granted.key)
    return RedirectResponse("../connect", 303)


# 5. Pasted: it is asked about before it is kept.
@pages.post("/key")
async def paste(request: Request, caller: Customer) -> dict[str, str | float | None]:
    """Keep a key that OpenRouter accepts and that pays for calls."""
    from_here = {"sec-fetch-site": "same-origin", "origin": f"{request.url.scheme}://{request.url.netloc}"}
    if any(request.headers.get(name, expected) != expected for name, expected in from_here.items()):
        raise HTTPException(403, "This form was sent from another site.")
    with trouble_is_told():
        info = await openrouter.avalidate_key(await pasted(request))
    if info.objection:
        raise HTTPException(400, info.objection)
    keep(caller, info.key)
    return {"connected": info.key.fingerprint, "limit": info.limit, "remaining": info.remaining}


async def pasted(request: Request) -> str:
    """The key in the form."""
    return parse_qs((await request.body()).decode("utf-8", "replace")).get("key", [""])[0]
