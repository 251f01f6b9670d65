"""What all endpoints that answer with a model share: the order of checks, and how an answer travels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from kwai_middleware.sandbox.answers import Answer, Plain, Question, Refusal
from kwai_middleware.sandbox.completions import Completion
from kwai_middleware.sandbox.connection import Connection
from kwai_middleware.sandbox.doors import Door, doors_of
from kwai_middleware.sandbox.encodings import ContentEncoder, content_encoder
from kwai_middleware.sandbox.endpoint import Endpoint
from kwai_middleware.sandbox.entries import CallEntry
from kwai_middleware.sandbox.json_types import is_array, is_object, json_or_none, object_or_empty
from kwai_middleware.sandbox.scenarios import reply_to

__all__ = ["Headers", "Inference"]

Headers = list[tuple[str, str]]


class Inference(Endpoint):
    """An endpoint that answers with a model.

    Attributes:
        completion: Makes an answer in the endpoint's shape.
        needs: The member without which there is nothing to answer, a non-empty array of something.
        key_headers: Headers whose key may pay here.
        in_metadata: Whether `metadata` may hold the gateway's parameters.
    """

    completion: Callable[[Question, Answer], Completion]
    needs: str = "messages"
    key_headers: tuple[str, ...] = ()
    in_metadata: bool = False

    async def handle(self, connection: Connection, entry: CallEntry) -> None:
        """Check the request, note who pays, and give the answer that the model's name asks for."""
        body = self.read(connection, entry)
        members = object_or_empty(body)
        model = members.get("model")
        entry.model = model if isinstance(model, str) else None
        entry.stream = self.is_streamed(members)
        entry.route_provider = connection.header(b"x-respan-route-provider")
        entry.doors = self.doors(entry)
        for door in entry.doors:
            self.state.keys.remember(door.value if door.kind == "key" else None)
        # Who pays is noted before the body is looked at: parameters may stand in a header, beside any body.
        refusal = self.admit(connection, entry, members)
        self.state.keys.remember(entry.paying_key)
        if refusal is None:
            refusal = self._malformed(body)
        self.state.calls.append(entry)
        if refusal is not None:
            await self.refuse(connection, entry, refusal)
            return
        query = dict(parse_qsl(connection.scope["query_string"].decode("latin-1")))
        question = Question(self.asked(members), query)
        reply = reply_to(question)
        if isinstance(reply, Answer):
            await self._give(connection, entry, self.completion(question, reply))
        elif isinstance(reply, Refusal):
            await self.refuse(connection, entry, reply)
        elif isinstance(reply, Plain):
            await connection.answer(reply.status, reply.body, [*self.headers(entry, None), *reply.headers])
        else:
            await connection.pause(None)

    def read(self, connection: Connection, entry: CallEntry) -> object:
        """Return the request's members, or whatever else its body holds."""
        return json_or_none(entry.raw_body)

    def doors(self, entry: CallEntry) -> tuple[Door, ...]:
        """Return every place of the request that names a customer or brings a key."""
        body = entry.raw_body if entry.form is None else entry.form.as_json()
        return doors_of(body, entry.headers, key_headers=self.key_headers, in_metadata=self.in_metadata)

    def is_streamed(self, body: Mapping[str, object]) -> bool:
        """Say whether the answer is to come as events."""
        return body.get("stream") is True

    def lacks(self, body: Mapping[str, object]) -> str | None:
        """Return what is wrong with a request that names a model; None when it can be answered."""
        needed = body.get(self.needs)
        return None if is_array(needed) and needed else f"{self.needs}: a non-empty array is required"

    @abstractmethod
    def admit(self, connection: Connection, entry: CallEntry, body: Mapping[str, object]) -> Refusal | None:
        """Write into `entry` who pays and for whom; returns why the request is refused, or None."""

    @abstractmethod
    async def refuse(self, connection: Connection, entry: CallEntry, refusal: Refusal) -> None:
        """Answer with an error."""

    @abstractmethod
    def headers(self, entry: CallEntry, completion: Completion | None) -> Headers:
        """Return the vendor's headers of an answer."""

    def asked(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return what the model is asked, as a chat request."""
        return body

    def _malformed(self, body: object) -> Refusal | None:
        if not is_object(body):
            return Refusal(400, "Invalid request format")
        if not isinstance(body.get("model"), str) or not body["model"]:
            return Refusal(400, "model: a non-empty string is required")
        complaint = self.lacks(body)
        return None if complaint is None else Refusal(400, complaint)

    async def _give(self, connection: Connection, entry: CallEntry, completion: Completion) -> None:
        answer = completion.answer
        encoder = content_encoder(answer.encoding, connection.header(b"accept-encoding") or "")
        headers = self.headers(entry, completion)
        if encoder is not None:
            headers.append(("content-encoding", answer.encoding))
        if entry.stream:
            headers += [("content-type", "text/event-stream"), ("cache-control", "no-cache")]
            await connection.start(completion.status, headers=headers)
            await _stream(connection, entry, completion, encoder or ContentEncoder())
        else:
            headers.append(("content-type", completion.content_type))
            if answer.wait:
                await connection.pause(answer.wait)
            if answer.filler:
                await connection.start(completion.status, headers=headers)
                await _send_parts(connection, completion)
                return
            whole = completion.whole()
            whole = whole if encoder is None else encoder.piece(whole) + encoder.end()
            # A body that ends late has no length: the client would know the end by it.
            await connection.start(
                completion.status, headers=headers, body_length=None if answer.ending == "late" else len(whole)
            )
            await _send_whole(connection, entry, answer, whole)


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


async def _send_parts(connection: Connection, completion: Completion) -> None:
    """Send what would not fit into the memory."""
    connection.watch()
    for part in completion.parts():
        await connection.write(part)
        await connection.breathe()
    await connection.write(b"", more=False)


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
