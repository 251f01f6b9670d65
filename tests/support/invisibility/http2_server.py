"""The scripted server once more, speaking HTTP/2 over TLS: the same answers as frames, and what only HTTP/2 can do."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from tests.support.invisibility.answers import ANSWERS
from tests.support.invisibility.server import Arrived, ScriptServer, listening

__all__ = ["Http2Server", "http2_server"]

_HOP_BY_HOP = (b"connection", b"keep-alive", b"transfer-encoding", b"upgrade")
_EVENTS = [(b":status", b"200"), (b"content-type", b"text/event-stream")]


class Http2Server(ScriptServer):
    """A scripted server whose connections speak HTTP/2."""

    @property
    def origin(self) -> str:
        return f"https://127.0.0.1:{self.secure_port}"

    def _converse(self, sock: socket.socket, number: int) -> None:
        # What a client sends after the end was announced is no longer understood, but read: else it is a matter of
        # time whether it sees a reset.
        with contextlib.suppress(h2.exceptions.ProtocolError):
            _Conversation(self, sock, number).run()
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass

    @property
    def probed_port(self) -> int:
        return self.secure_port

    def has_arrived(self, arrived: Arrived) -> int:
        """Note a request; returns which of the step's requests it is."""
        with self._changed:
            self.arrived.append(arrived)
            self._changed.notify_all()
            return len(self.arrived)

    def is_whole(self, arrived: Arrived) -> None:
        """Note that a request's body has come to its end."""
        with self._changed:
            arrived.whole = True
            self._changed.notify_all()


class _Stream:
    """One request, and the part of its answer that has not been sent."""

    def __init__(self, arrived: Arrived, do: str) -> None:
        self.arrived = arrived
        self.do = do
        self.waiting = bytearray()
        self.ends = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self.is_gated = False


class _Conversation:
    """One connection, from the preface to the end."""

    def __init__(self, server: Http2Server, sock: socket.socket, number: int) -> None:
        self._server = server
        self._sock = sock
        self._number = number
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._streams: dict[int, _Stream] = {}
        self._open = True

    def run(self) -> None:
        """Answer until either side has had enough."""
        self._h2.initiate_connection()
        self._flush()
        while self._open:
            if any(stream.is_gated for stream in self._streams.values()) and not self._readable(0.005):
                self._through_the_gate()
                continue
            data = self._sock.recv(1 << 16)
            if not data:
                return
            for event in self._h2.receive_data(data):
                self._on(event)
            self._through_the_gate()
            self._pump()
            self._flush()

    def _readable(self, seconds: float) -> bool:
        pending = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return bool(pending or select.select([self._sock], [], [], seconds)[0])

    def _on(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            pseudo = dict(event.headers[:4])
            lines = [b"%s: %s" % pair for pair in event.headers if not pair[0].startswith(b":")]
            head = b"\r\n".join([b"%s %s HTTP/2" % (pseudo[b":method"], pseudo[b":path"]), *lines])
            arrived = Arrived(self._number, head)
            turn = self._server.has_arrived(arrived)
            wanted = arrived.query.get("do", "ok").split(",")
            self._streams[event.stream_id] = _Stream(arrived, wanted[min(turn, len(wanted)) - 1])
        elif isinstance(event, h2.events.DataReceived):
            stream = self._streams[event.stream_id]
            stream.arrived.body += event.data
            if stream.do != "deaf":
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream = self._streams[event.stream_id]
            self._server.is_whole(stream.arrived)
            self._answer(event.stream_id, stream)
        elif isinstance(event, h2.events.StreamReset):
            self._streams.pop(event.stream_id, None)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._open = False

    def _answer(self, number: int, stream: _Stream) -> None:
        if stream.do in ANSWERS:
            self._send_answer(number, stream, ANSWERS[stream.do])
        elif stream.do.startswith("redirect-"):
            location = stream.arrived.query.get("to", stream.arrived.target).encode()
            status = stream.do.removeprefix("redirect-").encode()
            self._begin(number, stream, [(b":status", status), (b"location", location), (b"set-cookie", b"hop=1")])
            stream.waiting += b"moved"
            stream.ends = True
        elif stream.do in ("gated", "stalled", "reset-later", "together"):
            stream.is_gated = stream.do != "stalled"
            if stream.do != "together":
                self._begin(number, stream, _EVENTS)
                stream.waiting += b"hello"
        else:
            self._act(number, stream)

    def _act(self, number: int, stream: _Stream) -> None:
        if stream.do in ("silent", "deaf"):
            return
        if stream.do == "reset":
            self._h2.reset_stream(number, h2.errors.ErrorCodes.INTERNAL_ERROR)
        elif stream.do == "go-away":
            self._h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=0)
            self._flush()
            self._open = False
        elif stream.do == "go-away-later":
            self._send_answer(number, stream, ANSWERS["ok"])
            self._pump()
            self._h2.close_connection(last_stream_id=number)
        elif stream.do == "trailers":
            self._begin(number, stream, _EVENTS)
            stream.waiting += b"body"
            stream.trailers = [(b"x-checksum", b"7")]
            stream.ends = True
        elif stream.do == "hints":
            self._h2.send_headers(number, [(b":status", b"103"), (b"link", b"</a>")])
            self._send_answer(number, stream, ANSWERS["ok"])
        elif stream.do == "garbage":
            self._flush()
            self._sock.sendall(b"\x00" * 90)
        else:
            assert stream.do in ("nothing", "short-body", "closed-quietly"), stream.do
            if stream.do == "closed-quietly":
                self._send_answer(number, stream, ANSWERS["ok"])
                self._pump()
                self._flush()
            self._open = False

    def _send_answer(self, number: int, stream: _Stream, answer: bytes) -> None:
        """Send an answer of HTTP/1.1 as frames."""
        *informational, head, body = _heads(answer)
        for each in informational:
            self._h2.send_headers(number, each)
        self._begin(number, stream, head)
        if not stream.arrived.head.startswith(b"HEAD "):
            stream.waiting += body
        stream.ends = True

    def _begin(self, number: int, stream: _Stream, headers: list[tuple[bytes, bytes]]) -> None:
        self._h2.send_headers(number, headers)

    def _through_the_gate(self) -> None:
        """Go on with what waited for the step."""
        for number, stream in list(self._streams.items()):
            if not stream.is_gated:
                continue
            is_together = stream.do == "together"
            if not (len(self._server.arrived) >= 8 if is_together else self._server.gate.is_set()):
                continue
            stream.is_gated = False
            if stream.do == "reset-later":
                self._h2.reset_stream(number, h2.errors.ErrorCodes.INTERNAL_ERROR)
                del self._streams[number]
            elif is_together:
                self._send_answer(number, stream, ANSWERS["ok"])
            else:
                stream.waiting += b"there"
                stream.ends = True
        self._pump()
        self._flush()

    def _pump(self) -> None:
        """Send as much as the other side takes."""
        for number, stream in list(self._streams.items()):
            while stream.waiting:
                room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
                if room <= 0:
                    break
                self._h2.send_data(number, bytes(stream.waiting[:room]))
                del stream.waiting[:room]
            if stream.ends and not stream.waiting:
                if stream.trailers:
                    self._h2.send_headers(number, stream.trailers, end_stream=True)
                else:
                    self._h2.end_stream(number)
                del self._streams[number]

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._sock.sendall(data)


def _heads(answer: bytes) -> Iterator[list[tuple[bytes, bytes]] | bytes]:
    """The heads of an answer of HTTP/1.1 as HTTP/2 has them, and its body last."""
    while True:
        head, _, answer = answer.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        pairs = [line.partition(b":") for line in lines]
        headers = [(name.lower(), value.strip()) for name, _, value in pairs]
        yield [(b":status", status.split(b" ")[1]), *(pair for pair in headers if pair[0] not in _HOP_BY_HOP)]
        if not status.split(b" ")[1].startswith(b"1"):
            break
    yield answer


@contextlib.contextmanager
def http2_server(serving: ssl.SSLContext) -> Iterator[Http2Server]:
    """Serve HTTP/2 until the block ends; all clients are closed by then."""
    serving.set_alpn_protocols(["h2"])
    server = Http2Server()
    with listening(server, None) as server.port, listening(server, serving) as server.secure_port:
        yield server
