"""A real web server on a free loopback port that answers as it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Reply:
    """What is sent for one request.

    Args:
        body: sent whole, or as far as `cut` says.
        status: of HTTP.
        headers: beside Content-Length, which is sent unless one of these replaces it.
        cut: bytes of the body after which the connection is closed.
        etag: answers 304 to a request that has it.
        delay: seconds before anything is sent.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    etag: str = ""
    delay: float = 0.0


@dataclass(frozen=True)
class Asked:
    """One request that came in."""

    path: str
    headers: Mapping[str, str]


class Publisher:
    """Replies by path, the last one again and again, and what was asked for."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.replies: dict[str, list[Reply]] = {}
        self.asked: list[Asked] = []

    def put(self, path: str, *replies: Reply) -> str:
        """Answer a path (with its query) with these, one after another; its URL."""
        self.replies[path] = list(replies)
        return f"{self.address}{path}"

    def next_reply(self, path: str) -> Reply:
        """The reply that is due."""
        replies = self.replies.get(path, [Reply(b"not here", 404)])
        return replies.pop(0) if len(replies) > 1 else replies[0]


@contextmanager
def publishing() -> Iterator[Publisher]:
    """A server for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            publisher.asked.append(Asked(self.path, dict(self.headers)))
            _send(self, publisher.next_reply(self.path))

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    publisher = Publisher(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield publisher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    time.sleep(reply.delay)
    is_known = reply.etag and handler.headers.get("If-None-Match") == reply.etag
    status, body = (304, b"") if is_known else (reply.status, reply.body)
    handler.send_response(status)
    headers = {"Content-Length": str(len(body)), **reply.headers}
    headers |= {"ETag": reply.etag} if reply.etag else {}
    for name, value in headers.items():
        if value:
            handler.send_header(name, value)
    handler.end_headers()
    handler.close_connection = reply.cut is not None or not headers["Content-Length"]
    handler.wfile.write(body[: reply.cut])
