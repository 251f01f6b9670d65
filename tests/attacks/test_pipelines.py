"""Requests of several customers on one connection, sent at once: none of them sees another's caller or key."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.attacked import Server
from tests.support.raw_client import Answer, answer, connected, request

A = [("X-Customer-Id", "a"), ("X-OpenRouter-Key", "sk-or-v1-a")]
B = [("X-Customer-Id", "b"), ("X-OpenRouter-Key", "sk-or-v1-b")]
ONLY_A_KEY = [("X-OpenRouter-Key", "sk-or-v1-c")]
LARGE = b"x" * 200_000
"""More than the 64 KiB from which a server pauses reading, and goes on in the context of the request."""


def who(given: Answer) -> tuple[Any, Any, Any]:
    """Who a request was for, here and in structlog, and whose key it had."""
    assert 200 == given.status
    return given.document["caller"], given.document["logged"], given.document["key"]


OF_A, OF_B, NOBODYS = ("a", "a", "sk-or-v1-a"), ("b", "b", "sk-or-v1-b"), (None, None, None)


@pytest.fixture(params=["uvicorn_h11", "uvicorn_httptools", "gunicorn_threads"])
def server(request: pytest.FixtureRequest) -> Server:
    """One that keeps a connection."""
    found: Server = request.getfixturevalue(request.param)
    return found


PIPELINES = {
    "plain": [(A, b"", OF_A), ([], b"", NOBODYS), (B, b"", OF_B), ([], b"", NOBODYS)],
    "bodies": [(A, LARGE, OF_A), ([], LARGE, NOBODYS), (B, LARGE, OF_B), ([], b"", NOBODYS)],
    "only a key": [(A, b"", OF_A), (ONLY_A_KEY, b"{}", (None, None, "sk-or-v1-c")), ([], b"", NOBODYS)],
    "many": [(A, b"", OF_A), ([], b"", NOBODYS), (B, b"y", OF_B)] * 20,
}


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "byte by byte"])
def test_each_request_of_a_pipeline_is_its_own(server: Server, pipeline: Any, at_once: bool) -> None:
    """One customer, nobody, another customer, without waiting for an answer in between: in order, and never mixed."""
    sent = b"".join(request(lines, body) for lines, body, _ in pipeline)
    with connected(server.address) as connection:
        if at_once or len(sent) > 10_000:
            connection.send(sent)
        else:
            for place in range(len(sent)):
                connection.send(sent[place : place + 1])
        answers = [who(answer(connection)) for _ in pipeline]
    assert [expected for _, _, expected in pipeline] == answers


def test_nobody_after_a_large_body(server: Server) -> None:
    """On a connection that is kept, the anonymous request after a large body of a customer is nobody's."""
    with connected(server.address) as connection:
        for lines, body, expected in ((A, LARGE, OF_A), ([], b"", NOBODYS), (B, LARGE, OF_B), ([], LARGE, NOBODYS)):
            connection.send(request(lines, body))
            assert expected == who(answer(connection))


def test_a_refused_request_leaves_nothing_to_the_next(server: Server) -> None:
    """A request that is refused in the middle of a pipeline takes nothing of its key along."""
    refused = [*A, ("X-OpenRouter-Key", "sk-or-v1-twice")]
    with connected(server.address) as connection:
        connection.send(request(refused) + request() + request(B))
        assert 400 == answer(connection).status
        assert [NOBODYS, OF_B] == [who(answer(connection)) for _ in range(2)]


def test_a_request_smuggled_in_a_body_is_a_body(server: Server) -> None:
    """What looks like a request of somebody else within a body is not answered."""
    with connected(server.address) as connection:
        connection.send(request([], request(A)) + request(B))
        assert [NOBODYS, OF_B] == [who(answer(connection)) for _ in range(2)]


def test_a_length_beside_chunks_is_not_two_requests(server: Server) -> None:
    """Of a request with both framings no second one is cut that would have the key of the one before."""
    smuggled = request(A)
    head = b"POST /who HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\ntransfer-encoding: chunked\r\n" % (
        5 + len(smuggled)
    )
    with connected(server.address) as connection:
        connection.send(head + b"X-Customer-Id: b\r\nX-OpenRouter-Key: sk-or-v1-b\r\n\r\n0\r\n\r\n" + smuggled)
        first = answer(connection)
        assert first.status >= 400 or OF_B == who(first)
        try:
            second = answer(connection)
        except ConnectionError:
            return  # it has hung up, as is best
        assert second.status >= 400 or OF_A == who(second)


def test_a_server_without_threads_answers_one_and_hangs_up(gunicorn_sync: Server) -> None:
    """What was sent behind the first request is not answered at all, and the next connection is its own."""
    with connected(gunicorn_sync.address) as connection:
        connection.send(request(A, LARGE) + request() + request(B))
        assert OF_A == who(answer(connection))
        with pytest.raises(ConnectionError):
            answer(connection)
    for lines, expected in (([], NOBODYS), (B, OF_B), ([], NOBODYS)):
        with connected(gunicorn_sync.address) as connection:
            connection.send(request(lines))
            assert expected == who(answer(connection))
