"""What the two structlog processors add to an event, and what they take out of it."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import sys
from base64 import b64encode, urlsafe_b64encode
from collections import UserDict, namedtuple
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._context import Binding, Slot, bind_caller
from kwai_middleware._secret import Secret
from kwai_middleware.structlog_processors import add_caller, mask_keys

SHAPE = "sk-or-v1-0123456789abcdef0123"
OWN = "a-key-of-no-known-shape"
ODD = "a/key+of~8<>=="
CALLER = Caller(identifier="acme", group="g", thread="t", name="Ada", email="ada@example.com")
WITH_KEY = Caller(credentials=(Credential(api_key=Secret(OWN)),))

Point = namedtuple("Point", "x y")


@dataclasses.dataclass
class Holder:
    """An object that shows a key."""

    text: str


class TestAddCaller:
    """`add_caller`."""

    def test_it_adds_who_an_event_is_about(self) -> None:
        """Identifier, group and thread are added; name and address of a person are not."""
        with bind_caller(CALLER):
            event = add_caller(None, "info", {"event": "hello"})
        assert event == {"event": "hello", "customer_id": "acme", "group": "g", "thread": "t"}

    def test_it_adds_only_what_is_known(self) -> None:
        """No name stands in an event for nothing."""
        with bind_caller(Caller(thread="t")):
            assert add_caller(None, "info", {"event": "hello"}) == {"event": "hello", "thread": "t"}
        assert add_caller(None, "info", {"event": "hello"}) == {"event": "hello"}

    def test_it_leaves_the_apps_own_names(self) -> None:
        """What the app has said about itself is not overwritten, also when it is None."""
        with bind_caller(CALLER):
            event = add_caller(None, "info", {"event": "hello", "customer_id": "theirs", "thread": None})
        assert event == {"event": "hello", "customer_id": "theirs", "thread": None, "group": "g"}


class TestMaskKeys:
    """`mask_keys`."""

    @pytest.mark.parametrize("key", [SHAPE, OWN])
    @pytest.mark.parametrize(
        ("wrap", "masked"),
        [
            pytest.param(lambda key: key, "****", id="text"),
            pytest.param(lambda key: f"with {key}!", "with ****!", id="inside"),
            pytest.param(lambda key: key.encode(), b"****", id="bytes"),
            pytest.param(lambda key: b"\xff" + key.encode(), b"\xff****", id="odd-bytes"),
            pytest.param(lambda key: [1, [key]], [1, ["****"]], id="list"),
            pytest.param(lambda key: (key, None), ("****", None), id="tuple"),
            pytest.param(lambda key: {key}, {"****"}, id="set"),
            pytest.param(lambda key: frozenset({key}), {"****"}, id="frozenset"),
            pytest.param(lambda key: {"a": {"b": key}}, {"a": {"b": "****"}}, id="dict"),
            pytest.param(lambda key: {key: 1}, {"****": 1}, id="name"),
            pytest.param(lambda key: MappingProxyType({"a": key}), {"a": "****"}, id="mapping"),
            pytest.param(lambda key: Point(1, key), (1, "****"), id="named-tuple"),
            pytest.param(lambda key: ValueError(f"bad {key}"), "ValueError('bad ****')", id="exception"),
            pytest.param(lambda key: Holder(key), "Holder(text='****')", id="object"),
            pytest.param(lambda key: [Holder(key)], ["Holder(text='****')"], id="object-in-list"),
        ],
    )
    def test_a_key_is_masked_wherever_it_stands(self, key: str, wrap: Any, masked: Any) -> None:
        """Keys of a known shape and the caller's own are masked in every kind of value; the rest stays."""
        with bind_caller(WITH_KEY):
            event = mask_keys(None, "info", {"event": "hello", "value": wrap(key), "number": 5})
        assert event == {"event": "hello", "value": masked, "number": 5}

    @pytest.mark.parametrize(
        ("text", "masked"),
        [
            pytest.param(json.dumps({"a": ODD}), '{"a": "****"}', id="json"),
            pytest.param(json.dumps(json.dumps(ODD)), '"\\"****\\""', id="json-in-json"),
            pytest.param(f"?key={quote(ODD, safe='')}&a=1", "?key=****&a=1", id="url"),
            pytest.param(quote(quote(ODD, safe=""), safe=""), "****", id="url-in-url"),
            pytest.param(f"Basic {b64encode(ODD.encode()).decode()}", "Basic ****=", id="base64"),
            pytest.param(urlsafe_b64encode(f"x:{ODD}".encode()).decode(), "eD****==", id="user-and-password"),
        ],
    )
    @pytest.mark.parametrize(
        "wrap", [str, str.encode, lambda text: [{text}], Holder], ids=["text", "bytes", "list", "object"]
    )
    def test_a_key_is_masked_in_every_form(self, text: str, masked: str, wrap: Any) -> None:
        """What libraries make of the caller's key before they log it is masked like the key itself."""
        with bind_caller(Caller(credentials=(Credential(api_key=Secret(ODD)),))):
            event = mask_keys(None, "info", {"event": "hello", "value": wrap(text)})
        shown = wrap(masked)
        assert event == {"event": "hello", "value": repr(shown) if isinstance(shown, Holder) else shown}

    def test_another_callers_key_of_no_known_shape_is_not_known(self) -> None:
        """Only the current caller's own keys can be looked for."""
        assert mask_keys(None, "info", {"event": OWN}) == {"event": OWN}

    def test_a_key_that_was_taken_out_of_the_request_is_masked(self) -> None:
        """Also a key that is not used for calls, such as a proxy's secret."""
        with Binding(Slot(None, {"x-kwai-proxy": Secret(OWN)})):
            assert mask_keys(None, "info", {"event": f"got {OWN}"}) == {"event": "got ****"}

    def test_a_key_in_a_name_is_masked(self) -> None:
        """The names of an event are looked at like its values."""
        assert mask_keys(None, "info", {SHAPE: "v", "event": "e"}) == {"****": "v", "event": "e"}

    def test_a_secret_stays_a_secret(self) -> None:
        """It masks itself."""
        secret = Secret(SHAPE)
        assert secret is mask_keys(None, "info", {"key": secret})["key"]

    def test_what_has_no_key_stays_the_same_object(self) -> None:
        """Nothing is copied or turned into text without need."""
        values = [["a"], {"b": ("c",)}, {"d"}, Holder("e"), b"f", "g", 1.5, True, None, object(), Point(1, "h")]
        event = {str(number): value for number, value in enumerate(values)}
        masked = mask_keys(None, "info", dict(event))
        assert all(masked[name] is value for name, value in event.items())

    def test_an_object_that_shows_a_key_in_one_way_only_is_masked(self) -> None:
        """Some renderers use str() and some repr()."""

        class Shy(Exception):
            def __repr__(self) -> str:
                return "Shy()"

        assert mask_keys(None, "info", {"error": Shy(f"with {SHAPE}")}) == {"error": "Shy()"}

    def test_an_object_that_cannot_be_shown_is_masked(self) -> None:
        """Nobody can say what is in it; the event is logged without it."""

        class Broken:
            def __repr__(self) -> str:
                raise ZeroDivisionError

        class Closed(UserDict[str, str]):
            def items(self) -> Any:
                raise ZeroDivisionError

        for value in (Broken(), Closed()):
            assert {"event": "e", "value": "****"} == mask_keys(None, "info", {"event": "e", "value": value})

    def test_a_value_that_grows_while_it_is_looked_at(self) -> None:
        """What is added to a container meanwhile, as another thread may do, fails no event."""

        class Noting:
            def __init__(self, note: Callable[[], object]) -> None:
                self.note = note

            def __repr__(self) -> str:
                self.note()
                return "Noting()"

        names: dict[str, Any] = {"key": SHAPE}
        names["noting"] = Noting(lambda: names.setdefault(f"name {len(names)}", 1))
        parts: set[Any] = {SHAPE}
        parts.add(Noting(lambda: parts.add(len(parts))))
        for shared in (names, parts):
            assert SHAPE not in repr(mask_keys(None, "info", {"shared": shared}))
            assert 2 < len(shared)

    def test_a_value_within_itself_ends(self) -> None:
        """A list that holds itself is looked into so deep and no deeper, and a key in it is masked."""
        endless: list[Any] = [SHAPE]
        endless.append(endless)
        assert SHAPE not in repr(mask_keys(None, "info", {"value": endless}))
        harmless: list[Any] = ["a"]
        harmless.append(harmless)
        assert harmless is mask_keys(None, "info", {"value": harmless})["value"]

    def test_a_family_tree_is_masked_at_once(self) -> None:
        """Children that know their parent are looked at once each, not once for each way to get there."""
        tree: dict[str, Any] = {"name": SHAPE, "children": []}
        tree["children"] += [{"number": number, "parent": tree} for number in range(200)]
        masked = mask_keys(None, "info", {"tree": tree})["tree"]
        assert SHAPE not in repr(masked)
        assert masked["name"] == "****"
        assert list(range(200)) == [child["number"] for child in masked["children"]]

    def test_a_value_that_stands_in_many_places_is_looked_at_once(self) -> None:
        """Two ways to each of forty levels are not two to the fortieth values."""
        value: Any = [SHAPE]
        for _ in range(15):
            value = [value, value]
        harmless: Any = ["a"]
        for _ in range(15):
            harmless = [harmless, harmless]
        event = mask_keys(None, "info", {"value": value, "harmless": harmless})
        assert harmless is event["harmless"]
        masked = event["value"]
        assert masked[0] is masked[1]
        assert "****" in json.dumps(masked)
        assert SHAPE not in json.dumps(masked)

    def test_masked_twins_in_a_cycle_end(self) -> None:
        """A mapping that holds itself under two names is looked at once."""
        twins: dict[str, Any] = {"key": SHAPE}
        twins |= {"a": twins, "b": twins}
        masked = mask_keys(None, "info", {"value": twins})["value"]
        assert {"key": "****", "a": "****", "b": "****"} == masked

    def test_so_many_values_and_no_more_are_looked_at(self) -> None:
        """Of a value with more than ten thousand parts one mask stands for the rest; other values are not concerned."""
        many = {"list": [*range(20_000)], "dict": {str(number): number for number in range(20_000)}, "after": "text"}
        event = mask_keys(None, "info", dict(many))
        assert event["list"] == [*range(9_999), "****"]
        assert event["dict"] == {**{str(number): number for number in range(5_000)}, "****": "****"}
        assert event["after"] == "text"
        last = {**{str(number): number for number in range(4_999)}, "last": [SHAPE]}
        assert {**last, "last": ["****"]} == mask_keys(None, "info", {"value": last})["value"]

    def test_what_lies_too_deep_is_masked(self) -> None:
        """Below twenty levels nothing is looked into."""
        deep: Any = SHAPE
        for _ in range(5_000):
            deep = [deep]
        masked = mask_keys(None, "info", {"value": deep})["value"]
        assert SHAPE not in repr(masked)
        assert "****" in repr(masked)

    @pytest.mark.parametrize("how", ["exception", "tuple", "true"])
    def test_an_exception_is_rendered_and_masked(self, how: str) -> None:
        """However an exception comes, its text reaches the renderer without the key, and its type with it."""
        try:
            try:
                raise KeyError(SHAPE)
            except KeyError as cause:
                raise ValueError(f"no {OWN}") from cause
        except ValueError as error:
            exc_info = {"exception": error, "tuple": sys.exc_info(), "true": True}[how]
            with bind_caller(WITH_KEY):
                event = mask_keys(None, "error", {"event": "failed", "exc_info": exc_info})
        assert list(event) == ["event", "exception"]
        assert "ValueError: no ****" in event["exception"]
        assert "KeyError: '****'" in event["exception"]
        assert event["exception"].startswith("Traceback (most recent call last):")

    @pytest.mark.parametrize("exc_info", [True, False, None, (None, None, None)])
    def test_no_exception_is_nothing(self, exc_info: Any) -> None:
        """Outside of an except block there is nothing to render."""
        assert mask_keys(None, "info", {"event": "e", "exc_info": exc_info}) == {"event": "e"}

    def test_what_another_processor_has_rendered_stays(self) -> None:
        """A text that is there already is masked, not replaced."""
        event = mask_keys(None, "error", {"exception": f"theirs {SHAPE}", "exc_info": ValueError("ours")})
        assert event == {"exception": "theirs ****"}

    @given(
        value=st.recursive(
            st.one_of(st.text(max_size=5), st.just(SHAPE), st.just(SHAPE.encode()), st.builds(Holder, st.just(SHAPE))),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.tuples(inner, inner),
                st.dictionaries(st.one_of(st.text(max_size=3), st.just(SHAPE)), inner, max_size=3),
            ),
            max_leaves=12,
        )
    )
    def test_no_key_survives_in_any_shape_of_event(self, value: Any) -> None:
        """However values are nested, what is shown of the event has no key."""
        assert SHAPE not in repr(mask_keys(None, "info", {"event": "e", "value": value}))


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What structlog writes, set up as an app would."""
    output = io.StringIO()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_caller,
            mask_keys,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(output),
    )
    yield output
    structlog.reset_defaults()


def test_in_a_pipeline(lines: io.StringIO) -> None:
    """In an app's own pipeline the events have the caller and no key, also those of an exception."""
    log = structlog.get_logger()
    with bind_caller(CALLER.with_credentials(WITH_KEY.credentials)):
        log.info("asked", headers={"authorization": f"Bearer {OWN}"})
        try:
            raise RuntimeError(f"upstream said no to {OWN}")
        except RuntimeError:
            log.exception("failed")
    log.info("idle")
    asked, failed, idle = (json.loads(line) for line in lines.getvalue().splitlines())
    who = {"customer_id": "acme", "group": "g", "thread": "t"}
    assert asked == {"event": "asked", "headers": {"authorization": "Bearer ****"}, **who}
    assert "RuntimeError: upstream said no to ****" in failed.pop("exception")
    assert failed == {"event": "failed", **who}
    assert idle == {"event": "idle"}


def test_for_records_of_standard_logging(caplog: pytest.LogCaptureFixture) -> None:
    """They serve structlog's formatter for standard logging, too."""
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, add_caller, mask_keys, _as_json]
    )
    record = logging.LogRecord("lib", logging.INFO, __file__, 1, "called with %s", (SHAPE,), None)
    with bind_caller(Caller(identifier="acme")):
        assert json.loads(formatter.format(record)) == {"event": "called with ****", "customer_id": "acme"}


def _as_json(logger: Any, name: str, event_dict: Mapping[str, Any]) -> str:
    return json.dumps(event_dict)
