"""What went wrong, read out of errors of any shape."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._outbound.formats import Failure, Received, Request, chat
from kwai_middleware._outbound.formats.failures import failure_in, failure_of_status, provider_in


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param({"code": 429, "message": "slow"}, Failure("429", "slow"), id="OpenRouter"),
        pytest.param(
            {"message": "m", "type": "invalid_request_error", "param": None, "code": None},
            Failure("invalid_request_error", "m", "invalid_request_error"), id="OpenAI without code",
        ),
        pytest.param({"code": True, "type": "t", "message": ""}, Failure("t", None, "t"), id="odd types"),
        pytest.param(
            {"code": 400, "message": "Provider returned error", "metadata": {"raw": "too long"}},
            Failure("400", "Provider returned error: too long"), id="the provider's own words",
        ),
        pytest.param({"metadata": {"raw": "too long"}}, Failure(None, "too long"), id="only the provider's words"),
        pytest.param(
            {"code": 400, "message": "m", "metadata": {"raw": {"error": {"message": "too long"}}}},
            Failure("400", "m: too long"), id="the provider's JSON",
        ),
        pytest.param({"metadata": {"raw": {"error": "too long"}}}, Failure(None, "too long"), id="its error a text"),
        pytest.param({"metadata": {"raw": {"detail": "too long"}}}, Failure(None, "too long"), id="its JSON, plain"),
        pytest.param({"message": "m", "metadata": {"raw": [1]}}, Failure(None, "m"), id="its JSON, odd"),
        pytest.param(
            {
                "code": 403,
                "message": "Your input was flagged",
                "metadata": {"reasons": ["violence", 7, "hate"], "flagged_input": "...", "provider_name": "OpenAI"},
            },
            Failure("403", "Your input was flagged: violence, hate"), id="moderation",
        ),
        pytest.param(
            {"message": "m", "metadata": {"error_type": "context_length_exceeded"}},
            Failure("context_length_exceeded", "m", "context_length_exceeded"), id="a type in place of a code",
        ),
        pytest.param(
            {"code": 400, "message": "m", "metadata": {"error_type": "context_length_exceeded"}},
            Failure("400", "m", "context_length_exceeded"), id="a type beside the code",
        ),
        pytest.param("text", Failure(None, "text"), id="a text"),
        pytest.param([{"msg": "required", "type": "missing"}], Failure("missing", "required", "missing"), id="a list"),
        pytest.param(7, Failure(None, None), id="a number"),
        pytest.param({"message": "x" * 5000}, Failure(None, "x" * 5000), id="long"),
    ],
)  # fmt: skip
def test_errors_of_any_shape_are_described(error: object, expected: Failure) -> None:
    """A code and a sentence come out of every known shape."""
    assert expected == failure_in(error)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"error":{"code":402,"message":"m"},"user_id":"u"}', Failure("402", "m"), id="OpenRouter"),
        pytest.param(b'{"detail":"Your API key is invalid"}', Failure("418", "Your API key is invalid"), id="vendor"),
        pytest.param(b'{"detail":"d","error_code":"e"}', Failure("e", "d"), id="vendor, with code"),
        pytest.param(b'{"error":"e","message":"m"}', Failure("418", "e"), id="a text"),
        pytest.param(b'{"error":{},"errors":[{"message":"m"}]}', Failure("418", "m"), id="errors"),
        pytest.param(b'{"error":{"code":1},"message":"m"}', Failure("1", "m"), id="message beside"),
        pytest.param(b'{"message":"m"}', Failure("418", "m"), id="only a message"),
        pytest.param(b'[{"error":{"code":400,"message":"m"}}]', Failure("400", "m"), id="an array"),
        pytest.param(b"<html><head><title>502 Bad Gateway</title>", Failure("418", "502 Bad Gateway"), id="HTML"),
        pytest.param(b"<html>", Failure("418", "HTTP status 418"), id="HTML without title"),
        pytest.param(b" upstream connect error\n", Failure("418", "upstream connect error"), id="text"),
        pytest.param(b"", Failure("418", "HTTP status 418"), id="nothing"),
        pytest.param(b"7", Failure("418", "HTTP status 418"), id="a number"),
        pytest.param(b"\xff\x00", Failure("418", "\ufffd\x00"), id="junk"),
    ],
)
def test_error_answers_of_any_shape_are_described(body: bytes, expected: Failure) -> None:
    """An answer with an error status is described from its body, else by its status."""
    assert expected == failure_of_status(418, body)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param({"metadata": {"provider_name": "Groq"}}, "Groq", id="said"),
        pytest.param({"metadata": None}, None, id="not said"),
        pytest.param("text", None, id="no object"),
    ],
)
def test_whose_failure_it_was(error: object, expected: str | None) -> None:
    """OpenRouter names the provider that failed; a record of the failure says who it was."""
    assert expected == provider_in(error)
    assert (
        expected == chat.answer(Received((json.dumps({"error": error}).encode(),), streamed=False), Request()).provider
    )


@given(st.binary(max_size=200))
def test_any_body_is_described(body: bytes) -> None:
    """Whatever stands in an error answer, there is a code and a sentence."""
    failure = failure_of_status(500, body)

    assert failure.code
    assert failure.message
