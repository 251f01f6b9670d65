"""Where scripts are run: a server, who trusts it, and what a plain client saw there."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

import trustme

from kwai_middleware._context import bind_caller
from tests.support.callers import caller
from tests.support.flavours import Flavour
from tests.support.invisibility.cells import Cell, maker, options_of, settings_for
from tests.support.invisibility.comparing import differences
from tests.support.invisibility.running import Observed, run_script
from tests.support.invisibility.script import for_cell
from tests.support.invisibility.server import ScriptServer
from tests.support.invisibility.stage import MakeClient, Stage
from tests.support.invisibility.steps import Step

__all__ = ["World", "certificates"]


class World:
    """Runs one script with plain and with wrapped clients.

    Args:
        server: Where all requests go.
        trusting: What the clients know of its certificate.
        script: What is done.
        **options: Of every client.
    """

    def __init__(
        self, server: ScriptServer, trusting: ssl.SSLContext, script: tuple[Step, ...], **options: Any
    ) -> None:
        self.server = server
        self._trusting = trusting
        self._script = script
        self._options = options
        self._plain: dict[Any, Observed] = {}

    def compare(self, flavour: Flavour, cell: Cell) -> dict[str, Any]:
        """Return what differs in a cell. The plain client's half is done once for all cells."""
        runs_on = "asyncio" if flavour.asynchronous else "sync"
        if flavour.name not in self._plain:
            steps = [step for step in self._script if flavour.asynchronous or not step.asynchronous]
            self._plain[flavour.name] = self.run(flavour, flavour.plain_client_class, runs_on, steps)
        steps = for_cell(self._script, cell, asynchronous=flavour.asynchronous)
        plain = {step.name: self._plain[flavour.name][step.name] for step in steps}
        assert 200 <= sum(len(seen["wire"]) for seen in plain.values())
        return self._differences(plain, flavour, cell, runs_on, steps)

    def compare_steps(self, flavour: Flavour, cell: Cell, runs_on: str, steps: list[Step]) -> dict[str, Any]:
        """Return what differs in a few steps."""
        plain = self.run(flavour, flavour.plain_client_class, runs_on, steps)
        return self._differences(plain, flavour, cell, runs_on, steps)

    def run(self, flavour: Flavour, make: MakeClient, runs_on: str, steps: list[Step]) -> Observed:
        """Run steps with clients of any make."""
        options = options_of(flavour, self._trusting) | self._options
        return run_script(steps, lambda: Stage(flavour, self.server, make, options), self.server, runs_on)

    def _differences(
        self, plain: Observed, flavour: Flavour, cell: Cell, runs_on: str, steps: list[Step]
    ) -> dict[str, Any]:
        origins = f"http://127.0.0.1:{self.server.port}", f"https://127.0.0.1:{self.server.secure_port}"
        with bind_caller(caller()) if cell.keyed else contextlib.nullcontext():
            wrapped = self.run(flavour, maker(flavour, cell, settings_for(cell, *origins)), runs_on, steps)
        return differences(plain, wrapped, cell)


def certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server on loopback shows, and what believes it."""
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return serving, trusting
