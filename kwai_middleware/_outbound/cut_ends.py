"""Masks what is left of a key where an answer ends in the middle of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from kwai_middleware._outbound.formats import Answer, tolerant
from kwai_middleware._pace import breathe
from kwai_middleware._record import Outcome
from kwai_middleware._redaction import mask_end
from kwai_middleware._secret import Secret

__all__ = ["without_cut_keys"]

_DEEPEST: Final = 16
_OVER: Final = (None, "stop", "tool_calls", "function_call", "end_turn", "tool_use", "stop_sequence", "pause_turn")
"""Reasons to finish that do not cut a text."""


def without_cut_keys(answer: Answer, outcome: Outcome, secrets: tuple[Secret, ...]) -> Answer:
    """Return an answer in which no text ends in the beginning of a key, where the answer may have been cut.

    A whole key is masked wherever it stands; the beginning of one looks like nothing any more.

    Args:
        answer: What came.
        outcome: How the call ended.
        secrets: The caller's keys.
    """
    if outcome == "complete" and answer.finish_reason in _OVER:
        return answer
    changes: dict[str, Any] = {}
    if answer.completions:
        changes["completions"] = tuple(_masked(list(answer.completions), secrets, _DEEPEST))
    if answer.output is not None:
        output = tolerant.paired(_masked(tolerant.loads(answer.output), secrets, _DEEPEST))
        changes["output"] = None if output is None else msgspec.json.encode(output)
    return msgspec.structs.replace(answer, **changes)


def _masked(value: Any, secrets: tuple[Secret, ...], levels: int) -> Any:
    breathe()
    if isinstance(value, str):
        return mask_end(value, secrets)
    if levels and isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name: _masked(member, secrets, levels - 1) for name, member in members.items()}
    if levels and isinstance(value, list):
        return [_masked(item, secrets, levels - 1) for item in cast("Sequence[Any]", value)]
    return value
