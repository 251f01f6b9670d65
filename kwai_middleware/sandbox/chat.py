"""The chat completions endpoints of both vendors, and every other path of theirs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from kwai_middleware.sandbox import gateway, openrouter
from kwai_middleware.sandbox.answers import Answer, Plain, Question, Refusal
from kwai_middleware.sandbox.completions import Completion
from kwai_middleware.sandbox.connection import Connection
from kwai_middleware.sandbox.encodings import ContentEncoder, content_encoder
from kwai_middleware.sandbox.endpoint import Endpoint
from kwai_middleware.sandbox.entries import CallEntry
from kwai_middleware.sandbox.json_types import is_array, is_object, json_or_none, object_or_empty
from kwai_middleware.sandbox.keys import bearer_key
from kwai_middleware.sandbox.scenarios import reply_to

__all__ = ["GatewayChat", "OpenRouterChat"]

Headers = list[tuple[str, str]]


class Chat(Endpoint):
    """Chat completions, as far as the vendors agree."""

    completion: Callable[[Question, Answer], Completion]

    async def handle(self, connection: Connection, entry: CallEntry) -> None:
        """Check the request, note who pays, and give the answer that the model's name asks for."""
        authorization = bearer_key(connection.header(b"authorization"))
        self.state.keys.remember(authorization)
        body = json_or_none(entry.raw_body)
        members = object_or_empty(body)
        model = members.get("model")
        entry.model = model if isinstance(model, str) else None
        entry.stream = members.get("stream") is True
        refusal = self.admit(connection, entry, members, authorization)
        self.state.keys.remember(entry.paying_key)
        if refusal is None:
            refusal = _malformed(body)
        self.state.calls.append(entry)
        if refusal is not None:
            await self.refuse(connection, entry, refusal)
            return
        question = Question(members, dict(parse_qsl(connection.scope["query_string"].decode("latin-1"))))
        reply = reply_to(question)
        if isinstance(reply, Answer):
            await self._give(connection, entry, self.completion(question, reply))
        elif isinstance(reply, Refusal):
            await self.refuse(connection, entry, reply)
        elif isinstance(reply, Plain):
            await connection.answer(reply.status, reply.body, [*self.headers(entry, None), *reply.headers])
        else:
            await connection.pause(None)

    @abstractmethod
    def admit(
        self, connection: Connection, entry: CallEntry, body: Mapping[str, object], authorization: str | None
    ) -> Refusal | None:
        """Write into `entry` who pays and for whom; returns why the request is refused, or None."""

    @abstractmethod
    async def refuse(self, connection: Connection, entry: CallEntry, refusal: Refusal) -> None:
        """Answer with an error."""

    @abstractmethod
    def headers(self, entry: CallEntry, completion: Completion | None) -> Headers:
        """Return the vendor's headers of an answer."""

    async def _give(self, connection: Connection, entry: CallEntry, completion: Completion) -> None:
        answer = completion.answer
        encoder = content_encoder(answer.encoding, connection.header(b"accept-encoding") or "")
        headers = self.headers(entry, completion)
        if encoder is not None:
            headers.append(("content-encoding", answer.encoding))
        if entry.stream:
            headers += [("content-type", "text/event-stream"), ("cache-control", "no-cache")]
            await connection.start(200, headers=headers)
            await _stream(connection, entry, completion, encoder or ContentEncoder())
        else:
            if answer.wait:
                await connection.pause(answer.wait)
            whole = completion.whole()
            whole = whole if encoder is None else encoder.piece(whole) + encoder.end()
            # A body that ends late has no length: the client would know the end by it.
            await connection.start(200, headers=headers, body_length=None if answer.ending == "late" else len(whole))
            await _send_whole(connection, entry, answer, whole)


class GatewayChat(Chat):
    """`POST /api/chat/completions` of the Keywords AI (Respan) gateway, which logs its own calls."""

    route = "gateway"
    completion = gateway.GatewayCompletion

    def admit(
        self, connection: Connection, entry: CallEntry, body: Mapping[str, object], authorization: str | None
    ) -> Refusal | None:
        """Insist on the app's key, then look whose key pays."""
        header = connection.header(b"x-data-respan-params") or connection.header(b"x-data-keywordsai-params")
        merged = gateway.parameters(body, header)
        entry.customer_params = merged.get("customer_params")
        entry.customer = gateway.customer_of(merged)
        if authorization is None:
            return Refusal(401, gateway.INVALID_KEY)
        entry.paying_key, entry.paid_from = authorization, "authorization"
        credential = gateway.paying_credential(merged)
        if credential is not None:
            _, entry.paying_key = credential
            entry.paid_from = "customer_credentials"
            if (refusal := openrouter.refused_key(entry.paying_key)) is not None:
                entry.log_id = self.state.new_log_id()
                return refusal
        elif authorization.endswith("-dead"):
            return Refusal(401, gateway.INVALID_KEY)
        entry.log_id = self.state.new_log_id()
        return None

    async def refuse(self, connection: Connection, entry: CallEntry, refusal: Refusal) -> None:
        """Answer with an error: the gateway's own, or the provider's that it hands on."""
        headers = self.headers(entry, None)
        if refusal.retry_after is not None:
            headers.append(("retry-after", str(refusal.retry_after)))
        body = gateway.error_body(refusal.message) if entry.log_id is None else gateway.provider_error(refusal)
        await connection.answer(refusal.status, body, headers)

    def headers(self, entry: CallEntry, completion: Completion | None) -> Headers:
        """Return `X-Respan-Log-Id`: the sign that the gateway logged the call."""
        return [] if entry.log_id is None else [("x-respan-log-id", entry.log_id)]


class OpenRouterChat(Chat):
    """`POST /api/v1/chat/completions` of OpenRouter: whoever is authorised pays."""

    route = "openrouter"
    completion = openrouter.OpenRouterCompletion

    def admit(
        self, connection: Connection, entry: CallEntry, body: Mapping[str, object], authorization: str | None
    ) -> Refusal | None:
        """Insist on a key; it pays."""
        user = body.get("user")
        entry.customer = user if isinstance(user, str) else None
        if authorization is None:
            return Refusal(401, "No auth credentials found")
        entry.paying_key, entry.paid_from = authorization, "authorization"
        return openrouter.refused_key(authorization)

    async def refuse(self, connection: Connection, entry: CallEntry, refusal: Refusal) -> None:
        """Answer with an error."""
        body = openrouter.error_body(refusal, entry.paying_key)
        await connection.answer(refusal.status, body, openrouter.error_headers(refusal))

    def headers(self, entry: CallEntry, completion: Completion | None) -> Headers:
        """Return `X-Generation-Id`."""
        return [] if completion is None else [("x-generation-id", completion.id)]


def _malformed(body: object) -> Refusal | None:
    if not is_object(body):
        return Refusal(400, "Invalid request format")
    if not isinstance(body.get("model"), str) or not body["model"]:
        return Refusal(400, "model: a non-empty string is required")
    if not is_array(body.get("messages")) or not body["messages"]:
        return Refusal(400, "messages: a non-empty array is required")
    return None


async def _stream(connection: Connection, entry: CallEntry, completion: Completion, encoder: ContentEncoder) -> None:
    answer = completion.answer
    connection.watch()
    for comment in completion.opening():
        await connection.write(encoder.piece(comment))
    if answer.wait:
        await connection.pause(answer.wait)
    for told in completion.telling():
        await connection.write(encoder.piece(told))
        # Other requests get their turn between two tokens, as they would with a real model.
        await connection.breathe()
    if answer.ending == "late":
        await connection.pause(answer.late)
    if answer.ending == "stall":
        await connection.pause(None)
    if answer.ending == "cut":
        entry.outcome = "cut"
        await connection.cut()
    else:
        await connection.write(encoder.end(), more=False)


async def _send_whole(connection: Connection, entry: CallEntry, answer: Answer, whole: bytes) -> None:
    if answer.ending in ("cut", "stall"):
        await connection.write(whole[: len(whole) // 2])
        if answer.ending == "stall":
            await connection.pause(None)
        entry.outcome = "cut"
        await connection.cut()
    elif answer.ending == "late":
        await connection.write(whole)
        await connection.pause(answer.late)
        await connection.write(b"", more=False)
    else:
        await connection.write(whole, more=False)
