"""A proxy before an object store that does what a file tells it, request by request.

pass          hand on
slow SECONDS  hand on after a while
503           answer for the store that it is overloaded

python -m mlops_assets_tests.cluster.proxy STORE:PORT ADDRESS PORT MODE_FILE
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

_BODY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_REFUSAL = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: " + str(len(_BODY)).encode() + b"\r\n\r\n"
)
_CHUNK = 1 << 16


async def serve(store: str, address: str, port: int, mode: Path) -> None:
    """Hand connections on to the store for as long as this process lives."""
    host, _, store_port = store.partition(":")

    async def connected(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        there, to_store = await asyncio.open_connection(host, int(store_port))
        back = asyncio.create_task(_copy(there, answer))
        with contextlib.suppress(ConnectionError):
            await _requests(client, to_store, answer, mode)
        back.cancel()
        for writer in (to_store, answer):
            writer.close()

    server = await asyncio.start_server(connected, address, port)
    async with server:
        await server.serve_forever()


async def _requests(
    client: asyncio.StreamReader,
    to_store: asyncio.StreamWriter,
    answer: asyncio.StreamWriter,
    mode: Path,
) -> None:
    while chunk := await client.read(_CHUNK):
        what, _, seconds = mode.read_text().partition(" ")
        if what == "503":
            answer.write(_REFUSAL if chunk.startswith(b"HEAD") else _REFUSAL + _BODY)
            await answer.drain()
            return
        if what == "slow":
            await asyncio.sleep(float(seconds))
        to_store.write(chunk)
        await to_store.drain()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await source.read(_CHUNK):
            target.write(chunk)
            await target.drain()
        target.close()


if __name__ == "__main__":
    _store, _address, _port, _mode = sys.argv[1:]
    asyncio.run(serve(_store, _address, int(_port), Path(_mode)))
