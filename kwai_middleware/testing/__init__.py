"""For your own tests: the vendors' APIs on loopback and a key that tells where it has been, as pytest fixtures.

Put `pytest_plugins = ["kwai_middleware.testing"]` into your `conftest.py` and ask for `kwai_sandbox` or
`canary`. Without pytest use `kwai_middleware.sandbox.sandbox()`, a context manager. `seeded_keys` is one for either.

PYTEST_DONT_REWRITE: there are no assertions here, and pytest would warn of what a suite has imported before.
"""

from __future__ import annotations

from kwai_middleware.sandbox import Sandbox, sandbox
from kwai_middleware.testing._canary import Canary
from kwai_middleware.testing._fixture import canary
from kwai_middleware.testing._keys import seeded_keys
from kwai_middleware.testing._sandbox import kwai_sandbox, kwai_sandbox_server
from kwai_middleware.testing._spellings import Sighting

__all__ = ["Canary", "Sandbox", "Sighting", "canary", "kwai_sandbox", "kwai_sandbox_server", "sandbox", "seeded_keys"]
