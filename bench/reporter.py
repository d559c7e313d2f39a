"""Clients that report their load as gRPC clients do: ``reporter.py ADDRESS CLIENTS SECONDS``.

Each has a stream of its own, and its reports begin at another moment. Prints ``reporting`` once all streams are open.
"""

import asyncio
import sys

import grpc
from envoy.service.load_stats.v3 import lrs_pb2, lrs_pb2_grpc

CHANNELS = 20
"""Connections that the clients share: a server allows so many streams of each."""
SERVICE = "service-0.default:50051"


async def report(
    stub: lrs_pb2_grpc.LoadReportingServiceStub, number: int, clients: int, seconds: float
) -> None:
    """Reports for ever."""
    call = stub.StreamLoadStats()
    request = lrs_pb2.LoadStatsRequest()
    request.node.id = f"caller-{number % 50}-6ff467cdcc-{number % 7}xp6n.default"
    request.node.metadata["NAMESPACE"] = "default"
    await call.write(request)
    await call.read()
    await asyncio.sleep(seconds * number / clients)
    while True:
        request = lrs_pb2.LoadStatsRequest()
        cluster = request.cluster_stats.add(cluster_name=SERVICE)
        cluster.load_report_interval.seconds = int(seconds)
        for zone in "ab":
            locality = cluster.upstream_locality_stats.add(
                total_successful_requests=100 + number % 10, total_issued_requests=110
            )
            locality.locality.zone = zone
        await call.write(request)
        await asyncio.sleep(seconds)


async def main(address: str, clients: int, seconds: float) -> None:
    """Runs all clients."""
    channels = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(CHANNELS)
    ]
    stubs = [lrs_pb2_grpc.LoadReportingServiceStub(channel) for channel in channels]
    tasks = [
        asyncio.create_task(report(stubs[number % CHANNELS], number, clients, seconds))
        for number in range(clients)
    ]
    await asyncio.sleep(seconds)
    print("reporting", flush=True)  # noqa: T201 - for the program that started this one
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
