"""The vendors' APIs on loopback, for demos and tests."""

from kwai_middleware.sandbox.app import create_app
from kwai_middleware.sandbox.running import Sandbox, sandbox

__all__ = ["Sandbox", "create_app", "sandbox"]
