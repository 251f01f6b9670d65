"""The pages of the FastAPI example on which a customer's OpenRouter key gets into the app."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from kwai_middleware import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.examples import HOUSE_KEY, fastapi_example
from tests.support.processes import DEADLINE

pytest_plugins = ["kwai_middleware.testing"]

KEY = "sk-or-v1-pasted-0123456789"
QUESTION = {"question": "Who pays?", "model": "a/model"}


@pytest.fixture(scope="module")
def app(kwai_sandbox_server: Sandbox) -> Iterator[str]:
    """The example, whose OpenRouter is the sandbox."""
    with fastapi_example(kwai_sandbox_server) as (url, process):
        yield url
        assert "sk-or-v1" not in process.output


@pytest.fixture
def vendor(kwai_sandbox: Sandbox) -> Sandbox:
    """The vendors, to whom nothing has been sent yet."""
    return kwai_sandbox


def browser(app: str, customer: str | None) -> httpx.Client:
    """A customer's, behind the proxy that says who it is."""
    headers = {} if customer is None else {"x-customer-id": customer}
    return httpx.Client(base_url=app, headers=headers, trust_env=False, timeout=DEADLINE)


def who_paid(vendor: Sandbox, browser: httpx.Client) -> str:
    vendor.reset()
    assert 200 == browser.post("/direct", json=QUESTION).status_code
    [call] = vendor.calls(wait=1)
    return str(call["paid_by"]["fingerprint"])


def came_back(browser: httpx.Client) -> httpx.URL:
    """Begin, agree at the vendor's page; returns where the vendor sends the browser then."""
    to_vendor = browser.get("/connect/start")
    assert 303 == to_vendor.status_code
    page = httpx.get(to_vendor.headers["location"], headers={"accept": "text/html"}, trust_env=False)
    assert "Authorize" in page.text
    return httpx.URL(httpx.post(page.url, trust_env=False).headers["location"])


def test_a_connected_key_pays(app: str, vendor: Sandbox) -> None:
    """Once a customer has connected, calls without a key header are on that key, and only that customer's."""
    with browser(app, "hooli") as hooli, browser(app, "vandelay") as vandelay:
        assert Secret(HOUSE_KEY).fingerprint == who_paid(vendor, hooli)
        assert "No key is connected" in hooli.get("/connect").text

        answer = hooli.get(came_back(hooli), follow_redirects=True)

        assert "/connect" == answer.url.path
        assert "" == answer.url.query.decode()
        assert f"the key {who_paid(vendor, hooli)} pays" in answer.text
        assert Secret(HOUSE_KEY).fingerprint != who_paid(vendor, hooli)
        assert Secret(HOUSE_KEY).fingerprint == who_paid(vendor, vandelay)


def test_a_pasted_key_pays(app: str, vendor: Sandbox) -> None:
    """So does one that was pasted, blanks around it or not; a key in a header still comes first."""
    with browser(app, "massive") as massive:
        saved = massive.post("/connect/key", data={"key": f" {KEY}\n"}, headers={"sec-fetch-site": "same-origin"})

        assert {"connected": Secret(KEY).fingerprint, "limit": None, "remaining": None} == saved.json()
        assert Secret(KEY).fingerprint == who_paid(vendor, massive)
        massive.headers["x-openrouter-key"] = f"{KEY}-other"
        assert Secret(f"{KEY}-other").fingerprint == who_paid(vendor, massive)


@pytest.mark.parametrize(
    ("key", "status", "words"),
    [
        (f"{KEY}-dead", 400, "does not accept"),
        (f"{KEY}-spent", 400, "has spent"),
        (f"{KEY}-management", 400, "management"),
        (f"{KEY}-slow", 503, "later"),
        ("two words", 400, "no API key"),
        ("", 400, "no API key"),
    ],
)
def test_a_key_that_is_not_kept(app: str, vendor: Sandbox, key: str, status: int, words: str) -> None:
    """A key that would pay for nothing is refused with a reason and without an echo, and pays for nothing."""
    with browser(app, "initech") as initech:
        answer = initech.post("/connect/key", data={"key": key})

        assert status == answer.status_code
        assert words in answer.json()["detail"]
        assert not key or key not in answer.text
        assert (status == 503) == ("retry-after" in answer.headers)
        assert Secret(HOUSE_KEY).fingerprint == who_paid(vendor, initech)


def test_somebody_elses_way_back(app: str, vendor: Sandbox) -> None:
    """A customer who follows another's link back connects nothing to either; nor does a code twice, or none."""
    with browser(app, "eve") as eve, browser(app, "bob") as bob:
        back = came_back(eve)
        refused = [bob.get(back)]
        came_back(bob)
        refused += [bob.get(back), bob.get("/connect/callback")]
        assert [(400, "You have not asked")] * 3 == [(each.status_code, each.json()["detail"][:18]) for each in refused]
        assert 303 == eve.get(back).status_code
        assert 400 == eve.get(back).status_code
        declined = came_back(eve).copy_remove_param("code")
        assert 400 == eve.get(declined).status_code

        assert "No key is connected" in bob.get("/connect").text
        assert Secret(HOUSE_KEY).fingerprint == who_paid(vendor, bob)


def test_who_may_not(app: str, vendor: Sandbox) -> None:
    """Nobody connects a key to nobody, and no other site's form saves one."""
    with browser(app, None) as nobody, browser(app, "bob") as bob:
        assert [401] * 4 == [
            answer.status_code
            for answer in (
                nobody.get("/connect"),
                nobody.get("/connect/start"),
                nobody.get("/connect/callback"),
                nobody.post("/connect/key", data={"key": KEY}),
            )
        ]
        assert 403 == bob.post("/connect/key", data={"key": KEY}, headers={"sec-fetch-site": "cross-site"}).status_code
        assert "No key is connected" in bob.get("/connect").text
