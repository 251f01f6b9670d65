"""Many records in one post: what goes out, what comes back, and which of them the vendor has."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.verdict import BulkVerdict, Fate, judge_bulk
from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.logs_api import KEY as APP_KEY
from tests.support.logs_api import LogsAPI, Request, answer, logs_api
from tests.support.processes import free_port
from tests.support.raw_server import Connection, raw_server

pytest_plugins = ["kwai_middleware.testing"]

KEY = Secret("the-app-key-itself")
NOW = 1_800_000_000.0


def told(success: object, error: object, errors: object) -> bytes:
    """The vendor's account."""
    return json.dumps({"success_count": success, "error_count": error, "errors": errors}).encode()


def bulk_sent(url: str, entries: list[bytes], timeout: float = 20.0) -> BulkVerdict:
    """Send over a fresh connection."""
    sender = Sender(f"{url}/api", KEY)
    try:
        return sender.send_bulk(entries, timeout)
    finally:
        sender.close()


def replying(reply: bytes) -> Callable[[Connection], None]:
    """A server with one answer to everything."""

    def serve(connection: Connection) -> None:
        while True:
            connection.request()
            connection.send(reply)

    return serve


# What an answer means


@pytest.mark.parametrize("status", [200, 201, 207])
def test_each_record_has_its_own_fate(status: int) -> None:
    """Those that the vendor refuses are named, with its reason; all others are delivered."""
    errors = [{"index": 2, "detail": "Wrong", "errors": {"model": ["Required."]}}, {"index": 0}]
    assert judge_bulk(status, None, told(2, 2, errors), 4, now=NOW) == BulkVerdict(
        Fate.DELIVERED,
        refused={2: 'detail: "Wrong"; errors: {"model": ["Required."]}', 0: "no reason given"},
    )


@pytest.mark.parametrize(
    "body",
    [
        told(3, 0, []),
        told(3, 0, None),
        b'{"success_count":3}',
        b'{"success_count":3,"error_count":0,"more":{"a":[1]}}',
        b' {"success_count" : 3 , "errors" : [ ] }\n',
    ],
)
def test_all_are_delivered(body: bytes) -> None:
    """When the vendor says so, in whatever words."""
    assert BulkVerdict(Fate.DELIVERED) == judge_bulk(201, None, body, 3, now=NOW)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"3",
        b"null",
        b"<html>\xff</html>",
        b'{"message":"log successful"}',
        b'{"success_count":3',
        b'{"success_count":3}{"success_count":3}',
        b"[" * 5000,
        b'{"success_count":3,"a":' + b"[" * 5000,
        told(2, 0, []),
        told(4, 0, []),
        told(4, -1, []),
        told(3, 1, []),
        told(2, 1, []),
        told(2, 1, None),
        told(2, 1, {"index": 0}),
        told(2, 1, [0]),
        told(2, 1, ["0"]),
        told(2, 1, [{"detail": "no index"}]),
        told(2, 1, [{"index": -1}]),
        told(2, 1, [{"index": 3}]),
        told(2, 1, [{"index": 10**400}]),
        told(2, 1, [{"index": True}]),
        told(2, 1, [{"index": 1.0}]),
        told(2, 1, [{"index": "1"}]),
        told(2, 1, [{"index": None}]),
        told(2, 1, [{"index": 0}, {"index": 1}]),
        told(1, 2, [{"index": 1}, {"index": 1}]),
        told(2, 1, [{"index": 1}, {"index": 1}]),
        told(1, 2, [{"index": 1}]),
        told(3.0, 0, []),
        told("3", 0, []),
        told(True, 2, [{"index": 1}, {"index": 2}]),
        told(2, True, [{"index": 1}]),
        told(None, 3, [{"index": 0}, {"index": 1}, {"index": 2}]),
        told(-1, 4, [{"index": 0}, {"index": 1}, {"index": 2}, {"index": 3}]),
    ],
)
def test_an_account_that_does_not_add_up_is_none(body: bytes) -> None:
    """Taken, but nobody knows which: no record is given up, and none is counted as delivered."""
    assert judge_bulk(201, None, body, 3, now=NOW) == BulkVerdict(
        Fate.UNCLEAR, "HTTP 201, and no account of which records were taken"
    )
    assert {} == judge_bulk(400, None, body, 3, now=NOW).refused


@pytest.mark.parametrize("status", [400, 422])
def test_a_refusal_of_each_record_is_told_from_one_of_the_request(status: int) -> None:
    """Only when the vendor has something against every single one are they refused one by one."""
    assert judge_bulk(status, None, told(0, 2, [{"index": 1}, {"index": 0, "detail": "x"}]), 2, now=NOW) == BulkVerdict(
        Fate.REJECTED, f"HTTP {status}", refused={1: "no reason given", 0: 'detail: "x"'}
    )
    for body in (b'{"detail":"Too many"}', told(1, 1, [{"index": 0}]), told(2, 0, [])):
        verdict = judge_bulk(status, None, body, 2, now=NOW)
        assert (Fate.REJECTED, {}) == (verdict.fate, verdict.refused)


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        *[(status, Fate.BUSY) for status in (408, 425, 429)],
        *[(status, Fate.FAILED) for status in (500, 502, 503, 504, 599, 600, 199)],
        *[(status, Fate.REFUSED) for status in (300, 301, 307, 308, 401, 402, 403, 404, 405, 407, 410, 451)],
        *[(status, Fate.REJECTED) for status in (400, 406, 409, 411, 413, 415, 422)],
    ],
)
def test_the_status_decides_about_the_request(status: int, fate: Fate) -> None:
    """As it does for one record, with the same words and the same patience."""
    body = b'{"detail":"bad key the-app-key-itself","retry_after":30}'
    after = 30.0 if fate in (Fate.BUSY, Fate.FAILED) else None
    expected = BulkVerdict(fate, f"HTTP {status}: bad key ****", after)
    assert expected == judge_bulk(status, None, body, 3, now=NOW, secrets=(KEY,))
    rows = told(0, 1, [{"index": 0}])
    is_rejected = fate is Fate.REJECTED
    assert is_rejected is bool(judge_bulk(status, None, rows, 1, now=NOW).refused)


def test_the_reasons_are_short_and_hold_no_key() -> None:
    """Neither the app's key nor one that only looks like one, in any member of what the vendor says."""
    key = Secret('the"key"of\\the/app')
    errors = [
        {"index": 0, "detail": key.reveal()},
        {"index": 1, "errors": {"sk-or-v1-0123456789abcdef": ["x" * 1000]}},
        {"index": 2, key.reveal(): "sk-or-v1-0123456789abcdef"},
    ]
    verdict = judge_bulk(201, None, told(0, 3, errors), 3, now=NOW, secrets=(key,))
    assert 'detail: "****"' == verdict.refused[0]
    assert verdict.refused[1].startswith('errors: {"****": ["xxx')
    assert '****: "****"' == verdict.refused[2]
    assert 200 == len(verdict.refused[1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 6) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["index", "detail"]), inner),
    max_leaves=12,
)
ACCOUNTS = st.fixed_dictionaries({}, optional={"success_count": JSON, "error_count": JSON, "errors": JSON})


@given(
    body=st.binary(max_size=200) | ACCOUNTS.map(lambda account: json.dumps(account).encode()),
    header=st.none() | st.text(max_size=40),
    status=st.integers(100, 999),
    rows=st.integers(1, 500),
)
def test_no_answer_is_too_odd(body: bytes, header: str | None, status: int, rows: int) -> None:
    """Whatever comes back there is a verdict, and only records that were sent are in it."""
    verdict = judge_bulk(status, header, body, rows, now=NOW)
    assert verdict.after is None or 0.0 <= verdict.after <= 3600.0
    assert set(verdict.refused) <= set(range(rows))
    assert all(len(reason) <= 200 for reason in (verdict.reason, *verdict.refused.values()))
    assert (verdict.fate in (Fate.DELIVERED, Fate.UNCLEAR)) is (200 <= status < 300)


@given(rows=st.integers(1, 20), chance=st.data())
def test_an_account_that_adds_up_is_believed(rows: int, chance: st.DataObject) -> None:
    """Each record is delivered or refused, none both and none neither."""
    refused = chance.draw(st.lists(st.integers(0, rows - 1), unique=True))
    body = told(rows - len(refused), len(refused), [{"index": index} for index in refused])
    verdict = judge_bulk(201, None, body, rows, now=NOW)
    assert (Fate.DELIVERED, set(refused)) == (verdict.fate, set(verdict.refused))


# What goes out, and comes back


def test_what_goes_out() -> None:
    """One POST to the bulk endpoint, with the records as they are in one JSON object, of a length told before."""
    requests: list[tuple[bytes, bytes]] = []

    def serve(connection: Connection) -> None:
        requests.append(connection.request())
        connection.send(answer(201, told(3, 0, [])))

    with raw_server(serve) as server:
        assert BulkVerdict(Fate.DELIVERED) == bulk_sent(server.url, [b'{"a":1}', b'{"b":2}', b'{"c":3}'])
    [(head, body)] = requests
    lines = head.decode().lower().split("\r\n")
    assert "post /api/request-logs/bulk/ http/1.1" == lines[0]
    assert {"authorization: bearer the-app-key-itself", "content-length: 34"} <= set(lines)
    assert b'{"logs":[{"a":1},{"b":2},{"c":3}]}' == body


def test_bulks_and_singles_share_a_connection() -> None:
    """To go from one to the other costs no connection."""
    with logs_api() as api:
        sender = Sender(api.url, Secret(APP_KEY))
        row = b'{"metadata":{"kwai_record_id":"a"}}'
        for _ in range(2):
            assert Fate.DELIVERED is sender.send(row, 20.0).fate
            assert Fate.DELIVERED is sender.send_bulk([row, row], 20.0).fate
        sender.close()
        assert ["create", "bulk", "create", "bulk"] == [request.kind for request in api.requests]
        assert (6, 1) == (len(api.arrived), api.connections)


def test_no_second_copy_is_made_of_the_records() -> None:
    """Of thirty megabytes only small pieces are joined before they are sent."""
    rows = [b"[" + b"1" * size + b"]" for size in [10_000] * 490 + [2_500_000] * 10]
    length = sum(map(len, rows)) + len('{"logs":[]}') + len(rows) - 1

    def serve(connection: Connection) -> None:
        head, _, beginning = connection.head().partition(b"\r\n\r\n")
        assert f"content-length: {length}".encode() in head
        buffer = bytearray(65536)
        left = length - len(beginning)
        while left > 0:
            left -= connection.sock.recv_into(buffer)
        connection.send(answer(201, told(500, 0, []), connection="close"))

    with raw_server(serve) as server:
        tracemalloc.start(1)
        try:
            assert Fate.DELIVERED is bulk_sent(server.url, rows).fate
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 1_000_000


def test_a_long_account_is_read() -> None:
    """What is wrong with each of five hundred records is known, however much is said; the connection is kept."""
    errors = [{"index": index, "detail": "x" * 1500} for index in range(500)]
    connections: list[Connection] = []

    def serve(connection: Connection) -> None:
        connections.append(connection)
        replying(answer(400, told(0, 500, errors)))(connection)

    with raw_server(serve) as server:
        sender = Sender(f"{server.url}/api", KEY)
        for _ in range(2):
            assert 500 == len(sender.send_bulk([b"{}"] * 500, 20.0).refused)
        sender.close()
    assert 1 == len(connections)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(answer(201, b'{"success_count":1,"x":"' + b"y" * 10_000_000 + b'"}'), id="ten megabytes"),
        pytest.param(b"HTTP/1.1 201 OK\r\ncontent-length: 500\r\n\r\n" + told(1, 0, [])[:-1], id="cut off"),
        pytest.param(b"HTTP/1.1 201 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}", id="cut off in a chunk"),
        pytest.param(answer(200, b"<html>\xff", connection="close"), id="garbage"),
        pytest.param(b"HTTP/1.1 204 No\r\nconnection: close\r\n\r\n", id="empty"),
    ],
)
def test_an_answer_that_is_no_account_leaves_it_unclear(reply: bytes) -> None:
    """The status alone says nothing about single records; the next request goes over another connection if need be."""

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(reply)

    with raw_server(serve) as server:
        sender = Sender(f"{server.url}/api", KEY)
        assert [Fate.UNCLEAR] * 2 == [sender.send_bulk([b"{}"], 20.0).fate for _ in range(2)]
        sender.close()


def test_a_refusal_before_the_end_of_the_request_is_heard() -> None:
    """Who finds a request too large says so and hangs up: that is a refusal, and not a failure of the network."""

    def serve(connection: Connection) -> None:
        connection.head()
        connection.send(answer(413, b'{"detail":"Payload too large"}', connection="close"))

    with raw_server(serve) as server:
        verdict = bulk_sent(server.url, [b"x" * 30_000_000])
    assert BulkVerdict(Fate.REJECTED, "HTTP 413: Payload too large") == verdict


def test_a_success_before_the_end_of_the_request_is_none() -> None:
    """Nobody can have taken what has not been sent whole."""

    def serve(connection: Connection) -> None:
        connection.head()
        connection.send(answer(201, told(1, 0, []), connection="close"))

    with raw_server(serve) as server:
        verdict = bulk_sent(server.url, [b"x" * 30_000_000])
    assert (Fate.FAILED, True) == (verdict.fate, verdict.is_connected)


def test_one_who_reads_slowly_is_left() -> None:
    """The time to send is that of the whole request, however many pieces it has."""

    def serve(connection: Connection) -> None:
        connection.head()
        while connection.sock.recv(1000):
            left.append(None)

    left: list[None] = []
    with raw_server(serve, receive_buffer=4096) as server:
        verdict = bulk_sent(server.url, [b"x" * 70_000] * 1000, 0.3)
    assert (Fate.FAILED, True, True) == (verdict.fate, verdict.reason.startswith("TimeoutError"), verdict.is_connected)


def test_nobody_there_is_nobody_to_be_tripped() -> None:
    """Without a connection no record can be to blame."""
    verdict = bulk_sent(f"http://127.0.0.1:{free_port()}", [b"{}"])
    assert (Fate.FAILED, False, {}) == (verdict.fate, verdict.is_connected, verdict.refused)


# At the sandbox, and at the API of the tests


def row(name: str, **more: Any) -> bytes:
    return json.dumps({"model": "m", "metadata": {"kwai_record_id": name}, **more}).encode()


def test_one_bad_row_among_five_hundred(kwai_sandbox: Sandbox) -> None:
    """The vendor takes the others, and says what is wrong with that one."""
    rows = [row(str(number)) for number in range(500)]
    rows[77] = row("77", cost="much")
    verdict = bulk_sent(kwai_sandbox.url, rows)
    assert verdict == BulkVerdict(
        Fate.DELIVERED, refused={77: 'detail: "Validation error"; errors: {"cost":["Not a valid number."]}'}
    )
    assert 499 == len(kwai_sandbox.logs())


def test_only_bad_rows(kwai_sandbox: Sandbox) -> None:
    """Each is refused for its own reason."""
    verdict = bulk_sent(kwai_sandbox.url, [b"{}", b"[]"])
    assert (Fate.REJECTED, [0, 1]) == (verdict.fate, sorted(verdict.refused))


def test_too_many_bulks_in_a_minute(kwai_sandbox: Sandbox) -> None:
    """The vendor's own limit is patience, not failure."""
    kwai_sandbox.logs_mode("ok", bulk_per_minute=1)
    sender = Sender(f"{kwai_sandbox.url}/api", KEY)
    assert Fate.DELIVERED is sender.send_bulk([row("a")], 20.0).fate
    verdict = sender.send_bulk([row("b")], 20.0)
    sender.close()
    assert (Fate.BUSY, "HTTP 429: Rate limit exceeded") == (verdict.fate, verdict.reason)
    assert verdict.after is not None
    assert 50 <= verdict.after <= 60


@pytest.mark.parametrize(
    ("mode", "fate"),
    [("garbage", Fate.UNCLEAR), ("huge", Fate.UNCLEAR), ("cut", Fate.UNCLEAR), ("reset", Fate.FAILED)],
)
def test_a_vendor_that_misbehaves(kwai_sandbox: Sandbox, mode: str, fate: Fate) -> None:
    """What was taken and answered oddly is unclear; what was not answered has failed."""
    kwai_sandbox.logs_mode(mode)
    assert fate is bulk_sent(kwai_sandbox.url, [row("a"), row("b")]).fate
    assert (2 if fate is Fate.UNCLEAR else 0) == len(kwai_sandbox.logs())


@pytest.fixture
def api_of_rows() -> Any:
    """Decides about each row by its id: a status."""

    def by_id(entry: dict[str, Any], times: int) -> bytes:
        return answer(int(entry["metadata"]["kwai_record_id"]), b'{"detail":"as asked"}')

    with logs_api(by_id) as api:
        yield api


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([200, 201], BulkVerdict(Fate.DELIVERED)),
        ([200, 422, 400], BulkVerdict(Fate.DELIVERED, refused=dict.fromkeys((1, 2), 'detail: "as asked"'))),
        ([413], BulkVerdict(Fate.REJECTED, "HTTP 400", refused={0: 'detail: "as asked"'})),
        ([200, 500, 422], BulkVerdict(Fate.FAILED, "HTTP 500: as asked")),
        ([200, 429, 422], BulkVerdict(Fate.BUSY, "HTTP 429: as asked")),
        ([401], BulkVerdict(Fate.REFUSED, "HTTP 401: as asked")),
    ],
)
def test_the_api_of_the_tests_answers_bulks_by_their_rows(
    api_of_rows: LogsAPI, statuses: list[int], expected: BulkVerdict
) -> None:
    """A test that says what becomes of a record says it for records in bulk too."""
    rows = [row(str(status)) for status in statuses]
    sender = Sender(api_of_rows.url, Secret(APP_KEY))
    assert expected == sender.send_bulk(rows, 20.0)
    sender.close()
    [request] = api_of_rows.requests
    assert ("bulk", list(map(str, statuses))) == (request.kind, request.ids)
    assert request.ids == api_of_rows.arrived


def test_the_api_of_the_tests_can_answer_bulks_otherwise() -> None:
    """By the request as a whole, also not at all."""

    def silent(request: Request) -> bytes | None:
        return None if request.kind == "bulk" and [0, 1] == request.times else answer(201, told(2, 0, []))

    with logs_api() as api:
        api.answer_bulk = silent
        sender = Sender(api.url, Secret(APP_KEY))
        assert Fate.FAILED is sender.send_bulk([row("a"), row("a")], 0.2).fate
        assert Fate.DELIVERED is sender.send_bulk([row("a"), row("a")], 20.0).fate
        sender.close()
        assert [[0, 1], [2, 3]] == [request.times for request in api.requests]
