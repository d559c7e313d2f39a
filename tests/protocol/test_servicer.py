"""ADS over real gRPC: the begin and end of streams, limits, logs, and the release of resources."""

import asyncio
import contextlib
import gc
import itertools
import socket
import weakref

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.status.v3 import csds_pb2
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tests.protocol.client import CDS, EDS, LDS, make_cache, publish, service
from xds_server.admin.probe import AdsProbe
from xds_server.ads.limits import Limits
from xds_server.ads.servicer import SERVICE, STREAM_METHOD, AdsServicer
from xds_server.ads.stream import Pace
from xds_server.ads.subscription import MAX_NAME_LENGTH, MAX_NAMES
from xds_server.app import DEBUG_THREADS, MAX_REQUEST_BYTES, first_name, make_debug_server, make_server
from xds_server.csds.servicer import SERVICE as STATUS
from xds_server.csds.servicer import StatusServicer
from xds_server.resources.types import Key
from xds_server.rpc.events import EventCall, EventTransport
from xds_server.rpc.threads import ThreadTransport

WEB = "web.shop:80"


@pytest.fixture
def cache():
    cache = make_cache()
    publish(cache, service("web", "10.0.0.1"))
    return cache


@pytest.fixture(params=["events", "threads"])
def transport(request):
    """Each transport: both have to behave alike."""
    return EventTransport() if request.param == "events" else ThreadTransport(2_100)


@pytest.fixture
def limits():
    return Limits()


@pytest.fixture
def pace():
    return Pace()


@pytest.fixture
async def servicer(cache, transport, limits, pace):
    servicer = AdsServicer(cache, transport, limits=limits, pace=pace, probe_node="probe")
    supervising = asyncio.create_task(servicer.close_stuck_streams())
    yield servicer
    supervising.cancel()


@pytest.fixture
async def server(servicer, transport, limits):
    server = make_server(transport, max_connection_age=1800, max_streams=limits.streams)
    server.add_generic_rpc_handlers((servicer.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    await asyncio.to_thread(server.stop(0).wait)


@pytest.fixture
async def debug_channel(cache, servicer):
    """A channel to the debug server."""
    server = make_debug_server(StatusServicer(servicer, cache))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await asyncio.to_thread(server.stop(0).wait)


@pytest.fixture
async def channel(server):
    async with grpc.aio.insecure_channel(server) as channel:
        yield channel


def open_stream(channel, method="StreamAggregatedResources"):
    return channel.stream_stream(
        f"/{SERVICE}/{method}",
        request_serializer=discovery_pb2.DiscoveryRequest.SerializeToString,
        response_deserializer=discovery_pb2.DiscoveryResponse.FromString,
    )()


def request(kind, *names):
    return discovery_pb2.DiscoveryRequest(type_url=kind.value, resource_names=names)


async def until(condition, what):
    try:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"after 30 s still not {what}")


async def test_a_subscription_gets_a_response_and_updates(cache, channel):
    stream = open_stream(channel)
    await stream.write(request(EDS, WEB))
    first = await stream.read()
    assert (first.type_url, len(first.resources)) == (EDS.value, 1)
    publish(cache, service("web", "10.0.0.1", "10.0.0.2"))
    second = await stream.read()
    assert b"10.0.0.2" in second.resources[0].value
    assert second.version_info != first.version_info
    stream.cancel()


async def test_a_burst_of_changes_is_gathered_and_its_last_state_arrives(cache, channel):
    stream = open_stream(channel)
    await stream.write(request(EDS, WEB))
    await stream.read()
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def follow():
        received = 0
        while True:
            response = await stream.read()
            received += 1
            answer = request(EDS, WEB)
            answer.response_nonce, answer.version_info = response.nonce, response.version_info
            await stream.write(answer)
            if b"10.0.1.199" in response.resources[0].value:
                return received

    following = asyncio.create_task(follow())
    for last in range(1, 200):
        publish(cache, service("web", f"10.0.1.{last}"))
        await asyncio.sleep(0.002)
    received = await following
    assert received <= (loop.time() - began) / Pace().gather + 1
    stream.cancel()


async def test_a_stream_that_the_client_ends_has_status_ok(servicer, channel):
    stream = open_stream(channel)
    await stream.write(request(EDS, WEB))
    await stream.read()
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    await until(lambda: not servicer.streams, "forgotten")


async def test_an_invalid_request_ends_only_its_stream_with_the_reason(channel):
    good, bad = open_stream(channel), open_stream(channel)
    await good.write(request(EDS, WEB))
    await good.read()
    await bad.write(discovery_pb2.DiscoveryRequest())
    with contextlib.suppress(grpc.aio.AioRpcError):
        await bad.read()
    assert await bad.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "type_url" in await bad.details()
    await good.write(request(CDS, WEB))
    assert (await good.read()).type_url == CDS.value
    good.cancel()


async def test_undecodable_bytes_end_their_stream_with_the_reason(channel):
    stream = channel.stream_stream(f"/{SERVICE}/StreamAggregatedResources")()
    await stream.write(b"\xff\xff")
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await stream.details() == "this is not a DiscoveryRequest"


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (request(EDS, *(str(number) for number in range(MAX_NAMES + 1))), grpc.StatusCode.INVALID_ARGUMENT),
        (request(EDS, "x" * (MAX_NAME_LENGTH + 1)), grpc.StatusCode.INVALID_ARGUMENT),
        (request(EDS, "x" * MAX_REQUEST_BYTES), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["names", "length of a name", "bytes"],
)
async def test_a_request_over_a_limit_ends_only_its_stream(cache, channel, broken, code):
    good, bad = open_stream(channel), open_stream(channel)
    await good.write(request(EDS, WEB))
    await good.read()
    await bad.write(broken)
    assert await bad.code() is code
    assert [key for key, *_ in cache.resources()] == [Key(EDS, WEB)]
    await good.write(request(CDS, WEB))
    assert (await good.read()).type_url == CDS.value
    good.cancel()


async def test_a_client_that_pings_as_often_as_grpc_allows_is_not_disconnected(cache, server):
    options = [
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(server, options=options) as channel:
        stream = open_stream(channel)
        await stream.write(request(EDS, WEB))
        await stream.read()
        # By default, C-core's servers close a connection at the fourth ping within five minutes.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(45):
                await stream.code()
        publish(cache, service("web", "10.0.0.9"))
        assert b"10.0.0.9" in (await stream.read()).resources[0].value
        stream.cancel()


async def test_delta_is_refused_with_a_line_in_the_log(channel):
    with capture_logs() as logs:
        stream = open_stream(channel, "DeltaAggregatedResources")
        assert await stream.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "StreamAggregatedResources" in await stream.details()
        await until(lambda: any("delta" in e["event"] for e in logs), "logged")
    assert [e["log_level"] for e in logs if "delta" in e["event"]] == ["warning"]


async def test_when_the_server_stops_every_stream_ends_with_unavailable(servicer, channel):
    streams = [open_stream(channel) for _ in range(20)]
    for stream in streams:
        await stream.write(request(LDS, WEB))
        await stream.read()
    servicer.close()
    for stream in streams:
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
    await until(lambda: not servicer.streams, "forgotten")


async def test_a_rejection_is_logged_once_with_node_type_and_message(servicer, channel):
    stream = open_stream(channel)
    first = request(CDS, WEB)
    first.node.id = "pod-7.shop"
    await stream.write(first)
    response = await stream.read()
    refusal = request(CDS, WEB)
    refusal.response_nonce = response.nonce
    refusal.error_detail.code = 3
    refusal.error_detail.message = "no such policy"
    with capture_logs() as logs:
        await stream.write(refusal)
        await until(lambda: any(e["log_level"] == "warning" for e in logs), "logged")
        # The answer to a later request shows that the rejection is done with.
        await stream.write(request(EDS, WEB))
        await stream.read()
    assert next(h.rejection for s in servicer.streams for h in s.session.statuses()) is not None
    [line] = [e for e in logs if e["log_level"] == "warning"]
    assert (line["node"], line["type"], line["reason"]) == ("pod-7.shop", "CDS", "no such policy")
    stream.cancel()


async def test_the_status_of_every_client_is_only_served_to_operators(channel, debug_channel):
    stream = open_stream(channel)
    first = request(EDS, WEB, "nowhere.shop:80")
    first.node.id = "pod-7.shop"
    await stream.write(first)
    response = await stream.read()
    fetch = debug_channel.unary_unary(
        f"/{STATUS}/FetchClientStatus",
        request_serializer=csds_pb2.ClientStatusRequest.SerializeToString,
        response_deserializer=csds_pb2.ClientStatusResponse.FromString,
    )
    [client] = (await fetch(csds_pb2.ClientStatusRequest())).config
    assert client.node.id == "pod-7.shop"
    found = {config.name: config for config in client.generic_xds_configs}
    assert found[WEB].config_status == csds_pb2.STALE
    assert found[WEB].xds_config.value == response.resources[0].value
    assert found["nowhere.shop:80"].config_status == csds_pb2.NOT_SENT
    [client] = (await fetch(csds_pb2.ClientStatusRequest(exclude_resource_contents=True))).config
    assert not any(config.HasField("xds_config") for config in client.generic_xds_configs)
    with pytest.raises(grpc.aio.AioRpcError, match="node_matchers"):
        await fetch(csds_pb2.ClientStatusRequest(node_matchers=[{}]))
    stream.cancel()


@pytest.mark.parametrize("pace", [Pace(write_timeout=0.5)])
async def test_the_stream_of_a_client_that_never_reads_is_closed(cache, servicer, channel):
    stuck = open_stream(channel)
    await stuck.write(request(EDS, WEB))
    await until(lambda: list(cache.resources()), "subscribed")
    pods = [f"10.{a}.{b}.{c}" for a in range(5) for b in range(10) for c in range(1, 100)]
    contents = itertools.cycle([service("web", *pods), service("web", *pods[1:])])

    def closed():
        publish(cache, next(contents))
        return list(cache.resources()) == []

    await until(closed, "closed")
    await until(lambda: not servicer.streams, "forgotten")
    # It reads again: first the responses in flight, then the status that asks it to reconnect.
    async with asyncio.timeout(10):
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            while await stuck.read() is not grpc.aio.EOF:
                pass
    assert await stuck.code() is grpc.StatusCode.CANCELLED


async def test_clients_that_connect_at_once_all_get_responses(servicer, server):
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(server, options=options) for _ in range(4)]
    streams = [open_stream(channel) for channel in channels for _ in range(500)]

    async def ask(stream):
        await stream.write(request(EDS, WEB))
        return len((await stream.read()).resources)

    assert set(await asyncio.gather(*map(ask, streams))) == {1}
    for channel in channels:
        await channel.close()
    await until(lambda: not servicer.streams, "forgotten")


@pytest.mark.parametrize("limits", [Limits(streams=1)])
async def test_no_more_streams_than_the_limit(channel):
    first = open_stream(channel)
    await first.write(request(EDS, WEB))
    await first.read()
    second = open_stream(channel)
    assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await second.details() == "1 streams are open, as many as one server allows"
    first.cancel()
    third = await until_accepted(channel)
    third.cancel()


async def until_accepted(channel):
    """Opens streams until one is accepted."""
    async with asyncio.timeout(30):
        while True:
            stream = open_stream(channel)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stream.write(request(EDS, WEB))
                if await stream.read() is not grpc.aio.EOF:
                    return stream


@pytest.mark.parametrize("limits", [Limits(names_of_peer=50)])
async def test_a_client_with_too_many_names_is_refused_and_others_are_served(channel):
    good, greedy = open_stream(channel), open_stream(channel)
    await good.write(request(EDS, WEB))
    await good.read()
    with capture_logs() as logs:
        await greedy.write(request(EDS, *(str(number) for number in range(50))))
        assert await greedy.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "ipv4:127.0.0.1 would subscribe to 51 names, over the bound of 50 for one address"
    assert await greedy.details() == reason
    assert [e["reason"] for e in logs if e["log_level"] == "warning"] == [reason]
    await good.write(request(CDS, WEB))
    assert (await good.read()).type_url == CDS.value
    good.cancel()


async def test_lines_that_a_client_causes_are_limited(channel):
    with capture_logs() as logs:
        for _ in range(200):
            stream = open_stream(channel)
            await stream.write(discovery_pb2.DiscoveryRequest())
            assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert 0 < len([e for e in logs if e["event"] == "request refused; the stream is closed"]) < 100


async def test_idle_operators_do_not_delay_others(debug_channel):
    def watch():
        return debug_channel.stream_stream(
            f"/{STATUS}/StreamClientStatus",
            request_serializer=csds_pb2.ClientStatusRequest.SerializeToString,
            response_deserializer=csds_pb2.ClientStatusResponse.FromString,
        )()

    idle = [watch() for _ in range(DEBUG_THREADS)]
    for stream in idle:
        await stream.write(csds_pb2.ClientStatusRequest())
        await stream.read()
    one_more = watch()
    assert await one_more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for stream in idle:
        stream.cancel()


async def test_reconnects_leave_no_streams_or_subscriptions(cache, servicer, channel):
    for _ in range(20):
        streams = [open_stream(channel) for _ in range(20)]
        for stream in streams:
            await stream.write(request(EDS, WEB))
        for stream in streams:
            await stream.read()
            stream.cancel()
    await until(lambda: not servicer.streams, "forgotten")
    assert list(cache.resources()) == []


async def test_a_client_that_never_reads_does_not_affect_others(cache, channel):
    stuck, other = open_stream(channel), open_stream(channel)
    await stuck.write(request(EDS, WEB))
    await other.write(request(EDS, WEB))
    await other.read()
    pods = [f"10.{a}.{b}.{c}" for a in range(2) for b in range(10) for c in range(1, 100)]
    for round_ in range(60):
        publish(cache, service("web", *pods, f"10.9.9.{round_}"))
        response = await other.read()
        assert f"10.9.9.{round_}".encode() in response.resources[0].value
    stuck.cancel()
    other.cancel()


async def test_an_error_in_a_stream_ends_only_that_stream(cache, servicer, channel, monkeypatch):
    bad, good = open_stream(channel), open_stream(channel)
    for stream in (bad, good):
        await stream.write(request(EDS, WEB))
        await stream.read()

    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr(min(servicer.streams, key=lambda s: s.number).session, "round", fail)
    await asyncio.sleep(Pace().gather)
    with capture_logs() as logs:
        publish(cache, service("web", "10.0.0.9"))
    codes = set()
    for stream in (bad, good):
        with contextlib.suppress(grpc.aio.AioRpcError):
            response = await stream.read()
            if response is not grpc.aio.EOF:
                assert b"10.0.0.9" in response.resources[0].value
                stream.cancel()
        codes.add(await stream.code())
    assert codes == {grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED}
    assert [e["log_level"] for e in logs if e["log_level"] != "debug"] == ["error"]


async def test_ended_streams_are_freed_without_garbage_collection(servicer, channel):
    gc.collect()
    gc.disable()
    try:
        stream = open_stream(channel)
        await stream.write(request(EDS, WEB))
        await stream.read()
        left = [weakref.ref(found) for found in servicer.streams]
        stream.cancel()
        await until(lambda: [ref() for ref in left] == [None], "freed")
    finally:
        gc.enable()


@pytest.mark.parametrize("pace", [Pace(first_request_timeout=0.3)])
async def test_a_stream_without_a_request_is_closed(servicer, channel):
    silent, talking = open_stream(channel), open_stream(channel)
    await talking.write(request(EDS, WEB))
    await talking.read()
    assert await silent.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await talking.write(request(CDS, WEB))
    assert (await talking.read()).type_url == CDS.value
    talking.cancel()


class TestProbe:
    @pytest.fixture
    async def probe(self, server, cache):
        probe = AdsProbe(server, STREAM_METHOD, node="probe", find_name=lambda: first_name(cache), timeout=5)
        yield probe
        await probe.close()

    async def test_it_succeeds_while_ads_answers(self, probe, servicer):
        with capture_logs() as logs:
            assert await probe.answers()
        await until(lambda: not servicer.streams, "forgotten")
        assert [e for e in logs if e["log_level"] != "debug"] == []

    async def test_it_succeeds_without_any_service(self, probe, cache):
        publish(cache, gone=["web"])
        assert await probe.answers()

    async def test_it_is_not_counted(self, probe):
        def counted():
            names = ("xds_requests", "xds_responses")
            found = [family for family in REGISTRY.collect() if family.name in names]
            return [
                (sample.labels, sample.value)
                for family in found
                for sample in family.samples
                if sample.name.endswith("_total")
            ]

        before = counted()
        assert await probe.answers()
        assert counted() == before

    @pytest.mark.parametrize("cache", [make_cache()], ids=["not synced"])
    async def test_it_succeeds_before_the_first_sync(self, probe, cache):
        assert not cache.synced
        with capture_logs() as logs:
            assert await probe.answers()
        assert [e for e in logs if e["log_level"] != "debug"] == []

    @pytest.mark.parametrize("limits", [Limits(streams=1), Limits(names=0, reserved_names=0)])
    async def test_it_succeeds_when_the_server_is_full(self, probe, channel, limits):
        stream = open_stream(channel)
        if limits.names:
            await stream.write(request(EDS, WEB))
            await stream.read()
        assert await probe.answers()
        stream.cancel()

    @pytest.mark.parametrize("transport", [EventTransport()], ids=["events"])
    @pytest.mark.parametrize("broken", ["__init__", "write", "serve"])
    async def test_it_fails_when_no_call_can_be_served(self, probe, cache, monkeypatch, broken):
        """Simulates a grpc whose internals were renamed."""

        def fail(*_, **__):
            raise AttributeError("_rpc_event")

        monkeypatch.setattr(EventCall, broken, fail)
        with capture_logs() as logs:
            assert not await probe.answers()
        assert "ADS does not answer its probe" in [e["event"] for e in logs]

    async def test_it_fails_when_nothing_answers(self):
        with socket.create_server(("127.0.0.1", 0)) as silent, capture_logs() as logs:
            probe = AdsProbe(
                f"127.0.0.1:{silent.getsockname()[1]}",
                STREAM_METHOD,
                node="probe",
                find_name=lambda: WEB,
                timeout=0.2,
            )
            assert not await probe.answers()
            await probe.close()
        assert [e["event"] for e in logs] == ["ADS does not answer its probe"]
