"""What the checks look at: an app, its settings, its environment and its server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette

from kwai_middleware._cli.doctor_layers import Layer, Path, is_flask
from kwai_middleware._cli.doctor_load import SourceLines
from kwai_middleware._cli.doctor_server import Server
from kwai_middleware._inbound.arguments import Arguments
from kwai_middleware._inbound.first_of import early_sources, late
from kwai_middleware._settings import Settings
from kwai_middleware.identity import HeaderIdentity

__all__ = ["PROVEN", "Door", "Examined"]

PROVEN: Final = 'kwai.HeaderIdentity(proxy_secret=os.environ["PROXY_SECRET"])'


@dataclass(frozen=True, slots=True)
class Door:
    """One of our middlewares that could be made, and what it asks."""

    layer: Layer
    arguments: Arguments

    @property
    def identities(self) -> tuple[Any, ...]:
        """The sources of identities."""
        return _sources(self.arguments.identify)

    @property
    def keys(self) -> tuple[Any, ...]:
        """The sources of keys."""
        return _sources(self.arguments.credentials)

    @property
    def by_header(self) -> list[HeaderIdentity]:
        """Those that believe a proxy."""
        return [source for source in self.identities if isinstance(source, HeaderIdentity)]

    @property
    def by_address(self) -> list[HeaderIdentity]:
        """Those that believe it for its address alone."""
        return [source for source in self.by_header if source.proxy_secret is None]

    @property
    def key_headers(self) -> frozenset[str]:
        """The headers that keys come in."""
        return frozenset[str]().union(*(getattr(source, "header_names", ()) for source in self.keys))

    @property
    def refuses(self) -> bool:
        """Whether it may answer a request with 401."""
        return self.arguments.required is not False or self.arguments.required_key is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """All of it.

    Attributes:
        variable: What the app is called in its module.
        app: It.
        paths: Through what stands around it.
        lines: Where things stand in its code.
        settings: Of the environment; None where they are wrong.
        environ: The environment.
        server: What serves it; None when nobody has said that.
    """

    variable: str
    app: Any
    paths: list[Path]
    lines: SourceLines
    settings: Settings | None
    environ: Mapping[str, str]
    server: Server | None

    def doors(self) -> Iterator[Door]:
        """Yield each door that decides for some request, once."""
        seen: set[int] = set()
        for path in self.paths:
            for position, index in enumerate(path.ours):
                layer = path.layers[index]
                key = id(layer.instance if layer.instance is not None else layer)
                if layer.arguments is None or key in seen or (position and not layer.arguments.override):
                    continue
                seen.add(key)
                yield Door(layer, layer.arguments)

    def written(self, door: str, arguments: str = "") -> str:
        """Return the line that puts one of our doors around this app."""
        if door == "WSGIMiddleware" and is_flask(self.app):
            inner = f"{self.variable}.wsgi_app"
            return f"{inner} = kwai.WSGIMiddleware({inner}{arguments})"
        if door == "ASGIMiddleware" and isinstance(self.app, Starlette):
            return f"{self.variable}.add_middleware(kwai.ASGIMiddleware{arguments})"
        return f"{self.variable} = kwai.{door}({self.variable}{arguments})"

    def line_of(self, *names: str) -> str:
        """Return where the first of these that is in the app's code stands."""
        return next((line for line in map(self.lines.of, names) if line), "")


def _sources(source: object) -> tuple[Any, ...]:
    later = late(source)
    return (*early_sources(source), *(() if later is None else (later,)))
