"""A stub of a Service's cluster IP: each new connection goes to a random ready server, as with kube-proxy.

It replaces the kernel's rules on a node; see "iptables proxy mode" in
https://kubernetes.io/docs/reference/networking/virtual-ips/. Established connections keep their server.
"""

import asyncio
import random
import threading
from types import TracebackType
from typing import Self

from tests.support.running import free_port


class ClusterIp:
    """A port that forwards connections.

    Attributes:
        servers: The addresses of the ready servers; if empty, connections are refused.
    """

    def __init__(self, *servers: str) -> None:
        self.servers = list(servers)
        self.address = f"127.0.0.1:{free_port()}"
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._forward, *_split(self.address), backlog=1024)
        self._listening.set()
        await self._stop.wait()
        server.close()

    async def _forward(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            server, to_server = await asyncio.open_connection(*_split(random.choice(self.servers)))
        except (IndexError, OSError):
            to_client.transport.abort()
            return
        await asyncio.gather(_copy(client, to_server), _copy(server, to_client))


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    except ConnectionError:
        target.transport.abort()
    finally:
        target.close()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
