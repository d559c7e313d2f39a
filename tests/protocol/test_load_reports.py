"""Load reports over real gRPC."""

import asyncio
import time

import grpc
import pytest
from envoy.service.load_stats.v3 import lrs_pb2, lrs_pb2_grpc

from xds_server.ads.limits import Limits
from xds_server.app import make_server
from xds_server.lrs.loads import Edge, Rate, Totals
from xds_server.lrs.servicer import LoadServicer
from xds_server.lrs.session import BURST
from xds_server.model.service import PortName, ServiceName
from xds_server.model.workload import Workload
from xds_server.rpc.events import EventTransport
from xds_server.rpc.threads import ThreadTransport

WEB = PortName(ServiceName("shop", "web"), 80)
INTERVAL = 1.0
LIMITS = Limits(streams=3)


@pytest.fixture(params=["events", "threads"])
def transport(request):
    return EventTransport() if request.param == "events" else ThreadTransport(10)


@pytest.fixture
def timeout():
    return 30.0


@pytest.fixture
def servicer(transport, timeout):
    exists = {WEB}.__contains__
    return LoadServicer(transport, INTERVAL, exists, limits=LIMITS, first_request_timeout=timeout)


@pytest.fixture
async def channel(servicer, transport):
    server = make_server(transport, max_connection_age=1800, max_streams=10)
    server.add_generic_rpc_handlers((servicer.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await asyncio.to_thread(server.stop(0).wait)


def first(node_id="checkout-0.shop"):
    request = lrs_pb2.LoadStatsRequest()
    request.node.id = node_id
    request.node.metadata["NAMESPACE"] = "shop"
    return request


def report(succeeded, failed=0):
    request = lrs_pb2.LoadStatsRequest()
    cluster = request.cluster_stats.add(cluster_name=str(WEB))
    cluster.load_report_interval.seconds = 1
    locality = cluster.upstream_locality_stats.add(
        total_successful_requests=succeeded, total_error_requests=failed
    )
    locality.locality.zone = "a"
    return request


async def opened(channel, node_id="checkout-0.shop"):
    """A stream on which the first response has arrived, and that response."""
    call = lrs_pb2_grpc.LoadReportingServiceStub(channel).StreamLoadStats()
    await call.write(first(node_id))
    return call, await call.read()


async def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_reports_are_summed_until_their_stream_ends(servicer, channel):
    call, response = await opened(channel)
    assert response.send_all_clusters
    assert response.load_reporting_interval.seconds == INTERVAL
    await call.write(report(10, 2))
    await until(servicer.totals)
    assert servicer.totals() == {WEB: Totals(10, 2)}
    assert servicer.rates() == {Edge(Workload("shop", "checkout"), WEB, "a"): Rate(12.0, 2.0)}
    await call.done_writing()
    await until(lambda: not servicer.rates())
    assert servicer.totals() == {WEB: Totals(10, 2)}
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("timeout", [0.1])
async def test_a_stream_that_says_nothing_is_ended_when_others_come(servicer, channel):
    silent = lrs_pb2_grpc.LoadReportingServiceStub(channel).StreamLoadStats()
    talking, _ = await opened(channel)
    while not silent.done():
        other, _ = await opened(channel)
        other.cancel()
        await until(lambda: servicer.streams <= 2)
    assert await silent.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await talking.write(report(10))
    await until(servicer.totals)
    talking.cancel()


async def test_the_first_request_may_be_a_report(servicer, channel):
    """grpc-js sends what it has gathered when it opens a stream again."""
    request = report(10)
    request.node.CopyFrom(first().node)
    call = lrs_pb2_grpc.LoadReportingServiceStub(channel).StreamLoadStats()
    await call.write(request)
    await call.read()
    await until(servicer.totals)
    assert servicer.totals() == {WEB: Totals(10)}
    call.cancel()


async def test_streams_of_two_clients_do_not_disturb_each_other(servicer, channel):
    one, _ = await opened(channel)
    other, _ = await opened(channel, "rubbish")
    rubbish = report(2**63, 2**63)
    rubbish.cluster_stats.add(cluster_name="no such service")
    await other.write(rubbish)
    await one.write(report(10))
    mine = Edge(Workload("shop", "checkout"), WEB, "a")
    await until(lambda: mine in servicer.rates())
    assert servicer.rates()[mine] == Rate(10.0)
    one.cancel()
    other.cancel()


async def test_endless_reports_end_the_stream(servicer, channel):
    call, _ = await opened(channel)
    for _ in range(BURST):
        await call.write(report(1))  # the first request counts, too: the last of these is one too many
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert servicer.totals()[WEB].succeeded <= BURST


async def test_a_report_that_can_not_be_read_ends_its_stream_alone(servicer, channel):
    good, _ = await opened(channel)
    raw = channel.stream_stream("/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats")()
    await raw.write(first().SerializeToString())
    await raw.read()
    await raw.write(b"\xff\xff")
    await good.write(report(10))
    await until(servicer.totals)
    assert await raw.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert servicer.totals() == {WEB: Totals(10)}
    good.cancel()


async def test_what_is_no_report_ends_the_stream(channel):
    raw = channel.stream_stream("/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats")()
    await raw.write(b"\xff\xff")
    assert await raw.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "LoadStatsRequest" in await raw.details()


async def test_streams_have_a_bound_of_their_own(channel):
    calls = [(await opened(channel))[0] for _ in range(LIMITS.streams)]
    one_more = lrs_pb2_grpc.LoadReportingServiceStub(channel).StreamLoadStats()
    assert await one_more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()


async def test_a_shutdown_ends_streams_and_opens_no_more(servicer, channel):
    call, _ = await opened(channel)
    servicer.close()
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    late = lrs_pb2_grpc.LoadReportingServiceStub(channel).StreamLoadStats()
    assert await late.code() is grpc.StatusCode.UNAVAILABLE
