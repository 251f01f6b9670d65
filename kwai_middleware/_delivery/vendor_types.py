"""What the vendor's own types accept and keep; whatever they would refuse or drop travels another way.

A log that fails the vendor's validation is lost without a word, so these types are narrower than the
vendor's (`respan_sdk` 2.9.0 and `keywordsai_sdk` 0.5.2): what passes here passes there, whole.
"""

from __future__ import annotations

from typing import Any, Final, Literal, cast

import msgspec

from kwai_middleware._pieces import is_utf8, outline
from kwai_middleware._record import CompletedCall

__all__ = ["PARAMETERS", "Fitted", "accepted_parameter", "all_kept_whole", "fitted_message", "kept_usage"]


class Fitted(msgspec.Struct, frozen=True):
    """One message, as far as the vendor's `Message` takes it.

    Attributes:
        message: What it keeps, as JSON.
        whole: Whether that is all of it.
    """

    message: msgspec.Raw
    whole: bool


class _CacheControl(msgspec.Struct, forbid_unknown_fields=True):
    type: str


class _TextPart(msgspec.Struct, tag="text", forbid_unknown_fields=True):
    text: str
    cache_control: _CacheControl | None = None


class _ImageURL(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    detail: str | None = None


class _ImagePart(msgspec.Struct, tag="image_url"):
    # Of all parts this one alone keeps members that the vendor does not know.
    image_url: _ImageURL | str


class _InputTextPart(msgspec.Struct, tag="input_text", forbid_unknown_fields=True):
    text: str
    cache_control: _CacheControl | None = None


class _OutputTextPart(msgspec.Struct, tag="output_text", forbid_unknown_fields=True):
    text: str
    annotations: list[dict[str, Any] | str] | None = None
    cache_control: _CacheControl | None = None


class _ImageSource(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    media_type: str
    data: str


class _SourcedImagePart(msgspec.Struct, tag="image", forbid_unknown_fields=True):
    source: _ImageSource


class _ToolUsePart(msgspec.Struct, tag="tool_use", forbid_unknown_fields=True):
    id: str
    name: str
    input: dict[str, Any]


class _ToolResultPart(msgspec.Struct, tag="tool_result", forbid_unknown_fields=True):
    tool_use_id: str
    content: str


class _FilePart(msgspec.Struct, tag="file", forbid_unknown_fields=True):
    file: dict[str, msgspec.Raw]


_Part = (
    _TextPart
    | _ImagePart
    | _FilePart
    | _InputTextPart
    | _OutputTextPart
    | _SourcedImagePart
    | _ToolUsePart
    | _ToolResultPart
)


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system", "tool", "none", "developer"]
    content: str | list[_Part | str] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[dict[str, Any]] | None = None
    annotations: list[dict[str, Any]] | None = None
    # The vendor drops these; SDKs send them as null, and nothing is lost then.
    refusal: None = None
    audio: None = None
    function_call: None = None
    reasoning: None = None
    reasoning_details: None = None
    images: None = None


_KEPT_MEMBERS: Final = frozenset(
    ("role", "content", "name", "tool_call_id", "tool_calls", "reasoning_content", "thinking_blocks", "annotations")
)
_message_decoder: Final = msgspec.json.Decoder(_Message)
_messages_decoder: Final = msgspec.json.Decoder(list[_Message])
_members_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tool_calls_decoder: Final = msgspec.json.Decoder(list[dict[str, Any]] | None)


def all_kept_whole(messages: bytes) -> bool:
    """Say whether the vendor's `Message` takes all of each message in a list, given as short UTF-8 JSON."""
    try:
        return all(map(_keeps_tool_calls, _messages_decoder.decode(messages)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def fitted_message(raw: msgspec.Raw) -> Fitted | None:
    """Fit one message, given as UTF-8 JSON, to the vendor's `Message`; None when that would refuse it."""
    if _is_kept_whole(raw):
        return Fitted(raw, True)
    try:
        members = _members_decoder.decode(raw)
        kept: dict[str, Any] = {name: value for name, value in members.items() if name in _KEPT_MEMBERS}
        if "tool_calls" in kept:
            kept["tool_calls"] = [_kept_of(call) for call in _tool_calls_decoder.decode(kept["tool_calls"]) or ()]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    reduced = msgspec.Raw(msgspec.json.encode(kept))
    return Fitted(reduced, False) if _is_kept_whole(reduced) else None


def _is_kept_whole(raw: msgspec.Raw) -> bool:
    try:
        message = _message_decoder.decode(outline(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return _keeps_tool_calls(message)


def _keeps_tool_calls(message: _Message) -> bool:
    return not message.tool_calls or all(map(_is_kept_tool_call, message.tool_calls))


def _is_kept_tool_call(call: dict[str, Any]) -> bool:
    """Say whether the vendor keeps all of a tool call: a call of a function loses members it does not know."""
    function = call.get("function")
    if function is None:
        return "function" not in call
    return call.keys() <= {"id", "type", "function"} and (
        not isinstance(function, dict) or cast("dict[str, Any]", function).keys() == {"name", "arguments"}
    )


def _kept_of(call: dict[str, Any]) -> dict[str, Any]:
    """Return what the vendor keeps of a tool call that is one of a function; another stays as it is."""
    function = call.get("function")
    if not isinstance(function, dict):
        return call
    members = cast("dict[str, Any]", function)
    return {name: call[name] for name in ("id", "type") if name in call} | {
        "function": {name: members[name] for name in ("name", "arguments") if name in members}
    }


class _ChosenFunction(msgspec.Struct):
    name: str


class _ToolChoice(msgspec.Struct):
    type: str
    function: _ChosenFunction | None = None


PARAMETERS: Final[dict[str, Any]] = {
    "temperature": float,
    "top_p": float,
    "max_tokens": int,
    "max_completion_tokens": int,
    "frequency_penalty": float,
    "presence_penalty": float,
    "logprobs": bool,
    "top_logprobs": int,
    "n": int,
    "parallel_tool_calls": bool,
    "logit_bias": dict[str, float],
    "stop": str | list[str],
    "reasoning_effort": str,
    "dimensions": int,
    "encoding_format": str,
    "response_format": dict[str, Any],
    "stream_options": dict[str, Any],
    "thinking": dict[str, Any],
    "tool_choice": Literal["auto", "none", "required"] | _ToolChoice,
    "tools": list[dict[str, Any]],
}
"""Parameters of a request that the vendor's log types have, and the values they take there."""

_parameter_decoders: Final = {name: msgspec.json.Decoder(type_) for name, type_ in PARAMETERS.items()}


def accepted_parameter(name: str, raw: bytes) -> bool:
    """Say whether the vendor's log types take a request's parameter with this value (JSON)."""
    decoder = _parameter_decoders.get(name)
    if decoder is None:
        return False
    try:
        decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    # msgspec does not look into what it only skips.
    return is_utf8(raw)


_MOST_TOKENS: Final = 2**53


def kept_usage(call: CompletedCall) -> dict[str, Any] | None:
    """Return what the vendor's `Usage` keeps, under its names; it drops all else without a word, `cost` too.

    Chat completions have these names, the Responses API and Anthropic others; Anthropic's count of the prompt
    leaves out what a cache had of it, the record's own does not.
    """
    usage = call.usage
    if not usage:
        return None
    counts = (
        ("prompt_tokens", usage.get("prompt_tokens", call.prompt_tokens)),
        ("completion_tokens", usage.get("completion_tokens", call.completion_tokens)),
        ("total_tokens", usage.get("total_tokens", call.total_tokens)),
        ("cache_creation_prompt_tokens", usage.get("cache_creation_input_tokens")),
        ("cache_read_input_tokens", usage.get("cache_read_input_tokens")),
    )
    kept: dict[str, Any] = {}
    for name, count in counts:
        if type(count) is int and 0 <= count < _MOST_TOKENS:
            kept[name] = count
    for name, names in _DETAILS:
        for each in names:
            if each in usage:
                if isinstance(usage[each], dict):
                    kept[name] = usage[each]
                break
    return kept or None


_DETAILS: Final = (
    ("prompt_tokens_details", ("prompt_tokens_details", "input_tokens_details", "input_token_details")),
    ("completion_tokens_details", ("completion_tokens_details", "output_tokens_details")),
)
"""The vendor's names, and those of the Responses API and of transcriptions."""
