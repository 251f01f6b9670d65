"""On what it was measured, and with which versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from benchmarks.results import Machine

__all__ = ["SHARED", "this_machine", "version", "versions"]

SHARED = ("kwai-middleware", "starlette", "fastapi", "flask", "httpx", "httpx2", "openai", "uvicorn", "gunicorn",
          "structlog", "msgspec", "orjson")  # fmt: skip
"""What all variants work with."""


def version(distribution: str) -> str | None:
    """Return which version of a distribution is installed; None when it is not."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Return the versions of what all variants share."""
    return {name: found for name in SHARED if (found := version(name)) is not None}


def this_machine() -> Machine:
    """Return what can be said of the machine without naming it."""
    processor = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists():
        names = [line.partition(":")[2].strip() for line in about.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return Machine(
        processor=processor,
        cores=os.cpu_count() or 1,
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        system=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )
