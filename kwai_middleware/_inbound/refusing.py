"""The answer to a request that is refused: a small problem document that never holds a value."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from kwai_middleware.errors import RequestRefused

__all__ = ["Answer", "answer_to"]


class Answer(msgspec.Struct, frozen=True):
    """What is sent instead of what the app would have sent."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def answer_to(refusal: RequestRefused) -> Answer:
    """Return the answer: problem details (RFC 9457), not to be cached, with a challenge when it is 401."""
    document: dict[str, object] = {
        "type": "urn:kwai-middleware:" + refusal.title.lower().replace(" ", "-"),
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.detail,
    }
    if refusal.header is not None:
        document["header"] = refusal.header
    body = msgspec.json.encode(document)
    headers = [
        ("content-type", "application/problem+json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    ]
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        headers.append(("www-authenticate", 'Kwai realm="caller"'))
    return Answer(refusal.status, _reason(refusal), tuple(headers), body)


def _reason(refusal: RequestRefused) -> str:
    try:
        return HTTPStatus(refusal.status).phrase
    except ValueError:
        return "Refused"
