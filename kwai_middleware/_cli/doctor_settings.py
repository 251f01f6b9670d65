"""The settings of the environment, and whether the vendor takes the app's key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

from kwai_middleware._cli.doctor_findings import Finding
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.verdict import Fate, Verdict
from kwai_middleware._settings import Settings
from kwai_middleware.errors import ConfigurationError

__all__ = ["check_settings", "check_vendor", "settings_of"]

_NO_RECORD: Final = b"{"
"""No JSON: who has a right to send records is told so, and nothing is stored."""


def settings_of(environ: Mapping[str, str]) -> tuple[Settings | None, list[Finding]]:
    """Return the settings; None when one is wrong, with what is."""
    try:
        return Settings.from_env(environ), []
    except ConfigurationError as error:
        name, _, reason = str(error).partition(":")
        return None, [Finding("setting", "error", "setting", str(error), name, f"export {name}=... ({reason.strip()})")]


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Name what differs from what one expects."""
    if settings.byok == "off":
        what = "byok is off: customers' keys are never used, and the app's own pays for all calls"
        yield Finding("setting", "note", "byok-off", what, "KWAI_BYOK", "export KWAI_BYOK=prefer")
    if settings.on_conflict == "body":
        what = "on_conflict is body: a request body that names another customer or key wins over the bound caller"
        yield Finding("setting", "warning", "body-wins", what, "KWAI_ON_CONFLICT", "export KWAI_ON_CONFLICT=context")
    if settings.body_credentials == "allow":
        what = "body_credentials is allow: a key in a request body pays, for a caller who has none"
        yield Finding(
            "setting", "note", "body-credentials", what, "KWAI_BODY_CREDENTIALS", "export KWAI_BODY_CREDENTIALS=remove"
        )
    if settings.capture != "full":
        meaning = {"metadata": "records have no prompts and no answers", "none": "calls are not recorded"}
        what = f"capture is {settings.capture}: {meaning[settings.capture]}"
        yield Finding("setting", "note", "capture", what, "KWAI_CAPTURE", "export KWAI_CAPTURE=full")


def check_vendor(settings: Settings, *, is_offline: bool) -> Iterator[Finding]:
    """Look at the key, and ask the vendor about it, unless nobody is to be asked."""
    if settings.api_key is None:
        what = "no KEYWORDSAI_API_KEY (nor RESPAN_API_KEY): calls are attributed, and not logged"
        yield Finding("vendor", "warning", "no-api-key", what, change="export KEYWORDSAI_API_KEY=...")
        return
    if is_offline:
        yield Finding("vendor", "ok", "api-key", "an API key is set; the vendor was not asked about it (--offline)")
        return
    with contextlib.closing(Sender(settings.base_url, settings.api_key)) as sender:
        yield _judged(settings, sender.send(_NO_RECORD, settings.request_timeout))


def _judged(settings: Settings, verdict: Verdict) -> Finding:
    where = settings.base_url
    if verdict.fate is Fate.REJECTED:
        return Finding("vendor", "ok", "api-key", f"{where} takes the API key")
    if verdict.fate is Fate.REFUSED:
        what = f"the logs API refuses this app: {verdict.reason}"
        change = "export KEYWORDSAI_API_KEY=... (the key of an account at KEYWORDSAI_BASE_URL)"
        return Finding("vendor", "error", "api-key-refused", what, where, change)
    if verdict.fate is Fate.DELIVERED:
        what = "whoever answers at base_url takes what is no record: is it the vendor's API?"
        return Finding("vendor", "warning", "not-the-vendor", what, where, "export KEYWORDSAI_BASE_URL=https://...")
    if verdict.fate is Fate.BUSY:
        return Finding("vendor", "note", "vendor-busy", f"the logs API asks for patience: {verdict.reason}", where)
    what = f"the logs API cannot be asked: {verdict.reason}; records wait until it can"
    change = "look at KEYWORDSAI_BASE_URL and at the network, or ask nobody with --offline"
    return Finding("vendor", "warning", "vendor-away", what, where, change)
