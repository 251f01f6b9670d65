"""What OpenRouter knows of its keys, and the codes that become keys."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec

from kwai_middleware.sandbox import openrouter
from kwai_middleware.sandbox.answers import Refusal

__all__ = ["Accounts", "Code", "KeyFacts"]

_MOST: Final = 10_000
_CODE_SECONDS: Final = 600.0
_KEYS_PAGE: Final = "https://openrouter.ai/settings/keys"


class KeyFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is told of a key. Money is US dollars."""

    label: str | None = None
    limit: float | None = None
    usage: float = 0.0
    limit_reset: Literal["daily", "weekly", "monthly"] | None = None
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    is_free_tier: bool = False
    is_management_key: bool = False

    @property
    def remaining(self) -> float | None:
        """What the key may still spend."""
        return None if self.limit is None else self.limit - self.usage

    @property
    def refusal(self) -> Refusal | None:
        """Why it pays for no call; the words are the sandbox's own but for those about the limit."""
        if self.remaining is not None and self.remaining <= 0:
            return Refusal(
                403, f"Key limit exceeded ({self.limit_reset or 'total'} limit). Manage it using {_KEYS_PAGE}"
            )
        if self.is_management_key:
            return Refusal(403, "Management keys cannot be used for inference")
        return None

    def told(self, key: str) -> dict[str, object]:
        """Return it as `GET /key` tells it: every member that the vendor's own SDK asks for."""
        budget = self._budget()
        spans = ("", "_daily", "_weekly", "_monthly")
        return {
            "label": f"{key[:12]}...{key[-3:]}" if self.label is None else self.label,
            "limit": self.limit,
            "limit_remaining": self.remaining,
            "limit_reset": self.limit_reset,
            **{f"usage{span}": self.usage for span in spans},
            **{f"byok_usage{span}": 0 for span in spans},
            "include_byok_in_limit": False,
            "is_free_tier": self.is_free_tier,
            "is_management_key": self.is_management_key,
            "is_provisioning_key": self.is_management_key,
            "creator_user_id": openrouter.user_id(key),
            "organization_id": None,
            "workspace_id": None,
            "budgets": [] if budget is None else [budget],
            "effective_budget": budget,
            "allowed_data_regions": ["global"],
            "free_model_daily_requests": {"limit": 50, "remaining": 50, "used": 0},
            "expires_at": None if self.expires_at is None else self.expires_at.isoformat(),
            "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated and safe to ignore."},
        }

    def _budget(self) -> dict[str, object] | None:
        return (
            None
            if self.limit is None
            else {
                "scope": "key_limit",
                "limit_usd": self.limit,
                "spend_usd": self.usage,
                "remaining_usd": self.remaining,
                "reset_interval": self.limit_reset,
                "resets_at": None,
                "include_byok": False,
                "budget_id": None,
                "guardrail_id": None,
            }
        )


_BY_ENDING: Final = {
    "-spent": KeyFacts(limit=5.0, usage=5.0, limit_reset="monthly"),
    "-management": KeyFacts(is_management_key=True),
}


@dataclass(frozen=True, slots=True)
class Code:
    """What a user granted at the consent page.

    Attributes:
        challenge: What the verifier must match; None asks for no verifier.
        method: How: `S256` or `plain`.
        until: When it is too late to exchange it.
    """

    challenge: str | None
    method: str | None
    until: float

    def is_answered_by(self, verifier: object) -> bool:
        """Say whether this is the verifier to the challenge."""
        if self.challenge is None:
            return True
        if not isinstance(verifier, str):
            return False
        if self.method == "S256":
            digest = hashlib.sha256(verifier.encode("utf-8", "replace")).digest()
            verifier = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return verifier == self.challenge


class Accounts:
    """Keys that were registered or granted, and codes that were not exchanged yet; the oldest are forgotten.

    Args:
        clock: Seconds that only go forward; the age of a code counts with it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._facts: dict[str, KeyFacts] = {}
        self._codes: dict[str, Code] = {}

    def register(self, key: str, facts: KeyFacts) -> None:
        """Tell this of the key from now on."""
        self._facts[key] = facts
        _bound(self._facts)

    def facts(self, key: str) -> KeyFacts:
        """Return what is told of a key: what was registered, else what its ending stands for."""
        by_ending = next((facts for ending, facts in _BY_ENDING.items() if key.endswith(ending)), KeyFacts())
        return self._facts.get(key, by_ending)

    def unknown(self, key: str) -> Refusal | None:
        """Return why a key opens no door at all; None when it does."""
        expires_at = self.facts(key).expires_at
        if expires_at is not None and expires_at <= datetime.now(UTC):
            return Refusal(401, "API key expired")
        refusal = openrouter.refused_key(key)
        return None if refusal is not None and refusal.status == 402 else refusal

    def refusal(self, key: str) -> Refusal | None:
        """Return why a key pays for no call; None when it does."""
        return self.unknown(key) or openrouter.refused_key(key) or self.facts(key).refusal

    def grant(self, challenge: str | None, method: str | None) -> str:
        """Return a new code."""
        code = secrets.token_urlsafe(24)
        self._codes[code] = Code(challenge, method, self.clock() + _CODE_SECONDS)
        _bound(self._codes)
        return code

    def exchange(self, code: str, verifier: object, method: object) -> str | Refusal:
        """Return a new key for a code, which is good once, or why there is none."""
        granted = self._codes.get(code)
        if granted is not None and granted.method != method:
            return Refusal(400, "Invalid code_challenge_method")
        if granted is None or self.clock() > granted.until or not granted.is_answered_by(verifier):
            return Refusal(403, "Invalid code or code_verifier")
        del self._codes[code]
        return f"sk-or-v1-{secrets.token_hex(32)}"

    def clear(self) -> None:
        """Forget everything."""
        self._facts.clear()
        self._codes.clear()


def _bound(remembered: dict[str, KeyFacts] | dict[str, Code]) -> None:
    if len(remembered) > _MOST:
        del remembered[next(iter(remembered))]
