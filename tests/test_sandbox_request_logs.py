"""The sandbox's request-logs API: checks, limits, errors, and how it misbehaves when told to."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox, create_app

pytest_plugins = ["kwai_middleware.testing"]

ROW: dict[str, Any] = {"model": "a/model", "customer_params": {"customer_identifier": "acme"}, "cost": 0.5}
BULK = "/api/request-logs/bulk/"
CREATE = "/api/request-logs/create/"
TOO_LARGE = 20_000_000


def post(
    sandbox: Sandbox, body: object, path: str = CREATE, *, key: str | None = "app-key-0123", timeout: float = 30.0
) -> httpx.Response:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with httpx.Client(trust_env=False, timeout=timeout) as client:
        return client.post(sandbox.url + path, content=content, headers=headers)


@pytest.mark.parametrize("path", [CREATE, CREATE[:-1], CREATE[4:], CREATE[4:-1]])
def test_a_record_is_taken_at_the_older_spelling(kwai_sandbox: Sandbox, path: str) -> None:
    """The older single endpoint answers the vendor's one sentence, and the record is in the journal."""
    answer = post(kwai_sandbox, ROW, path)
    [entry] = kwai_sandbox.logs(wait=1, customer="acme")
    assert (200, {"message": "log successful"}) == (answer.status_code, answer.json())
    assert entry["log"] == ROW
    assert (Secret("app-key-0123").fingerprint, "create", []) == (
        entry["posted_by"],
        entry["endpoint"],
        entry["keys_seen"],
    )


@pytest.mark.parametrize("path", ["/api/request-logs/", "/api/request-logs", "/request-logs/", "/request-logs"])
def test_a_record_is_taken_at_the_newer_spelling(kwai_sandbox: Sandbox, path: str) -> None:
    """The newer single endpoint answers the stored row."""
    answer = post(kwai_sandbox, ROW | {"generation_time": 1.5, "status_code": 500}, path)
    [entry] = kwai_sandbox.logs(wait=1, status_code=500)
    span = answer.json()
    assert (201, entry["log_id"], "failed", 0.5, 1.5) == (
        answer.status_code,
        span["unique_id"],
        span["status"],
        span["cost"],
        span["latency"],
    )


def test_what_the_vendor_keeps_is_shown(kwai_sandbox: Sandbox) -> None:
    """Aliases are resolved, metadata becomes text, the customer is promoted, nulls are gone."""
    params = {"customer_identifier": "x" * 300, "name": "Acme", "email": None}
    post(
        kwai_sandbox,
        {
            "model": "m",
            "ttft": 0.1,
            "generation_time": 2,
            "messages": [],
            "tools": None,
            "status": "error",
            "customer_params": params,
            "metadata": {"text": "as it is", "number": 7, "deep": {"a": None}},
        },
    )
    [entry] = kwai_sandbox.logs(wait=1)
    assert entry["stored"] == {
        "model": "m",
        "time_to_first_token": 0.1,
        "latency": 2,
        "prompt_messages": [],
        "status": "failed",
        "status_code": 200,
        "log_type": "chat",
        "customer_params": params,
        "customer_identifier": "x" * 254,
        "customer_name": "Acme",
        "metadata": {"text": "as it is", "number": "7", "deep": '{"a":null}'},
    }
    assert ([], None) == (entry["dropped"], entry["lost"])


def test_customer_params_that_name_nobody_are_dropped(kwai_sandbox: Sandbox) -> None:
    """The vendor drops `customer_params` without an identifier, and the journal says so."""
    post(kwai_sandbox, {"model": "m", "customer_params": {"name": "Acme"}})
    [entry] = kwai_sandbox.logs(wait=1)
    assert ["customer_params"] == entry["dropped"]
    assert "customer_params" not in entry["stored"]
    assert {"name": "Acme"} == entry["log"]["customer_params"]
    assert entry["customer"] is None


def test_a_key_in_a_record_is_reported_and_not_shown(kwai_sandbox: Sandbox) -> None:
    """A key that travelled in a call, or looks like one, is found in any later record, and masked."""
    known, shaped = "0key-of-acme", "sk-or-v1-0123456789abcdef"
    httpx.post(
        f"{kwai_sandbox.gateway_url}chat/completions", headers={"authorization": f"Bearer {known}"}, trust_env=False
    )
    post(kwai_sandbox, ROW | {"full_request": {"deep": [f"x{known}x", shaped]}, "provider_api_key": "k"})
    [entry] = kwai_sandbox.logs(wait=1)
    assert sorted(Secret(key).fingerprint for key in (known, shaped, "k")) == entry["keys_seen"]
    assert not [key for key in (known, shaped) if key in json.dumps(entry)]


@pytest.mark.parametrize(
    ("key", "detail"), [(None, "Authentication credentials"), ("app-dead", "Your API key is invalid")]
)
@pytest.mark.parametrize("path", [CREATE, BULK])
def test_a_key_is_needed(kwai_sandbox: Sandbox, path: str, key: str | None, detail: str) -> None:
    """Without a good key nothing is taken: 401 with `detail`."""
    answer = post(kwai_sandbox, ROW, path, key=key)
    assert (401, True) == (answer.status_code, answer.json()["detail"].startswith(detail))
    assert [401] == [entry["status"] for entry in kwai_sandbox.log_requests(wait=1)]
    assert [] == kwai_sandbox.logs()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"text"'])
def test_what_is_no_object_is_refused(kwai_sandbox: Sandbox, body: bytes) -> None:
    """A single record is a JSON object, or it answers 400."""
    assert post(kwai_sandbox, body).status_code == 400


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({}, "model"),
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"model": "m", "status_code": "200"}, "status_code"),
        ({"model": "m", "prompt_tokens": True}, "prompt_tokens"),
        ({"model": "m", "cost": False}, "cost"),
        ({"model": "m", "generation_time": "1"}, "generation_time"),
        ({"model": "m", "stream": 1}, "stream"),
        ({"model": "m", "prompt_messages": {}}, "prompt_messages"),
        ({"model": "m", "customer_params": "acme"}, "customer_params"),
        ({"model": "m", "error_message": 1}, "error_message"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(kwai_sandbox: Sandbox, row: dict[str, object], field: str) -> None:
    """A record with a wrong field answers 422 and names the field."""
    answer = post(kwai_sandbox, row)
    assert (422, "Validation error", [field]) == (
        answer.status_code,
        answer.json()["detail"],
        list(answer.json()["errors"]),
    )
    assert [] == kwai_sandbox.logs()


def test_a_record_of_more_than_20_mb_is_refused(kwai_sandbox: Sandbox) -> None:
    """The limit holds for a single and for each row of a bulk; the other rows are taken."""
    large, fits = ({"model": "m", "output": "x" * size} for size in (TOO_LARGE, TOO_LARGE - 100))
    bulk = post(kwai_sandbox, {"logs": [ROW, large, fits]}, BULK)
    assert post(kwai_sandbox, large).status_code == 413
    assert post(kwai_sandbox, fits).status_code == 200
    assert (201, 2, [1]) == (
        bulk.status_code,
        bulk.json()["success_count"],
        [error["index"] for error in bulk.json()["errors"]],
    )


def test_bulk_rows_are_independent(kwai_sandbox: Sandbox) -> None:
    """Good rows are taken and bad ones reported by index, with 201 as long as one is good."""
    answer = post(kwai_sandbox, {"logs": [ROW, {"cost": "1"}, "no object", ROW | {"model": "b"}]}, BULK)
    assert answer.status_code == 201
    assert answer.json() == {
        "success_count": 2,
        "error_count": 2,
        "errors": [
            {
                "index": 1,
                "detail": "Validation error",
                "errors": {"model": ["This field is required."], "cost": ["Not a valid number."]},
            },
            {"index": 2, "detail": "Invalid request format"},
        ],
    }
    assert ["a/model", "b"] == [entry["model"] for entry in kwai_sandbox.logs(wait=2, endpoint="bulk")]
    assert (4, 2) == tuple(kwai_sandbox.log_requests()[0][name] for name in ("rows", "accepted"))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"logs": [{}]}, 400),
        ({"logs": []}, 400),
        ({"logs": {}}, 400),
        ({}, 400),
        ([], 400),
        ({"logs": [ROW] * 501}, 400),
        ({"logs": [ROW] * 500}, 201),
    ],
)
def test_a_bulk_has_1_to_500_rows(kwai_sandbox: Sandbox, body: object, status: int) -> None:
    """Any other number, and a bulk of which no row is good, is refused."""
    assert post(kwai_sandbox, body, BULK).status_code == status
    assert (500 if status == 201 else 0) == len(kwai_sandbox.logs())


def test_a_key_posts_30_bulks_a_minute(kwai_sandbox: Sandbox) -> None:
    """The 31st bulk of a key answers 429 with the seconds to wait; another key and singles go on."""
    statuses = [post(kwai_sandbox, {"logs": [ROW]}, BULK).status_code for _ in range(30)]
    refused = post(kwai_sandbox, {"logs": [ROW]}, BULK)
    assert [201] * 30 == statuses
    assert (429, "Rate limit exceeded") == (refused.status_code, refused.json()["detail"])
    assert 50 <= refused.json()["retry_after"] <= 60
    assert str(refused.json()["retry_after"]) == refused.headers["retry-after"]
    assert post(kwai_sandbox, {"logs": [ROW]}, BULK, key="another-key").status_code == 201
    assert post(kwai_sandbox, ROW).status_code == 200


def test_the_bulk_limit_is_over_after_a_minute() -> None:
    """Each bulk counts for a minute from its arrival, and is then forgotten."""
    app = create_app()
    moments = [1000.0] * 29 + [1030.0] * 2 + [1059.9] + [1060.0] * 30
    app.state.sandbox.clock = iter(moments).__next__
    with TestClient(app, headers={"authorization": "Bearer app-key-0123"}) as client:
        statuses = [client.post(BULK, json={"logs": [ROW]}).status_code for _ in moments]
    assert [201] * 30 + [429] * 2 + [201] * 29 + [429] == statuses


def test_the_bulk_limit_can_be_set(kwai_sandbox: Sandbox) -> None:
    """A test that needs the limit sooner sets it; 0 refuses every bulk."""
    kwai_sandbox.logs_mode("ok", bulk_per_minute=0)
    refused = post(kwai_sandbox, {"logs": [ROW]}, BULK)
    assert (429, 60) == (refused.status_code, refused.json()["retry_after"])


@pytest.mark.parametrize(
    ("mode", "detail"),
    [
        (400, "The sandbox was asked for 400"),
        (401, "Your API key is invalid"),
        (413, "The sandbox was asked for 413"),
        (429, "Rate limit exceeded"),
        (500, "Internal server error"),
        ("503", "Internal server error"),
    ],
)
def test_a_mode_refuses_with_a_status(kwai_sandbox: Sandbox, mode: int | str, detail: str) -> None:
    """A status as mode refuses every record with the vendor's body, and nothing is taken."""
    kwai_sandbox.logs_mode(mode, retry_after=7)
    answer = post(kwai_sandbox, ROW)
    assert (int(mode), True) == (answer.status_code, answer.json()["detail"].startswith(detail))
    assert ("7" if int(mode) in (429, 503) else None) == answer.headers.get("retry-after")
    assert (7 if mode == 429 else None) == answer.json().get("retry_after")
    assert [(str(mode), int(mode), 0)] == [
        (entry["mode"], entry["status"], entry["accepted"]) for entry in kwai_sandbox.log_requests(wait=1)
    ]
    assert [] == kwai_sandbox.logs()


def test_a_mode_can_end_by_itself(kwai_sandbox: Sandbox) -> None:
    """`times` requests are refused and the next is taken; without a retry_after none is sent."""
    kwai_sandbox.logs_mode(429, times=2, retry_after=None)
    answers = [post(kwai_sandbox, ROW) for _ in range(3)]
    assert [429, 429, 200] == [answer.status_code for answer in answers]
    assert ["detail"] == list(answers[0].json())
    assert "retry-after" not in answers[0].headers


def test_a_redirect_goes_elsewhere(kwai_sandbox: Sandbox) -> None:
    """A 3xx mode names another place."""
    kwai_sandbox.logs_mode(307)
    assert post(kwai_sandbox, ROW).headers["location"].startswith("https://api.respan.ai/")


def test_a_slow_api_takes_the_record_late(kwai_sandbox: Sandbox) -> None:
    """`slow` waits the seconds asked for, then takes the record."""
    kwai_sandbox.logs_mode("slow", seconds=0.3)
    began = time.monotonic()
    assert post(kwai_sandbox, ROW).status_code == 200
    assert time.monotonic() - began >= 0.3
    assert len(kwai_sandbox.logs()) == 1


def test_a_hanging_api_never_answers(kwai_sandbox: Sandbox) -> None:
    """`hang` answers nothing and takes nothing."""
    kwai_sandbox.logs_mode("hang")
    with pytest.raises(httpx.ReadTimeout):
        post(kwai_sandbox, ROW, timeout=0.3)
    assert [None] == [entry["status"] for entry in kwai_sandbox.log_requests(wait=1)]
    assert [] == kwai_sandbox.logs()


def test_a_resetting_api_cuts_the_connection(kwai_sandbox: Sandbox) -> None:
    """`reset` cuts the connection before an answer, and takes nothing."""
    kwai_sandbox.logs_mode("reset")
    with pytest.raises(httpx.ReadError):
        post(kwai_sandbox, ROW)
    assert [] == kwai_sandbox.logs()


def test_a_garbled_answer_is_still_a_success(kwai_sandbox: Sandbox) -> None:
    """`garbage` takes the record and answers 200 with what is no JSON."""
    kwai_sandbox.logs_mode("garbage")
    answer = post(kwai_sandbox, ROW)
    assert (200, b"<html>\xff</html") == (answer.status_code, answer.content)
    assert len(kwai_sandbox.logs(wait=1)) == 1


@pytest.mark.parametrize("path", [CREATE, BULK])
def test_a_huge_answer_is_still_a_success(kwai_sandbox: Sandbox, path: str) -> None:
    """`huge` takes the records and answers what it always does, and ten megabytes more."""
    kwai_sandbox.logs_mode("huge")
    answer = post(kwai_sandbox, {"logs": [ROW]} if path == BULK else ROW, path)
    assert answer.is_success
    assert len(answer.content) > 10_000_000
    assert answer.json().keys() >= ({"success_count", "filler"} if path == BULK else {"message", "filler"})
    assert len(kwai_sandbox.logs(wait=1)) == 1


@pytest.mark.parametrize("path", [CREATE, BULK])
def test_an_answer_that_breaks_off(kwai_sandbox: Sandbox, path: str) -> None:
    """`cut` takes the records, says so, and is gone in the middle of the answer."""
    kwai_sandbox.logs_mode("cut", times=1)
    body = {"logs": [ROW]} if path == BULK else ROW
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        post(kwai_sandbox, body, path)
    assert len(kwai_sandbox.logs(wait=1)) == 1
    assert post(kwai_sandbox, body, path).is_success


def test_a_record_over_which_the_vendor_trips(kwai_sandbox: Sandbox) -> None:
    """Every request that holds `poison` answers 500 and brings nothing; all others are taken."""
    kwai_sandbox.logs_mode("slow", times=1, seconds=0.0, poison="rec-7")
    poisoned = ROW | {"metadata": {"kwai_record_id": "rec-7"}}
    assert [500, 500] == [post(kwai_sandbox, poisoned).status_code for _ in range(2)]
    failed = post(kwai_sandbox, {"logs": [ROW, poisoned, ROW]}, BULK)
    assert (500, "INTERNAL_ERROR") == (failed.status_code, failed.json()["error_code"])
    assert [] == kwai_sandbox.logs()
    assert [200, 201] == [post(kwai_sandbox, ROW).status_code, post(kwai_sandbox, {"logs": [ROW]}, BULK).status_code]
    kwai_sandbox.reset()
    assert post(kwai_sandbox, poisoned).status_code == 200


def test_a_record_that_the_vendor_does_not_want(kwai_sandbox: Sandbox) -> None:
    """A record that holds `unwanted` is refused by itself, and the others of its request are taken."""
    kwai_sandbox.logs_mode("ok", unwanted="rec-7")
    unwanted = ROW | {"metadata": {"kwai_record_id": "rec-7"}}
    errors = {"non_field_errors": ["This record is not wanted."]}
    refused = post(kwai_sandbox, unwanted)
    assert (422, errors) == (refused.status_code, refused.json()["errors"])
    answer = post(kwai_sandbox, {"logs": [ROW, unwanted, ROW]}, BULK)
    assert answer.json() == {
        "success_count": 2,
        "error_count": 1,
        "errors": [{"index": 1, "detail": "Validation error", "errors": errors}],
    }
    assert 2 == len(kwai_sandbox.logs())


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        ("sometimes", {}, "mode: ok, slow"),
        (200, {}, "mode: ok, slow"),
        (600, {}, "mode: ok, slow"),
        ("²", {}, "mode: ok, slow"),
        ("ok", {"times": 0}, "times: at least 1"),
        ("ok", {"often": 1}, "unknown field `often`"),
        ("ok", {"poison": ""}, "poison, unwanted: some text"),
    ],
)
def test_a_mode_that_is_none_is_explained(
    kwai_sandbox: Sandbox, mode: str | int, options: dict[str, Any], message: str
) -> None:
    """An unknown mode or option changes nothing and says what there is."""
    with pytest.raises(ValueError, match=message):
        kwai_sandbox.logs_mode(mode, **options)
    assert httpx.get(f"{kwai_sandbox.url}/sandbox/logs-mode", trust_env=False).json()["mode"] == "ok"


def test_reset_lets_a_hanging_client_go(kwai_sandbox: Sandbox) -> None:
    """A reset ends every wait: the client that hangs is cut off, and the API behaves again."""
    kwai_sandbox.logs_mode("hang")
    with httpx.Client(trust_env=False, timeout=20) as client:
        request = client.build_request("POST", kwai_sandbox.url + CREATE, json=ROW)
        request.headers["authorization"] = "Bearer app-key-0123"

        failures: list[Exception] = []

        def send() -> None:
            try:
                client.send(request)
            except httpx.HTTPError as error:
                failures.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        kwai_sandbox.log_requests(wait=1)
        kwai_sandbox.reset()
        thread.join(20)
    assert [httpx.ReadError] == [type(failure) for failure in failures]
    assert post(kwai_sandbox, ROW).status_code == 200
