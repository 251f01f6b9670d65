"""OpenRouter's images: drawings in base64 or behind URLs, streamed from sketch to picture."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Final

from kwai_middleware.sandbox.completions import filler_of, named_event
from kwai_middleware.sandbox.flavours import AtOpenRouter
from kwai_middleware.sandbox.forwarding import OPENROUTER_IMAGES_MEMBERS
from kwai_middleware.sandbox.one_object import OneObject
from kwai_middleware.sandbox.replies import PNG
from kwai_middleware.sandbox.vendors import OpenRouter

__all__ = ["OpenRouterImageGenerations", "OpenRouterImages"]

_MEDIA_TYPE: Final = "image/png"
_MOST_PARTIAL: Final = 3
_BROKEN: Final = (
    b'event: image_generation.partial_image\ndata: {"type":"image_generation.partial_image","b64_json":"bro\n\n'
)


class Images(AtOpenRouter, OneObject):
    """Pictures as OpenRouter gives them; each costs what the prompt would cost if it were said."""

    def body(self) -> dict[str, object]:
        """Return the object."""
        by_url = self.question.body.get("response_format") == "url"
        pictures = [
            {"url": f"https://sandbox.example/{self.id}/{index}.png"}
            if by_url
            else {"b64_json": _picture(index), "media_type": _MEDIA_TYPE}
            for index in range(self.question.choices)
        ]
        return {"created": self.created, "data": pictures, "usage": self.usage()}

    def usage(self) -> dict[str, object]:
        """Return what it used and cost."""
        bill = self.bill
        return {
            **bill.counts(),
            "completion_tokens_details": {"image_tokens": bill.completion_tokens},
            **self.costs(),
        }

    def events(self) -> Iterator[bytes]:
        """Yield the events of an answer that is not silent: sketches, then each picture."""
        answer = self.answer
        for index in range(self._partial_images()):
            yield self._event("partial_image", _picture(index), partial_image_index=index)
        for index, _ in enumerate(filler_of(answer.filler)):
            yield self._event("partial_image", PNG * 256, partial_image_index=index)
        if answer.is_malformed:
            yield _BROKEN
        if answer.failure is not None:
            error = {
                "type": "server_error",
                "code": str(answer.failure),
                "message": self.error()["message"],
                "param": None,
            }
            yield named_event("error", {"error": error})
        elif answer.is_finished:
            last = self.question.choices - 1
            for index in range(last):
                yield self._event("completed", _picture(index))
            # Told once, for all pictures together.
            yield self._event("completed", _picture(last), usage=self.usage())

    def _partial_images(self) -> int:
        """As many sketches as were asked for; one where nothing was said about them."""
        asked = self.question.body.get("partial_images")
        return asked if type(asked) is int and 0 <= asked <= _MOST_PARTIAL else 1

    def _event(self, kind: str, picture: str, **members: object) -> bytes:
        about = {
            "b64_json": picture,
            "media_type": _MEDIA_TYPE,
            "created": self.created,
            "created_at": self.created,
            "background": "opaque",
            "output_format": "png",
            "quality": "low",
            "size": "1024x1024",
        }
        return named_event(f"image_generation.{kind}", {**about, **members})


class ImageGenerations(Images):
    """The same in OpenAI's words."""

    def usage(self) -> dict[str, object]:
        """Return what it used and cost."""
        bill = self.bill
        return {
            "input_tokens": bill.prompt_tokens,
            "input_tokens_details": {"text_tokens": bill.prompt_tokens, "image_tokens": 0},
            "output_tokens": bill.completion_tokens,
            "output_tokens_details": {"text_tokens": 0, "image_tokens": bill.completion_tokens},
            "total_tokens": bill.total_tokens,
            **self.costs(),
        }


class OpenRouterImages(OpenRouter):
    """`POST /api/v1/images` of OpenRouter."""

    completion = Images
    members = OPENROUTER_IMAGES_MEMBERS

    def lacks(self, body: Mapping[str, object]) -> str | None:
        """Return what is wrong with a request that names a model."""
        prompt = body.get("prompt")
        return None if isinstance(prompt, str) and prompt else "prompt: a text is required"

    def asked(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return the request as a chat request."""
        return {**body, "messages": [{"role": "user", "content": body["prompt"]}]}


class OpenRouterImageGenerations(OpenRouterImages):
    """`POST /api/v1/images/generations` of OpenRouter, for OpenAI's SDKs."""

    completion = ImageGenerations


def _picture(index: int) -> str:
    """One pixel, and behind it what makes it another file; readers of pictures ignore that."""
    return base64.b64encode(base64.b64decode(PNG) + b"picture %d" % index).decode()
