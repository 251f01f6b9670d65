"""The clients that cannot be installed beside the rest, each with an environment of its own, for `make test-all`."""

from __future__ import annotations

from pathlib import Path

import nox

PINS = Path("requirements", "clients")

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True


@nox.session
@nox.parametrize("client", sorted(page.stem for page in PINS.glob("*.in")))
def apart(session: nox.Session, client: str) -> None:
    """Test one client, and the blocks of its page."""
    install = ("--quiet", "--disable-pip-version-check")
    session.install(*install, "--require-hashes", "--requirement", str(PINS / f"{client}.txt"))
    session.install(*install, "--no-build-isolation", "--no-deps", "--editable", ".")
    tests = (f"tests/apart/test_{client.replace('-', '_')}.py", "tests/apart/test_page.py")
    # Other people's warnings are theirs to mend.
    options = ("-q", "-W", "default", "-p", "no:cacheprovider")
    # LiteLLM would ask the network for its prices when it is imported.
    environment = {"TESTED_CLIENT": client, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    session.run("python", "-m", "pytest", *options, *tests, env=environment)
