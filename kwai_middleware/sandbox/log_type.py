"""The vendor's own type of a log, as `respan_sdk` 2.9.0 publishes it: what it refuses, the vendor loses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

__all__ = ["refusal"]

_Object: TypeAlias = dict[str, Any]
_Identifier: TypeAlias = str | int | None


class _CacheControl(msgspec.Struct):
    type: str


class _Text(msgspec.Struct, tag="text"):
    text: str
    cache_control: _CacheControl | None = None


class _InputText(_Text, tag="input_text"):
    pass


class _OutputText(_Text, tag="output_text"):
    annotations: list[_Object | str] | None = None


class _ImageAddress(msgspec.Struct):
    url: str
    detail: str | None = None


class _ImageURL(msgspec.Struct, tag="image_url"):
    image_url: _ImageAddress | str


class _InputImage(msgspec.Struct, tag="input_image", rename="camel"):
    image: str
    provider_data: _Object | None = None


class _ImageSource(msgspec.Struct):
    type: str
    media_type: str
    data: str


class _Image(msgspec.Struct, tag="image"):
    source: _ImageSource


class _File(msgspec.Struct, tag="file"):
    # None of these may be null, though all may be missing.
    file_data: str | UnsetType = UNSET
    file_id: str | UnsetType = UNSET
    filename: str | UnsetType = UNSET
    file_name: str | UnsetType = UNSET
    file_type: str | UnsetType = UNSET
    file_size: int | UnsetType = UNSET
    file: _Object | UnsetType = UNSET


class _InputFile(msgspec.Struct, tag="input_file", rename="camel"):
    file: str
    provider_data: _Object | None = None


class _ToolUse(msgspec.Struct, tag="tool_use"):
    id: str = ""
    name: str = ""
    input: _Object = {}


class _ToolResult(msgspec.Struct, tag="tool_result"):
    tool_use_id: str
    content: str


_Part: TypeAlias = (
    _Text | _InputText | _OutputText | _ImageURL | _InputImage | _Image | _File | _InputFile | _ToolUse | _ToolResult
)


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system", "tool", "none", "developer"]
    content: str | list[_Part | str] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[_Object] | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[_Object] | None = None
    annotations: list[_Object] | None = None


class _ChosenFunction(msgspec.Struct):
    name: str


class _ToolChoice(msgspec.Struct):
    type: str
    function: _ChosenFunction | None = None


class _Customer(msgspec.Struct):
    customer_identifier: _Identifier = None
    name: str | None = None
    email: str | None = None


class _Log(msgspec.Struct):
    """The members with rules beyond those that the API itself checks before it takes a log."""

    prompt_messages: list[_Message] | None = None
    messages: list[_Message] | None = None
    completion_message: _Message | None = None
    completion_messages: list[_Message] | None = None
    input: str | _Object | list[Any] | None = None
    output: str | _Object | list[Any] | None = None
    warnings: str | None = None
    tools: list[_Object] | None = None
    tool_calls: list[_Object] | None = None
    tool_choice: Literal["auto", "none", "required"] | _ToolChoice | None = None
    response_format: _Object | str | None = None
    stream_options: _Object | None = None
    thinking: _Object | None = None
    reasoning_effort: str | None = None
    stop: list[str] | str | None = None
    logit_bias: dict[str, float] | None = None
    customer_params: _Customer | None = None
    customer_identifier: _Identifier = None
    customer_name: str | None = None
    customer_email: str | None = None
    group_identifier: _Identifier = None
    thread_identifier: _Identifier = None
    custom_identifier: _Identifier = None
    provider_id: str | None = None
    full_request: _Object | list[Any] | None = None
    full_response: _Object | list[Any] | None = None
    variables: _Object | None = None


def refusal(row: Mapping[str, object]) -> str | None:
    """Return what the vendor's type has against a log, and where; None when it takes it.

    The API answers 2xx before it looks, and a log that is refused then is gone without a word.
    """
    try:
        msgspec.convert({name: value for name, value in row.items() if value is not None}, _Log)
    except msgspec.ValidationError as error:
        return str(error)
    return None
