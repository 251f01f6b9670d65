"""Each endpoint of models: key and customer travel where its reference says, and its record says what it was."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kwai_middleware import Secret
from kwai_middleware._delivery.log_entry import encode
from kwai_middleware.errors import CannotAttribute
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of
from tests.support.flavours import Flavour
from tests.support.wired import ANTHROPIC, RELAY, wired, wired_call

API = GATEWAY.removesuffix("/chat/completions")
DIRECT = OPENROUTER.removesuffix("/chat/completions")
CREDENTIALS = {"openrouter": {"api_key": key_of("acme")}}
PARAMS = {"customer_identifier": "acme"}
BOTH = {"customer_credentials": CREDENTIALS, "customer_params": PARAMS}


@pytest.mark.parametrize(
    ("url", "added"),
    [
        (f"{API}/embeddings", BOTH),
        (f"{API}/audio/speech", BOTH),
        (f"{API}/responses", {"respan_params": BOTH}),
        (f"{API}/audio/transcription", BOTH),
    ],
)
def test_an_endpoint_of_the_gateway(flavour: Flavour, url: str, added: dict[str, Any]) -> None:
    """The parameters are where its reference reads them, also when only the caller's key may pay."""
    assert {"model": "m", **added} == json.loads(wired(flavour, caller(), url=url).content)
    sent = wired(flavour, caller(), url=url, byok="only")
    assert b'"disable_fallback":true' in sent.content
    assert "openrouter" == sent.headers["x-respan-route-provider"]


@pytest.mark.parametrize("path", ["transcription", "transcriptions"])
def test_an_upload_has_the_header_beside_it(flavour: Flavour, path: str) -> None:
    """A form with a recording stays as it is; whose it is stands in the documented header."""
    request = {"files": {"file": ("a.wav", b"RIFF" * 1000)}, "data": {"model": "whisper"}}
    sent = wired(flavour, caller(), url=f"{API}/audio/{path}", request=request)
    assert b"RIFF" * 1000 in sent.content
    assert BOTH == json.loads(base64.b64decode(sent.headers["x-data-respan-params"]))
    with pytest.raises(CannotAttribute):
        wired(flavour, caller(), url=f"{API}/embeddings", request=request)


LOG_TYPES = {
    "chat/completions": "chat",
    "messages": "chat",
    "responses": "response",
    "completions": "completion",
    "embeddings": "embedding",
    "rerank": None,
    "images": None,
    "images/generations": None,
    "images/edits": None,
    "images/variations": None,
    "videos": None,
    "audio/speech": "speech",
    "audio/transcriptions": "transcription",
    "audio/translations": "transcription",
}


UNREAD = {"rerank", "videos"}
"""Those that have no format of their own: only what all have in common is read of them."""


@pytest.mark.parametrize(("path", "log_type"), LOG_TYPES.items())
def test_an_endpoint_of_openrouter(flavour: Flavour, path: str, log_type: str | None) -> None:
    """The caller's key pays; the record says who, when and what, and holds no content that nobody reads."""
    body = {
        "model": "m",
        "stream": True,
        "input": "the prompt",
        "prompt": "the prompt",
        "messages": [{"role": "user", "content": "the prompt"}],
    }
    sent, call = wired_call(flavour, caller(), body, f"{DIRECT}/{path}")
    assert f"Bearer {key_of('acme')}" == sent.headers["authorization"]
    assert body == json.loads(sent.content)
    record = call.build()
    assert ("complete", 200, "m", "caller") == (
        record.outcome, record.status_code, record.requested_model, record.billed_to,
    )  # fmt: skip
    assert Secret(key_of("acme")).fingerprint == record.key_fingerprint
    log = json.loads(encode(record, call.secrets))
    assert log_type == log.get("log_type")
    assert "acme" == log["customer_identifier"]
    assert (path not in UNREAD) == ("the prompt" in json.dumps(log))


@pytest.mark.parametrize("path", ["audio/transcriptions", "audio/translations", "images/edits", "images/variations"])
def test_an_upload_goes_on_the_callers_bill(flavour: Flavour, path: str) -> None:
    """A form with a file stays as it is; whose it is stands in the header that any host reads."""
    request = {"files": {"file": ("a.bin", b"RIFF" * 1000)}, "data": {"model": "m", "prompt": "the prompt"}}
    sent, call = wired_call(flavour, caller(), url=f"{DIRECT}/{path}", request=request)
    assert b"RIFF" * 1000 in sent.content
    assert f"Bearer {key_of('acme')}" == sent.headers["authorization"]
    record = call.build()
    assert ("complete", "acme") == (record.outcome, record.caller.identifier)
    assert b"RIFF" not in encode(record, call.secrets)


@pytest.mark.parametrize("status", [200, 401, 500])
def test_a_failure_that_is_not_read_is_told_by_its_status(flavour: Flavour, status: int) -> None:
    """Whatever the format, an error status is an error with its words."""
    library = flavour.library
    calls: list[Any] = []
    answer = {"type": "error", "error": {"type": "authentication_error", "message": "no such key"}}
    client = flavour.answering(lambda request: library.Response(status, json=answer), deliver=calls.append)
    flavour.post(client, f"{DIRECT}/rerank", json={"model": "m"})
    flavour.close(client)
    record = calls[0].build()
    assert ("complete" if status == 200 else "error") == record.outcome
    assert (None if status == 200 else "no such key") == record.error_message


@pytest.mark.parametrize("url", [GATEWAY, RELAY, ANTHROPIC, f"{API}/responses"])
def test_the_conversation_goes_along(flavour: Flavour, url: str) -> None:
    """The gateway groups a bound caller's calls by the bound conversation, whatever the request says."""
    forged = {"model": "m", "thread_identifier": "forged", "respan_params": {"thread_identifier": "forged"}}
    for mode in ("context", "error"):
        sent = wired(flavour, caller(thread="thread-1"), forged, url, on_conflict=mode).content
        assert 1 == sent.count(b'"thread_identifier":"thread-1"')
        assert b"forged" not in sent
    sent = wired(flavour, caller(thread="thread-1"), forged, url, on_conflict="body").content
    assert b"thread-1" not in sent
    assert b"thread-1" in wired(flavour, caller(thread="thread-1"), url=url, on_conflict="body").content


def test_the_apps_own_conversations_stay(flavour: Flavour) -> None:
    """Where the bound caller has none, the app may name them by itself."""
    own = {"model": "m", "thread_identifier": "own"}
    for who in (caller(), None):
        assert "own" == json.loads(wired(flavour, who, own).content)["thread_identifier"]
