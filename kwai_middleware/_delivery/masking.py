"""The app's own mask over every text of content in a record."""

from __future__ import annotations

import inspect
import json
import re
from contextvars import ContextVar
from typing import Final, NoReturn

import msgspec

from kwai_middleware import _notices
from kwai_middleware._delivery.capture import bounded
from kwai_middleware._delivery.mending import encodable, mended
from kwai_middleware._pace import breathe
from kwai_middleware._record import CompletedCall
from kwai_middleware._redaction import mask_text
from kwai_middleware._redaction.mask_function import MaskFunction, name_of
from kwai_middleware._redaction.masking import is_json
from kwai_middleware._secret import Secret

__all__ = ["ContentMask", "is_masking"]

_is_masking: Final = ContextVar("kwai_middleware_is_masking", default=False)
_LONGEST_MESSAGE: Final = 4000


def is_masking() -> bool:
    """Say whether this is code that an app's mask runs."""
    return _is_masking.get()


class _Failed(Exception):
    """The function failed, in the words of this message."""


class ContentMask:
    """Shows each text of content to a function of the app's, and puts in its place what that returns.

    Content is the texts in the prompt, the answer, the request's parameters, the error message and
    the caller's metadata. The names of members are none, nor are numbers; nor what the vendor's types
    stand on: roles, types and the ids of tool calls. Arguments of tools are one text, the JSON that
    the model wrote.

    Args:
        function: Gets a text, returns what may be recorded of it. May raise anything.
    """

    def __init__(self, function: MaskFunction) -> None:
        self._function: Final = function

    def masked(self, call: CompletedCall, secrets: tuple[Secret, ...] = ()) -> CompletedCall:
        """Return the record with its content masked; without any content when the function fails. Never raises.

        Args:
            call: The record.
            secrets: The caller's keys, should what the function returns have to be cut.
        """
        try:
            try:
                return self._over(call, secrets)
            except _Failed:
                raise
            except Exception:  # noqa: BLE001 - an app's own record may hold anything, and fail in as many ways
                return self._over(mended(call), secrets)
        except Exception as error:  # noqa: BLE001 - whatever it was, what nobody has masked does not leave
            reason = str(error) if isinstance(error, _Failed) else type(error).__name__
        name = name_of(self._function)
        _notices.count("mask_failed")
        _notices.warn_once(
            "mask_failed",
            name,
            f"the mask function {name} failed ({reason}); records with a text that it cannot mask go out without"
            " prompt, answer, error message and the caller's metadata",
        )
        return _without_content(call)

    def _over(self, call: CompletedCall, secrets: tuple[Secret, ...]) -> CompletedCall:
        caller = call.caller
        if caller is not None and caller.metadata:
            metadata = {
                name: self._text(value) if isinstance(value, str) else value for name, value in caller.metadata.items()
            }
            call = msgspec.structs.replace(call, caller=msgspec.structs.replace(caller, metadata=metadata))
        if call.capture != "full":
            return call
        completions = msgspec.json.encode(call.completions)
        masked = self._document(completions, _STRUCTURE_OF_MESSAGES)
        return msgspec.structs.replace(
            call,
            messages=self._content(call.messages),
            input=self._content(call.input),
            output=self._content(call.output),
            parameters={name: self._document(raw, _STRUCTURE) for name, raw in call.parameters.items()},
            completions=call.completions if masked is completions else tuple(msgspec.json.decode(masked)),
            error_message=None if call.error_message is None else self._message(call.error_message, secrets),
        )

    def _content(self, raw: bytes | None) -> bytes | None:
        return None if raw is None else self._document(raw, _STRUCTURE_OF_MESSAGES)

    def _message(self, message: str, secrets: tuple[Secret, ...]) -> str:
        text = self._text(message)
        if len(text) <= _LONGEST_MESSAGE:
            return text
        # What is left of a key that was cut in two looks like nothing any more.
        return mask_text(text, secrets)[: _LONGEST_MESSAGE - 1] + "…"

    def _document(self, raw: bytes, structure: dict[str, re.Pattern[str]]) -> bytes:
        """Return a JSON document with its texts masked, and all else as it was written; the very same without a change.

        What is no JSON is one text.
        """
        text = raw.decode(errors="replace")
        if not is_json(raw):
            masked = self._text(text)
            return raw if masked == text else masked.encode()
        parts: list[str] = []
        position = name_end = 0
        name = ""
        for token in _TOKENS.finditer(text):
            breathe()
            if token[2]:
                name, name_end = token[1], token.end()
                continue
            masked = self._value(token[1], name if token.start() == name_end else "", structure)
            if masked != token[1]:
                parts += text[position : token.start(1)], masked
                position = token.end(1)
        return "".join((*parts, text[position:])).encode() if parts else raw

    def _value(self, spelled: str, name: str, structure: dict[str, re.Pattern[str]]) -> str:
        """Mask one text of a document, given and returned as JSON spells it, quotes aside."""
        text: str = json.loads(f'"{spelled}"')
        if name in structure and structure[name].fullmatch(text):
            return spelled
        given = _readable(text) if name == "arguments" and "\\u" in text else text
        masked = self._text(given)
        return spelled if masked == given else msgspec.json.encode(masked).decode()[1:-1]

    def _text(self, text: str) -> str:
        if not text:
            return text
        given = encodable(text)
        token = _is_masking.set(True)
        try:
            masked = self._function(given)
        except BaseException as error:  # noqa: BLE001 - a SystemExit or a cancellation would cost the record
            raise _Failed(type(error).__name__) from None
        finally:
            _is_masking.reset(token)
        if not isinstance(masked, str):
            _refuse(masked)
        # A subclass of `str` may show and compare itself in its own way.
        exact = str.__str__(masked)
        return text if exact == given else encodable(exact)


def _refuse(result: object) -> NoReturn:
    if inspect.iscoroutine(result):
        # Nobody will await it, and Python would warn of that.
        result.close()
    raise _Failed(f"it returned {type(result).__name__}, no str")


def _without_content(call: CompletedCall) -> CompletedCall:
    caller = call.caller
    return msgspec.structs.replace(
        bounded(call, "metadata"),
        caller=None if caller is None else msgspec.structs.replace(caller, metadata={}),
        error_message=None,
    )


def _readable(arguments: str) -> str:
    """Return JSON without escapes that hide letters from whoever reads it as text."""
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments)).decode()
    except (ValueError, RecursionError):
        return arguments


_TOKENS: Final = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"(\s*:\s*)?')
"""A text of a JSON document, and whether it is a name."""

# What the vendor's types stand on, and no more: any other word may be content.
_STRUCTURE: Final = {
    "type": re.compile(
        "text|input_text|output_text|image_url|input_audio|audio|file|video_url|refusal|function|custom|tool_use|tool_result|thinking"
        "|redacted_thinking|reasoning[.](?:text|summary|encrypted)|url_citation|ephemeral|enabled|disabled|adaptive"
        "|json_object|json_schema|allowed_tools|object|array|string|number|integer|boolean|null"
    )
}
_STRUCTURE_OF_MESSAGES: Final = {
    **_STRUCTURE,
    "role": re.compile("user|assistant|system|developer|tool|function"),
    "id": re.compile("[A-Za-z0-9_.:-]{1,128}"),
    "tool_call_id": re.compile("[A-Za-z0-9_.:-]{1,128}"),
}
