"""Looks into an observation and makes the record of it. Runs on the recording thread, never on the app's."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, islice
from typing import Any, Final

from kwai_middleware._outbound import decoding
from kwai_middleware._outbound.cut_ends import without_cut_keys
from kwai_middleware._outbound.formats import (
    FORMATS,
    Answer,
    Failure,
    Format,
    FormFormat,
    Received,
    Request,
    tolerant,
    unread,
)
from kwai_middleware._outbound.formats.failures import failure_of_status
from kwai_middleware._outbound.formats.sound import described_whole
from kwai_middleware._outbound.observation import Ending, Observation
from kwai_middleware._pace import breathe
from kwai_middleware._record import CompletedCall, Outcome
from kwai_middleware._redaction import mask_end, mask_text
from kwai_middleware._secret import Secret

__all__ = ["completed"]

_LONGEST_NAME: Final = 300
_LONGEST_CODE: Final = 100
_LONGEST_MESSAGE: Final = 1000
_MOST_MONEY: Final = 1e12
_NANOSECONDS: Final = 1e9
_AT_ONCE: Final = 1000


def completed(observation: Observation) -> CompletedCall:
    """Return the record of a finished attempt.

    Content decides the outcome before the way of ending does: an answer that says it is over is
    complete, even when the app then closes, cancels or forgets it; SDKs always leave a stream that
    way. An answer with an error status or an error inside is an error, whatever came before it.
    """
    endpoint, caller, credential = observation.endpoint, observation.caller, observation.credential
    secrets, headers = observation.secrets, _headers(observation)
    format_: Format = FORMATS.get(endpoint.format, unread)
    request = _request(observation, format_)
    breathe()
    body = _Body(observation, headers)
    breathe()
    content_type = headers.get(b"content-type", "").lower()
    streamed = _is_stream(content_type, request, body.parts)
    received = Received(
        body.parts,
        streamed=streamed,
        media_type=content_type.partition(";")[0].strip(),
        secrets=secrets,
    )
    answer = format_.answer(received, request)
    breathe()
    outcome, failure = _judged(observation, answer, body, streamed=streamed, redirects=b"location" in headers)
    answer = without_cut_keys(answer, outcome, secrets)
    finished = observation.ended if answer.finished is None else body.arrival_of(answer.finished)
    first = None if answer.first_content is None else body.arrival_of(answer.first_content)
    reported, upstream, is_byok = _costs(answer.usage or {})
    requested_model = _bounded(request.model, _LONGEST_NAME, secrets)
    return CompletedCall(
        trace_id=observation.trace_id,
        call_id=observation.attempt.call_id,
        attempt=observation.attempt.number,
        route=endpoint.kind,
        host=endpoint.host,
        endpoint=endpoint.path,
        format=endpoint.format,
        caller=None if caller is None else caller.with_credentials(()),
        billed_to=observation.billed_to,
        key_fingerprint=None if credential is None else credential.api_key.fingerprint,
        identity_from=observation.origins.identity,
        key_from=None if credential is None else observation.origins.keys,
        outcome=outcome,
        capture=observation.capture,
        started_at=observation.started_at,
        duration=(finished - observation.started) / _NANOSECONDS,
        time_to_first_token=None if first is None else (first - observation.started) / _NANOSECONDS,
        status_code=observation.status,
        error_code=_bounded(failure.code, _LONGEST_CODE, secrets) if failure else None,
        error_type=_bounded(failure.type, _LONGEST_CODE, secrets) if failure else None,
        error_message=_bounded(failure.message, _LONGEST_MESSAGE, secrets) if failure else None,
        model=_bounded(answer.model, _LONGEST_NAME, secrets) or requested_model,
        requested_model=requested_model,
        stream=streamed or (request.stream and outcome != "complete"),
        messages=request.messages,
        input=request.input,
        parameters=request.parameters,
        completions=answer.completions,
        output=answer.output if answer.media is None else _described(answer.media, observation, body),
        finish_reason=_bounded(answer.finish_reason, _LONGEST_NAME, secrets),
        usage=answer.usage,
        prompt_tokens=answer.tokens.prompt,
        completion_tokens=answer.tokens.completion,
        total_tokens=answer.tokens.total,
        cached_tokens=answer.tokens.cached,
        cache_write_tokens=answer.tokens.cache_write,
        reasoning_tokens=answer.tokens.reasoning,
        cost=_cost(reported, upstream, is_byok=is_byok),
        reported_cost=reported,
        upstream_cost=upstream,
        is_byok=is_byok,
        generation_id=_bounded(headers.get(b"x-generation-id") or answer.generation_id, _LONGEST_NAME, secrets),
        provider=_bounded(answer.provider, _LONGEST_NAME, secrets),
        provider_id=endpoint.provider if endpoint.kind == "direct" else None,
        gateway_log_id=_bounded(headers.get(b"x-respan-log-id"), _LONGEST_NAME, secrets),
        truncated=body.is_shortened or not observation.request_kept,
    )


def _request(observation: Observation, format_: Format) -> Request:
    body, sent = observation.request_body, observation.request_sent
    if sent is not None and isinstance(format_, FormFormat):
        return format_.form(sent.head, sent.end, sent.size)
    return format_.request(body) if body else Request()


class _Body:
    """An answer's body, decoded, and when each part of it arrived.

    Attributes:
        parts: What is consecutive; a second part when something between was not kept.
        is_shortened: Whether something is missing that had arrived.
    """

    def __init__(self, observation: Observation, headers: dict[bytes, str]) -> None:
        chunks, gap = observation.chunks, observation.gap_after
        is_plain = observation.decoded or b"content-encoding" not in headers
        codings = [] if is_plain else decoding.codings_of(observation.response_headers)
        head_size = len(chunks) if gap is None else gap
        # What stands behind a gap cannot be decompressed.
        breathe()
        pieces, whole = decoding.decoded(chunks[:head_size] if codings else chunks, codings)
        self.is_shortened = gap is not None or not whole
        self.parts: tuple[bytes, ...] = (_joined(pieces[:head_size]),)
        if gap is not None:
            self.parts += (_joined(pieces[head_size:]),)
        self._ends = _ends(pieces)
        self._arrivals = observation.arrivals

    def arrival_of(self, size: int) -> int:
        """Return when the first `size` bytes were there; nanoseconds of the monotonic clock."""
        return self._arrivals[min(bisect_left(self._ends, size), len(self._arrivals) - 1)]


def _joined(pieces: list[bytes]) -> bytes:
    parts: list[bytes] = []
    for start in range(0, len(pieces), _AT_ONCE):
        parts.append(b"".join(pieces[start : start + _AT_ONCE]))
        breathe()
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _ends(pieces: list[bytes]) -> list[int]:
    """Return how many bytes there are up to the end of each piece."""
    sizes = accumulate(map(len, pieces))
    ends: list[int] = []
    while some := list(islice(sizes, _AT_ONCE)):
        ends += some
        breathe()
    return ends


def _described(media: str, observation: Observation, body: _Body) -> bytes:
    is_whole = observation.ending is Ending.END and not body.is_shortened
    return described_whole(media, body.parts, is_whole=is_whole)


def _is_stream(content_type: str, request: Request, parts: tuple[bytes, ...]) -> bool:
    if "event-stream" in content_type or "json" in content_type:
        # Some answer an error as plain JSON, whatever type they have announced; no event begins like that.
        return "event-stream" in content_type and not parts[0].lstrip().startswith(b"{")
    return request.stream and parts[0].lstrip().startswith((b"data:", b"event:", b":"))


def _judged(
    observation: Observation, answer: Answer, body: _Body, *, streamed: bool, redirects: bool
) -> tuple[Outcome, Failure | None]:
    """Say how the call ended, and what went wrong if something did."""
    status = observation.status
    if status is not None and 300 <= status < 400 and redirects:
        return "redirected", None
    if status is not None and not 200 <= status < 300:
        # Events have said what they say: their bytes are no words for people.
        words = b"" if streamed and answer.failure is not None else body.parts[0]
        is_cut = body.is_shortened or observation.ending is not Ending.END
        return "error", _failure_of_status(status, answer.failure, words, observation.secrets, is_cut=is_cut)
    if answer.failure is not None:
        return "error", answer.failure
    if answer.finished is not None:
        return "complete", None
    return _judged_by_ending(observation, answer, body, streamed=streamed)


def _failure_of_status(
    status: int, told: Failure | None, words: bytes, secrets: tuple[Secret, ...], *, is_cut: bool
) -> Failure:
    """Return what the answer tells of its failure; what it does not say, its words and its status do."""
    if told is not None and told.code and told.message:
        return told
    failure = failure_of_status(status, words)
    message = mask_end(failure.message, secrets) if is_cut and failure.message else failure.message
    if told is None:
        return Failure(failure.code, message, failure.type)
    return Failure(told.code or failure.code, told.message or message, told.type or failure.type)


def _judged_by_ending(
    observation: Observation, answer: Answer, body: _Body, *, streamed: bool
) -> tuple[Outcome, Failure | None]:
    if observation.ending is Ending.END:
        if body.is_shortened or answer.ends_with_body:
            # The word that it is over may be in what was not kept, and HTTP says that all came.
            return "complete", None
        if streamed:
            return "incomplete", None
        return "error", Failure("invalid_answer", "The answer is not a JSON object.")
    outcome = _OUTCOMES[observation.ending]
    if observation.error is None:
        return outcome, None
    name, text = observation.error
    return outcome, Failure(name, text or name)


_OUTCOMES: Final[dict[Ending, Outcome]] = {
    Ending.CLOSED: "cancelled",
    Ending.CANCELLED: "cancelled",
    Ending.TIMEOUT: "timeout",
    Ending.ERROR: "error",
    Ending.ABANDONED: "abandoned",
}


def _costs(usage: dict[str, Any]) -> tuple[float | None, float | None, bool | None]:
    """Return `cost`, `cost_details.upstream_inference_cost` and `is_byok`, as OpenRouter names them."""
    upstream = tolerant.members_of(usage.get("cost_details")).get("upstream_inference_cost")
    is_byok = usage.get("is_byok")
    return _amount(usage.get("cost")), _amount(upstream), is_byok if isinstance(is_byok, bool) else None


def _cost(reported: float | None, upstream: float | None, *, is_byok: bool | None) -> float | None:
    """Add the provider's own bill only where a key stored at OpenRouter pays it; else `cost` holds it."""
    if not is_byok or upstream is None:
        return reported
    return (reported or 0.0) + upstream


def _amount(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if -_MOST_MONEY < value < _MOST_MONEY else None


def _bounded(text: str | None, longest: int, secrets: tuple[Secret, ...]) -> str | None:
    """Return what the other side said, as UTF-8 can hold it, cut to a length that people read; None for nothing.

    It is masked before it is cut: what is left of a key that was cut in two looks like nothing any more.
    """
    if not text:
        return None
    text = text if text.isascii() else text.encode(errors="replace").decode()
    if len(text) > longest:
        text = mask_text(text, secrets)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _headers(observation: Observation) -> dict[bytes, str]:
    """Return the response's headers by their names in lower case; of several the first, and no empty one."""
    headers = reversed(observation.response_headers)
    return {name.lower(): value.decode("latin-1") for name, value in headers if value}
