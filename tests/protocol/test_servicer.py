"""ADS over real gRPC: how streams begin and end, and that they leave nothing behind."""

import asyncio
import contextlib
import gc
import itertools
import socket
import weakref
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.status.v3 import csds_pb2
from structlog.testing import capture_logs

from tests.protocol.client import CDS, EDS, LDS, changes, service
from xds_server.admin import liveness
from xds_server.ads import servicer as servicer_module
from xds_server.ads.servicer import SERVICE, AdsServicer
from xds_server.ads.session import MAX_NAME_LENGTH, MAX_NAMES
from xds_server.ads.status import SERVICE as STATUS
from xds_server.ads.status import StatusServicer
from xds_server.app import MAX_REQUEST_BYTES, server_options
from xds_server.cache import Cache, Key

WEB = "web.shop:80"


@pytest.fixture
async def cache():
    cache = Cache("cluster.local")
    cache.publish(changes(service("web", "10.0.0.1")))
    return cache


@pytest.fixture
async def servicer(cache):
    servicer = AdsServicer(cache)
    watching = asyncio.create_task(servicer.watch_writes())
    yield servicer
    watching.cancel()


@pytest.fixture
async def server(cache, servicer):
    server = grpc.server(ThreadPoolExecutor(4), options=server_options(max_connection_age=1800))
    server.add_generic_rpc_handlers((servicer.handler(), StatusServicer(servicer, cache).handler()))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
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


async def test_a_subscription_is_answered_and_followed(cache, channel):
    stream = open_stream(channel)
    await stream.write(request(EDS, WEB))
    first = await stream.read()
    assert (first.type_url, len(first.resources)) == (EDS.value, 1)
    cache.publish(changes(service("web", "10.0.0.1", "10.0.0.2")))
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
        cache.publish(changes(service("web", f"10.0.1.{last}")))
        await asyncio.sleep(0.002)
    received = await following
    assert received <= (loop.time() - began) / servicer_module.GATHER_SECONDS + 1
    stream.cancel()


async def test_a_stream_that_the_client_ends_ends_well(servicer, channel):
    stream = open_stream(channel)
    await stream.write(request(EDS, WEB))
    await stream.read()
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    await until(lambda: not servicer.streams, "forgotten")


async def test_a_broken_request_ends_its_stream_with_the_reason_and_no_other(channel):
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


async def test_rubbish_ends_its_stream_with_the_reason(channel):
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
async def test_a_request_over_a_limit_ends_its_stream_alone(cache, channel, broken, code):
    good, bad = open_stream(channel), open_stream(channel)
    await good.write(request(EDS, WEB))
    await good.read()
    await bad.write(broken)
    assert await bad.code() is code
    assert list(cache.resources()) == [Key(EDS, WEB, "")]
    await good.write(request(CDS, WEB))
    assert (await good.read()).type_url == CDS.value
    good.cancel()


async def test_a_client_that_pings_as_often_as_grpc_allows_is_not_sent_away(cache, server):
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
        # By default, C-core's servers take the fourth ping within five minutes ill.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(45):
                await stream.code()
        cache.publish(changes(service("web", "10.0.0.9")))
        assert b"10.0.0.9" in (await stream.read()).resources[0].value
        stream.cancel()


async def test_delta_is_refused_with_a_line_in_the_log(channel):
    with capture_logs() as logs:
        stream = open_stream(channel, "DeltaAggregatedResources")
        assert await stream.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "StreamAggregatedResources" in await stream.details()
    assert [e["log_level"] for e in logs if "delta" in e["event"]] == ["warning"]


async def test_when_the_server_stops_every_stream_is_told_to_go(servicer, channel):
    streams = [open_stream(channel) for _ in range(20)]
    for stream in streams:
        await stream.write(request(LDS, WEB))
        await stream.read()
    servicer.close()
    for stream in streams:
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
    await until(lambda: not servicer.streams, "forgotten")


async def test_a_refusal_is_logged_once_with_node_type_and_the_clients_words(servicer, channel):
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
        await until(
            lambda: [h.rejection for s in servicer.streams for h in s.session.held()] != [None], "recorded"
        )
    [line] = [e for e in logs if e["log_level"] == "warning"]
    assert (line["node"], line["type"], line["reason"]) == ("pod-7.shop", "CDS", "no such policy")
    stream.cancel()


async def test_the_status_of_every_client_is_told(channel):
    stream = open_stream(channel)
    first = request(EDS, WEB, "nowhere.shop:80")
    first.node.id = "pod-7.shop"
    await stream.write(first)
    response = await stream.read()
    fetch = channel.unary_unary(
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


async def test_a_client_that_never_reads_is_sent_away(cache, servicer, channel, monkeypatch):
    monkeypatch.setattr(servicer_module, "WRITE_SECONDS", 0.5)
    stuck = open_stream(channel)
    await stuck.write(request(EDS, WEB))
    await until(cache.resources, "subscribed")
    pods = [f"10.{a}.{b}.{c}" for a in range(5) for b in range(10) for c in range(1, 100)]
    contents = itertools.cycle([changes(service("web", *pods)), changes(service("web", *pods[1:]))])

    def given_up():
        cache.publish(next(contents))
        return cache.resources() == {}

    await until(given_up, "given up")
    await until(lambda: not servicer.streams, "forgotten")
    # It reads again: what was on its way, and then that it has to come back.
    async with asyncio.timeout(10):
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            while await stuck.read() is not grpc.aio.EOF:
                pass
    assert await stuck.code() is grpc.StatusCode.CANCELLED


async def test_clients_that_come_all_at_once_are_all_answered(servicer, channel):
    streams = [open_stream(channel) for _ in range(2_000)]

    async def ask(stream):
        await stream.write(request(EDS, WEB))
        return len((await stream.read()).resources)

    assert set(await asyncio.gather(*map(ask, streams))) == {1}
    for stream in streams:
        stream.cancel()
    await until(lambda: not servicer.streams, "forgotten")


async def test_no_more_streams_than_the_limit(servicer, channel, monkeypatch):
    monkeypatch.setattr(servicer_module, "MAX_STREAMS", 1)
    first = open_stream(channel)
    await first.write(request(EDS, WEB))
    await first.read()
    second = open_stream(channel)
    assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    first.cancel()


async def test_comings_and_goings_leave_nothing_behind(cache, servicer, channel):
    for _ in range(20):
        streams = [open_stream(channel) for _ in range(20)]
        for stream in streams:
            await stream.write(request(EDS, WEB))
        for stream in streams:
            await stream.read()
            stream.cancel()
    await until(lambda: not servicer.streams, "forgotten")
    assert cache.resources() == {}


async def test_a_client_that_never_reads_disturbs_nobody(cache, channel):
    stuck, other = open_stream(channel), open_stream(channel)
    await stuck.write(request(EDS, WEB))
    await other.write(request(EDS, WEB))
    await other.read()
    pods = [f"10.{a}.{b}.{c}" for a in range(2) for b in range(10) for c in range(1, 100)]
    for round_ in range(60):
        cache.publish(changes(service("web", *pods, f"10.9.9.{round_}")))
        response = await other.read()
        assert f"10.9.9.{round_}".encode() in response.resources[0].value
    stuck.cancel()
    other.cancel()


async def test_an_error_in_one_stream_ends_it_and_no_other(cache, servicer, channel, monkeypatch):
    bad, good = open_stream(channel), open_stream(channel)
    for stream in (bad, good):
        await stream.write(request(EDS, WEB))
        await stream.read()

    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr(min(servicer.streams, key=lambda s: s.number).session, "next", fail)
    await asyncio.sleep(servicer_module.GATHER_SECONDS)
    with capture_logs() as logs:
        cache.publish(changes(service("web", "10.0.0.9")))
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


async def test_what_has_ended_waits_for_no_garbage_collector(servicer, channel):
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


async def test_a_server_that_does_not_answer_is_not_alive(monkeypatch):
    monkeypatch.setattr(liveness, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, capture_logs() as logs:
        asking = liveness.Liveness(f"127.0.0.1:{silent.getsockname()[1]}")
        assert not await asking.answers()
        await asking.close()
    assert [e["event"] for e in logs] == ["gRPC does not answer"]
