"""The reflector against an API server that does what API servers do, and what they should not."""

import asyncio
import itertools

import pytest
import urllib3
from structlog.testing import capture_logs

from servicekit.errors import ConfigurationError
from tests.discovery.found import Found
from tests.support.api_stub import endpoint_slice, service
from xds_server.errors import ApiError
from xds_server.kubernetes.api import Api
from xds_server.kubernetes.source import KubernetesSource
from xds_server.objects.kinds import KINDS, collections

ONE = {"web.shop": ["10.0.0.1:8080"]}
TWO = {"web.shop": ["10.0.0.1:8080", "10.0.0.2:8080"]}


async def test_a_list_and_then_every_event(api, discover):
    async with discover() as found:
        await found.until_known(ONE)
        await found.until(lambda: api.watchers("EndpointSlice") == 1, "watched")
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"))
        await found.until_known(TWO)
        api.apply(service("api"))
        await found.until_known({**TWO, "api.shop": []})
        api.delete("Service", "shop", "api")
        await found.until_known(TWO)
        assert api.count("limit=") == 2, "one list of each kind was enough"


async def test_pages(api, discover):
    api.page_size = 7
    for number in range(40):
        api.apply(service(f"s{number}"))
    async with discover() as found:
        await found.until(lambda: len(found.addresses()) == 41, "all 41 services known")


async def test_namespaces(api, discover):
    api.apply(service("other", namespace="elsewhere"))
    api.apply(service("mine", namespace="team"))
    async with discover(namespaces=["shop", "team"]) as found:
        await found.until_known({**ONE, "mine.team": []})
        assert api.count("/api/v1/services?") == 0, "nobody may be asked for all namespaces"


async def test_polling_alone(api, discover):
    async with discover(watch=False, poll_interval=1) as found:
        await found.until_known(ONE)
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"))
        await found.until_known(TWO)
        assert api.count("watch=true") == 0


async def test_a_poll_heals_what_the_watch_missed(api, discover):
    async with discover(poll_interval=1) as found:
        await found.until_known(ONE)
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"), silently=True)
        api.apply(service("api"), silently=True)
        await found.until_known({**TWO, "api.shop": []})
        api.delete("Service", "shop", "api", silently=True)
        await found.until_known(TWO)


async def test_a_poll_without_news_publishes_nothing(api, discover):
    async with discover(poll_interval=1) as found:
        await found.until(lambda: api.count("limit=") >= 6, "listed three times")
        assert len(found.publications) == 1


async def test_what_vanished_between_two_watches_vanishes(api, discover):
    api.apply(service("api"))
    async with discover(poll_interval=2) as found:
        await found.until_known({**ONE, "api.shop": []})
        api.watch_fault = "expired"
        api.end_watches()
        api.delete("Service", "shop", "api", silently=True)
        await found.until_known(ONE)


@pytest.mark.parametrize("fault", [500, 503, 429, 401, 403, 410, "hang", "close", "garbage"])
async def test_trouble_never_takes_anything_away_and_ends_by_itself(api, discover, fault):
    async with discover(poll_interval=1) as found:
        await found.until_known(ONE)
        api.fault = fault
        api.end_watches()
        seen = len(api.requests)
        await found.until(lambda: len(api.requests) >= seen + 4, "asked again")
        assert found.addresses() == ONE
        assert len(found.publications) == 1
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"), silently=True)
        api.fault = None
        await found.until_known(TWO)


@pytest.mark.parametrize("fault", ["end", "expired", 410, 500, "close", "garbage"])
async def test_watches_that_fail_at_once_do_not_hammer_the_server(api, discover, fault):
    api.watch_fault = fault
    async with discover(first_backoff=0.6, last_backoff=0.6) as found:
        await found.until_known(ONE)
        await found.until(lambda: api.count("endpointslices") >= 6, "tried three times or more")
        times = [when for when, path in api.requests if "endpointslices" in path]
        # A list and the watch after it come together; then comes a pause of half the backoff at least. A watch on the
        # list's idle connection is tried once more at once if that connection is closed.
        times = times[1:] if fault == "close" else times
        assert all(b - a >= 0.3 for a, b in zip(times, times[2:], strict=False))


async def test_a_server_that_is_gone_and_comes_back(api, discover):
    async with discover() as found:
        await found.until_known(ONE)
        api.stop()
        await asyncio.sleep(0)
        await found.always(lambda: found.addresses() == ONE, 1)
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"))
        api.start()
        await found.until_known(TWO)
        assert len(found.publications) == 2


async def test_a_server_that_is_not_there_yet(api, discover):
    api.stop()
    async with discover() as found:
        await found.always(lambda: not found.publications, 0.5)
        assert found.source.age() == float("inf")
        api.start()
        await found.until_known(ONE)
        assert found.source.age() < 5


async def test_a_watch_that_is_not_answered_is_given_up(api, discover):
    async with discover() as found:
        await found.until_known(ONE)
        api.watch_fault = "hang"
        api.end_watches()
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"), silently=True)
        await found.until(lambda: api.count("watch=true") >= 6, "begun again and again")
        api.watch_fault = None
        await found.until_known(TWO)


async def test_a_watch_may_be_silent_for_longer_than_an_answer(api, discover):
    async with discover() as found:
        await found.until(lambda: api.watchers("EndpointSlice") == 1, "watched")
        await found.always(lambda: api.count("endpointslices") == 2, 1.5)
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"))
        await found.until_known(TWO)


async def test_a_watch_that_falls_silent_for_good_is_given_up(api, discover):
    async with discover(poll_interval=1, watch_silence=0.5) as found:
        await found.until(lambda: api.watchers("EndpointSlice") == 1, "watched")
        api.watch_fault = "silence"
        api.end_watches()
        await found.until(lambda: api.count("watch=true") >= 3, "begun again")
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"), silently=True)
        await found.until_known(TWO)


async def test_retry_after_is_heeded(api, discover):
    api.fault, api.retry_after = 429, 1
    async with discover() as found:
        await found.until(lambda: api.count("/services") >= 3, "asked three times")
        times = [when for when, path in api.requests if "/services" in path]
        assert all(b - a >= 0.9 for a, b in itertools.pairwise(times))


async def test_a_malformed_object_harms_only_itself(api, discover):
    api.apply({**service("bad"), "spec": {"ports": "none"}})
    with capture_logs() as logs:
        async with discover() as found:
            await found.until_known(ONE)
    [line] = [
        entry for entry in logs if entry["event"] == "object is malformed; keeping its last valid version"
    ]
    assert line["object"] == "shop/bad"
    assert "ports" in line["reason"]


@pytest.mark.parametrize("relist", [True, False])
async def test_an_object_that_becomes_malformed_stays_as_it_was(api, discover, relist):
    async with discover(poll_interval=1 if relist else 60) as found:
        await found.until_known(ONE)
        await found.until(lambda: api.watchers("EndpointSlice") == 1, "watched")
        api.apply({**endpoint_slice(), "endpoints": 7}, silently=relist)
        api.apply(service("next"))
        if relist:
            lists = api.count("endpointslices?limit=")
            await found.until(lambda: api.count("endpointslices?limit=") >= lists + 2, "listed again")
        await found.until_known({**ONE, "next.shop": []})


@pytest.mark.parametrize(
    "event",
    [
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "105"}}},
        {"type": "SURPRISE", "object": {"metadata": {"name": "x"}}},
        {"type": "DELETED", "object": {"metadata": {"name": "unknown", "namespace": "shop"}}},
        b"",
    ],
)
async def test_events_that_change_nothing(api, discover, event):
    async with discover() as found:
        await found.until_known(ONE)
        await found.until(lambda: api.watchers("EndpointSlice") == 1, "watched")
        api.send("EndpointSlice", event)
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"))
        await found.until_known(TWO)
        assert len(found.publications) == 2


@pytest.mark.parametrize(
    "event", [b"{", b"[]", {"type": "ADDED"}, {"type": "ERROR", "object": {"code": 500}}]
)
async def test_a_watch_that_talks_rubbish_is_begun_again(api, discover, event):
    async with discover() as found:
        await found.until_known(ONE)
        await found.until(lambda: api.watchers("EndpointSlice") == 1, "watched")
        api.send("EndpointSlice", event)
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"))
        await found.until_known(TWO)


async def test_an_outage_is_logged_once_with_a_hint_and_when_it_is_over(api, discover):
    api.fault = 403
    with capture_logs() as logs:
        async with discover() as found:
            await found.until(lambda: len(api.requests) > 8, "asked again and again")
            api.fault = None
            await found.until_known(ONE)
    first = [e for e in logs if "request failed" in e["event"]]
    assert len(first) == 2, "one line for each of the two collections"
    assert all(
        "403 the stub says 403" in e["reason"] and "grant get, list and watch" in e["hint"] for e in first
    )
    assert len([e for e in logs if e["event"] == "Kubernetes API answers again"]) == 2


async def test_an_outage_before_the_first_list_does_not_claim_to_serve_anything(api, discover):
    api.list_fault = 500
    with capture_logs() as logs:
        async with discover(remind=0.1) as found:
            await found.until(lambda: any("still fail" in e["event"] for e in logs), "logged twice")
            api.list_fault = None
            await found.until_known(ONE)
            before = [e["event"] for e in logs if e["log_level"] == "warning"]
            assert all("nothing is served until everything has been listed" in event for event in before)
            api.fault = 500
            api.end_watches()
            await found.until(lambda: "serving the last known state" in logs[-1]["event"], "logged")
        api.fault = None


async def test_a_token_that_cannot_be_sent_is_an_outage_that_does_not_reveal_it(tmp_path, monkeypatch, api):
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig", token="hush\nhush")))
    found = Found()
    source = KubernetesSource(found.store, found.collections, poll_interval=60, watch=True)
    with capture_logs() as logs:
        task = asyncio.create_task(source.run())
        await found.until(
            lambda: task.done() or len([e for e in logs if "request failed" in e["event"]]) == len(KINDS),
            "logged",
        )
        assert not task.done()
        task.cancel()
    failed = [e for e in logs if "request failed" in e["event"]]
    assert all("replace the token" in e["hint"] for e in failed)
    assert "hush" not in str(logs)


async def test_many_collections_keep_their_connections(api, discover, caplog):
    api.page_delay = 0.5  # All lists are under way together.
    namespaces = ["shop", *(f"team-{number}" for number in range(23))]
    async with discover(namespaces=namespaces, list_silence=5.0, poll_interval=1) as found:
        await found.until_known(ONE)
        await found.until(lambda: api.watchers("EndpointSlice") == len(namespaces), "watched")
        await found.until(lambda: api.count("/services?limit=") >= 2 * len(namespaces), "listed again")
        api.end_watches()
        await found.until(lambda: api.count("/services?watch") >= 2 * len(namespaces), "watched again")
    assert "pool is full" not in caplog.text


async def test_a_list_that_is_called_too_old_is_an_outage_as_any_other(api, discover):
    async with discover() as found:
        await found.until_known(ONE)
        with capture_logs() as logs:
            api.fault = 410
            api.end_watches()
            await found.until(
                lambda: any("serving the last known state" in e["event"] for e in logs),
                "said to be an outage",
            )
        api.fault = None


async def test_an_error_that_nobody_expected_is_not_lost_in_a_thread(api, tmp_path, monkeypatch):
    class BrokenError(Exception):
        pass

    def broken(*_, **__):
        raise BrokenError

    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
    monkeypatch.setattr("urllib3.PoolManager.request", broken)
    source = KubernetesSource(Found().store, collections(KINDS), poll_interval=60, watch=True)
    async with asyncio.timeout(10):
        with pytest.raises(BrokenError):
            await source.run()


def test_the_service_accounts_token_is_read_anew_whatever_the_time_of_day(tmp_path, monkeypatch):
    token, certificate = tmp_path / "token", tmp_path / "ca.crt"
    certificate.write_text("any")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", str(certificate))
    sent = []

    def request(*_, headers, **__):
        sent.append(headers["authorization"])
        raise urllib3.exceptions.ConnectTimeoutError

    monkeypatch.setattr("urllib3.PoolManager.request", request)
    token.write_text("first")
    api = Api()
    for text in ("first", "second"):
        token.write_text(text)
        with pytest.raises(ApiError):
            api.get("/api/v1/services", {})
    assert sent == ["bearer first", "bearer second"]
    token.write_bytes(b"\xff")
    with pytest.raises(ApiError, match="UTF-8"):
        api.get("/api/v1/services", {})
    token.unlink()
    with pytest.raises(ApiError):
        api.get("/api/v1/services", {})


def test_without_any_way_to_a_cluster_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match=r"KUBECONFIG=.*DISCOVERY=files"):
        KubernetesSource(Found().store, collections(KINDS), poll_interval=60, watch=True)


SERVER_7 = """
current-context: c
clusters: [{name: c, cluster: {server: 7}}]
users: [{name: c, user: {token: t}}]
contexts: [{name: c, context: {cluster: c, user: c}}]
"""


@pytest.mark.parametrize("text", ["}{", "hello", "7", "[]", "clusters: 7", SERVER_7])
def test_a_kubeconfig_that_is_none_is_named(tmp_path, monkeypatch, text):
    (tmp_path / "kubeconfig").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(ConfigurationError, match="kubeconfig"):
        KubernetesSource(Found().store, collections(KINDS), poll_interval=60, watch=True)
