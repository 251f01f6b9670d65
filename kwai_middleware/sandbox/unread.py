"""OpenRouter's endpoints in formats that have little in common with a conversation: rerank and videos."""

from __future__ import annotations

from collections.abc import Mapping

from kwai_middleware.sandbox.answers import Answer
from kwai_middleware.sandbox.flavours import AtOpenRouter, OneObject
from kwai_middleware.sandbox.forwarding import OPENROUTER_RERANK_MEMBERS, OPENROUTER_VIDEOS_MEMBERS
from kwai_middleware.sandbox.texts import texts_of
from kwai_middleware.sandbox.vendors import OpenRouter

__all__ = ["OpenRouterRerank", "OpenRouterVideos"]


class Ranking(AtOpenRouter, OneObject):
    """Documents by the words that they share with the query."""

    def said(self) -> list[Answer]:
        """Return what costs something beside the query and the documents: nothing."""
        return []

    def body(self) -> dict[str, object]:
        """Return the object."""
        query, *documents = self.question.texts
        words = set(query.lower().split())
        scores = [round(len(words & set(text.lower().split())) / len(words), 4) for text in documents]
        best_first = sorted(range(len(documents)), key=lambda index: -scores[index])
        most = self.question.body.get("top_n")
        return {
            **self.envelope(),
            "model": self.question.model,
            "results": [
                {"index": index, "relevance_score": scores[index], "document": {"text": documents[index]}}
                for index in best_first[: most if type(most) is int and most > 0 else None]
            ],
            "usage": {
                "search_units": 1,
                "total_tokens": self.bill.total_tokens,
                "cost": self.costs()["cost"],
            },
        }


class OpenRouterRerank(OpenRouter):
    """`POST /api/v1/rerank` of OpenRouter."""

    completion = Ranking
    members = OPENROUTER_RERANK_MEMBERS

    def is_streamed(self, body: Mapping[str, object]) -> bool:
        """Say whether the answer is to come as events."""
        return False

    def lacks(self, body: Mapping[str, object]) -> str | None:
        """Return what is wrong with a request that names a model."""
        query = body.get("query")
        is_asked = isinstance(query, str) and query.strip() and texts_of(body.get("documents"))
        return None if is_asked else "query: a text, documents: a non-empty array: both are required"

    def asked(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return the request as a chat request: the query and each document are messages."""
        texts = [body["query"], *texts_of(body.get("documents"))]
        return {**body, "messages": [{"role": "user", "content": text} for text in texts], "n": 1}


class VideoJob(AtOpenRouter, OneObject):
    """A video that is yet to be made: nothing says how it goes on."""

    status = 202

    def said(self) -> list[Answer]:
        """Return what costs something beside the prompt: nothing yet."""
        return []

    def body(self) -> dict[str, object]:
        """Return the object."""
        return {
            "id": f"job-{self.id}",
            "generation_id": self.id,
            "polling_url": f"/api/v1/videos/job-{self.id}",
            "status": "pending",
        }


class OpenRouterVideos(OpenRouter):
    """`POST /api/v1/videos` of OpenRouter."""

    completion = VideoJob
    members = OPENROUTER_VIDEOS_MEMBERS

    def is_streamed(self, body: Mapping[str, object]) -> bool:
        """Say whether the answer is to come as events."""
        return False

    def lacks(self, body: Mapping[str, object]) -> str | None:
        """Return what is wrong with a request that names a model."""
        return None if isinstance(body.get("prompt"), str) else "prompt: a text is required"

    def asked(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return the request as a chat request."""
        return {**body, "messages": [{"role": "user", "content": body["prompt"]}], "n": 1}
