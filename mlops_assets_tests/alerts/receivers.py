"""Local receivers that really take what is sent: an HTTP server and an SMTP server."""

from __future__ import annotations

import base64
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


@dataclass
class Received:
    """What an HTTP receiver got, and how it answers."""

    url: str = ""
    documents: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    refuses: str = ""
    """A text whose documents are answered with 400."""
    silent: threading.Event | None = None
    """If set, nothing is answered before it is."""


@contextmanager
def http_receiver() -> Iterator[Received]:
    """A server that keeps every document posted to it."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if received.silent is not None:
                received.silent.wait(30)
            document = json.loads(body)
            refused = bool(received.refuses) and received.refuses in json.dumps(document)
            status = 400 if refused else received.status
            if status < 300:
                received.documents.append(document)
                received.paths.append(self.path)
            self.send_response(status)
            for name, value in received.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the console."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}/hooks/T0P-S3CRET"
    with _serving(server):
        yield received


@dataclass
class Post:
    """What an SMTP receiver got, and how it answers."""

    port: int = 0
    mails: list[Message] = field(default_factory=list)
    receivers: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    refuses: str = ""
    """A receiver that is not known here."""
    password: str = ""
    """What a login needs; "" when none is offered."""


@contextmanager
def smtp_receiver() -> Iterator[Post]:
    """A mail server that keeps every mail (RFC 5321, as much of it as a client uses)."""
    post = Post()

    class Handler(_Smtp):
        received = post

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    post.port = server.server_address[1]
    with _serving(server):
        yield post


class _Smtp(socketserver.StreamRequestHandler):
    received: ClassVar[Post]

    def handle(self) -> None:
        self._say("220 local ready")
        while line := self.rfile.readline().decode().rstrip("\r\n"):
            verb = line.split(" ", 1)[0].upper()
            if verb == "QUIT":
                self._say("221 bye")
                return
            self._answer(verb, line)

    def _answer(self, verb: str, line: str) -> None:
        post = self.received
        if verb == "EHLO":
            self._say("250-local\r\n250 AUTH PLAIN" if post.password else "250 local")
        elif verb == "AUTH":
            given = base64.b64decode(line.rsplit(" ", 1)[1]).decode().split("\0")[1:]
            post.logins.append(given[0])
            right = given[1] == post.password
            self._say("235 welcome" if right else f"535 no entry with {given[1]}")
        elif verb == "RCPT":
            address = line.split("<")[1].rstrip(">")
            if post.refuses and post.refuses == address:
                self._say("550 nobody here")
            else:
                post.receivers.append(address)
                self._say("250 fine")
        elif verb == "DATA":
            self._say("354 go on")
            post.mails.append(message_from_bytes(self._content()))
            self._say("250 taken")
        else:
            self._say("250 fine")

    def _content(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        return b"".join(lines)

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
