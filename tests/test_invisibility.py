"""A wrapped client is a plain client to everyone who uses it, on a route and off it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.flavours import ASYNC_FLAVOURS, SYNC_FLAVOURS, Flavour
from tests.support.invisibility.cells import CELLS, Cell
from tests.support.invisibility.comparing import differences
from tests.support.invisibility.script import SCRIPT
from tests.support.invisibility.server import script_server
from tests.support.invisibility.world import World, certificates

pytestmark = pytest.mark.usefixtures("unmeasured")
"""To measure coverage would take as long again, and nothing here is not seen by other tests as well."""


class _Meddling:
    """What a wrapped client must not be: one that can be told from a plain one, in one small way each."""

    def __init__(self, inner: Any, fault: str) -> None:
        self._inner = inner
        self.fault = fault

    def handle_request(self, request: Any) -> Any:
        if self.fault == "adds a header":
            request.headers["X-Extra"] = "1"
        try:
            response = self._inner.handle_request(request)
        except Exception as error:
            if self.fault == "loses the cause":
                raise type(error)(str(error)) from None
            raise
        if self.fault == "counts on":
            response.extensions["seen"] = True
        if self.fault == "warns":
            warnings.warn("a call went out", UserWarning, stacklevel=1)
        if self.fault == "keeps connections":
            response.stream.close = lambda: None
        return response

    def close(self) -> None:
        self._inner.close()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    serving, trusting = certificates()
    with script_server(serving) as server:
        yield World(server, trusting, SCRIPT)


def test_the_steps_of_the_script_have_names_of_their_own() -> None:
    """What a step saw is found by its name."""
    assert len(SCRIPT) == len({step.name for step in SCRIPT})


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_wrapped_client_is_as_a_plain_one(flavour: Flavour, world: World, cell: Cell) -> None:
    """Whatever can be seen of more than 200 calls, failures, warnings, logs and connections included."""
    assert {} == world.compare(flavour, cell)


@pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True)
def test_the_same_with_trio(flavour: Flavour, world: World) -> None:
    """The other event loop that the libraries run on: cancellation is another thing there, and so are generators."""
    steps = [step for number, step in enumerate(SCRIPT) if step.asynchronous or number % 4 == 0]
    assert {} == world.compare_steps(flavour, Cell("direct", True, "ready"), "trio", steps)


@pytest.mark.parametrize("flavour", SYNC_FLAVOURS, indirect=True)
@pytest.mark.parametrize(
    ("fault", "step", "place"),
    [
        ("adds a header", "an answer: ok", "wire"),
        ("loses the cause", "a broken answer: garbage", "result"),
        ("counts on", "an answer: ok", "result"),
        ("warns", "an answer: ok", "warnings"),
        ("keeps connections", "an answer left in the middle", "pools"),
    ],
)
def test_the_comparison_finds_a_client_that_meddles(
    flavour: Flavour, world: World, fault: str, step: str, place: str
) -> None:
    """A comparison that finds nothing says something only if it can find something."""

    def make(**options: Any) -> Any:
        real = flavour.real_transport_class(verify=options.pop("verify"), limits=options.pop("limits"))
        kind = type("Meddling", (_Meddling, flavour.library.BaseTransport), {})
        return flavour.plain_client_class(transport=kind(real, fault), **options)

    steps = [each for each in SCRIPT if each.name == step]
    found = differences(
        world.run(flavour, flavour.plain_client_class, "sync", steps),
        world.run(flavour, make, "sync", steps),
        Cell("other", False, "around"),
    )
    assert place in {path.partition("/")[0] for path in found[step]}
