"""What OpenRouter says of a key."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import msgspec

from kwai_middleware._openrouter.asking import Answer, without
from kwai_middleware._secret import Secret
from kwai_middleware.errors import InvalidKey, KwaiError

__all__ = ["IMPOSSIBLE_KEY", "KeyInfo", "key_info"]

_KEYS_PAGE: Final = "https://openrouter.ai/settings/keys"
IMPOSSIBLE_KEY: Final = (
    "this is no API key: a key is visible ASCII without blanks, such as sk-or-v1-... (was it copied whole, without"
    " quotes?)"
)
_UNKNOWN_KEY: Final = (
    f"OpenRouter does not accept this key: it is mistyped, deleted, disabled or expired; see {_KEYS_PAGE}"
)
_FORBIDDEN_KEY: Final = (
    "OpenRouter knows this key and forbids it even to ask about itself: whoever made the key, or an organisation's"
    f" guardrail, has restricted it; see {_KEYS_PAGE}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """What OpenRouter says of a key that it accepts. Money is US dollars.

    Attributes:
        key: It, as it is to be kept.
        label: What OpenRouter shows people to tell keys apart by: a name, or a few characters of
            the key's beginning and end. Kept out of `repr`, and empty where it holds the whole key.
        limit: What the key may spend in all, or between two resets; None for no limit of its own.
        remaining: What it may still spend: the least that its own limit and the budgets above it
            (of a workspace, a guardrail) leave. None for no bound. What credit the account has is
            not told to a key.
        limit_reset: How often the limit begins anew: `daily`, `weekly`, `monthly`; None for never.
        usage: What the key has spent since it was made.
        expires_at: When it ends; None for never.
        is_free_tier: Whether the account has never bought credit.
        is_management_key: Whether it manages other keys, and so calls no model.
    """

    key: Secret
    label: str = field(default="", repr=False)
    limit: float | None
    remaining: float | None
    limit_reset: str | None
    usage: float
    expires_at: datetime | None
    is_free_tier: bool
    is_management_key: bool

    @property
    def objection(self) -> str | None:
        """Why the key pays for no call now, for the person who brought it; None when it does."""
        if self.is_management_key:
            return f"This is a management key: it makes keys, and calls no model. Make a key at {_KEYS_PAGE}"
        if self.expires_at is not None and self.expires_at <= datetime.now(UTC):
            return f"This key has expired. Make a new one at {_KEYS_PAGE}"
        if self.remaining is not None and self.remaining <= 0:
            return f"This key has spent what it may. Raise its limit at {_KEYS_PAGE}"
        return None


class _Budget(msgspec.Struct):
    remaining_usd: float


class _Key(msgspec.Struct):
    """The members that matter; those that not every version of the vendor's API has are optional."""

    label: str
    usage: float
    limit: float | None
    limit_remaining: float | None = None
    limit_reset: str | None = None
    expires_at: datetime | None = None
    effective_budget: _Budget | None = None
    is_free_tier: bool = False
    is_management_key: bool = False
    is_provisioning_key: bool = False


class _Described(msgspec.Struct):
    data: _Key


def key_info(key: Secret, answer: Answer | KwaiError) -> KeyInfo | KwaiError:
    """Return what the answer to `GET /key` says of the key, or the error that it means."""
    if isinstance(answer, KwaiError):
        return answer
    if answer.status in (401, 403):
        return InvalidKey(_UNKNOWN_KEY if answer.status == 401 else _FORBIDDEN_KEY)
    described = answer.read(_Described)
    if isinstance(described, KwaiError):
        return described
    told = described.data
    bounds = [told.limit_remaining, None if told.effective_budget is None else told.effective_budget.remaining_usd]
    return KeyInfo(
        key=key,
        label=without(told.label, key),
        limit=told.limit,
        remaining=min((bound for bound in bounds if bound is not None), default=None),
        limit_reset=without(told.limit_reset or "", key) or None,
        usage=told.usage,
        expires_at=_aware(told.expires_at),
        is_free_tier=told.is_free_tier,
        is_management_key=told.is_management_key or told.is_provisioning_key,
    )


def _aware(moment: datetime | None) -> datetime | None:
    """OpenRouter's times are UTC, should one ever come without saying so."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
