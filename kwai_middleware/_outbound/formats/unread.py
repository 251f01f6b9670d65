"""Formats that nobody here reads: such a call is attributed and timed, and its content stays out of the record."""

from __future__ import annotations

from kwai_middleware._outbound.formats import chat
from kwai_middleware._outbound.formats.interface import Answer, Received, Request

__all__ = ["answer", "request"]


def request(body: bytes) -> Request:
    """Read what requests of all formats have in common: the model, and whether a stream is asked for."""
    read = chat.request(body)
    return Request(model=read.model, stream=read.stream)


def answer(received: Received, request: Request) -> Answer:
    """Read nothing; see `Format`."""
    return Answer(ends_with_body=True)
