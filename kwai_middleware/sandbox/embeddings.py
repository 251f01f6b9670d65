"""The embeddings of both vendors: a vector for each text, which follows from the text alone."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from kwai_middleware.sandbox.answers import Answer
from kwai_middleware.sandbox.flavours import AtOpenRouter, OneObject, ThroughGateway
from kwai_middleware.sandbox.forwarding import OPENROUTER_EMBEDDINGS_MEMBERS
from kwai_middleware.sandbox.inference import Inference
from kwai_middleware.sandbox.texts import texts_of
from kwai_middleware.sandbox.vendors import Gateway, OpenRouter

__all__ = ["GatewayEmbeddings", "OpenRouterEmbeddings"]

_DIMENSIONS: Final = 16
_MOST_DIMENSIONS: Final = 4096


class EmbeddingList(OneObject):
    """Vectors in OpenAI's shape; only what is embedded costs something."""

    def said(self) -> list[Answer]:
        """Return what costs something beside the prompt: nothing."""
        return []

    def body(self) -> dict[str, object]:
        """Return the object."""
        asked, bill = self.question.body, self.bill
        dimensions = asked.get("dimensions")
        count = dimensions if type(dimensions) is int and 1 <= dimensions <= _MOST_DIMENSIONS else _DIMENSIONS
        is_packed = asked.get("encoding_format") == "base64"
        vectors = (_vector(text, count) for text in self.question.texts)
        return {
            **self.envelope(),
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _packed(vector) if is_packed else vector}
                for index, vector in enumerate(vectors)
            ],
            "model": self.question.model,
            "usage": {"prompt_tokens": bill.prompt_tokens, "total_tokens": bill.total_tokens, **self.costs()},
        }


class GatewayEmbeddingList(ThroughGateway, EmbeddingList):
    """Vectors through the gateway."""


class OpenRouterEmbeddingList(AtOpenRouter, EmbeddingList):
    """Vectors from OpenRouter."""


class Embeddings(Inference):
    """Embeddings, as far as the vendors agree: they are never streamed."""

    def is_streamed(self, body: Mapping[str, object]) -> bool:
        """Say whether the answer is to come as events."""
        return False

    def lacks(self, body: Mapping[str, object]) -> str | None:
        """Return what is wrong with a request that names a model."""
        return (
            None if texts_of(body.get("input")) else "input: a text, tokens, or a non-empty array of either is required"
        )

    def asked(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return the request as a chat request: each text is a message."""
        messages = [{"role": "user", "content": text} for text in texts_of(body.get("input"))]
        return {**body, "messages": messages, "n": 1}


class GatewayEmbeddings(Embeddings, Gateway):
    """`POST /api/embeddings` of the gateway."""

    completion = GatewayEmbeddingList


class OpenRouterEmbeddings(Embeddings, OpenRouter):
    """`POST /api/v1/embeddings` of OpenRouter."""

    completion = OpenRouterEmbeddingList
    members = OPENROUTER_EMBEDDINGS_MEMBERS


def _vector(text: str, count: int) -> Sequence[float]:
    """A vector of length 1, of numbers that 32 bits can hold."""
    seed = text.encode("utf-8", "surrogatepass")
    numbers = [
        int.from_bytes(hashlib.sha256(b"%d " % place + seed).digest()[:4], "big") / 2**31 - 1 for place in range(count)
    ]
    length = math.sqrt(sum(number * number for number in numbers))
    return struct.unpack(f"<{count}f", struct.pack(f"<{count}f", *(number / length for number in numbers)))


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
