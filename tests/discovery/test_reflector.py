"""Lists and watches side by side: what each may do to the other, how long each may take, and when to try again."""

import asyncio
import itertools

import pytest
import urllib3
from structlog.testing import capture_logs

from tests.discovery.found import Found
from tests.support.api_stub import endpoint_slice, service
from xds_server.kubernetes.source import KubernetesSource
from xds_server.objects.kinds import KINDS, collections

ONE = {"web.shop": ["10.0.0.1:8080"]}
TWO = {"web.shop": ["10.0.0.1:8080", "10.0.0.2:8080"]}
NO_BACKOFF_HELPS = {"first_backoff": 60.0, "last_backoff": 60.0}
"""Whoever backs off is too late for any test."""


def warnings(logs):
    return [entry for entry in logs if entry["log_level"] not in ("info", "debug")]


@pytest.mark.parametrize("delivers", [True, False])
async def test_a_healthy_watch_that_is_cut_goes_on_at_once(api, discover, delivers):
    healthy = 60.0 if delivers else 0.1
    with capture_logs() as logs:
        async with discover(watch_healthy=healthy, **NO_BACKOFF_HELPS) as found:
            await found.until(lambda: api.watchers("EndpointSlice") == 1, "watched")
            if delivers:
                api.apply(endpoint_slice("10.0.0.9"))
                await found.until_known({"web.shop": ["10.0.0.9:8080"]})
            else:
                await found.always(lambda: api.watchers("EndpointSlice") == 1, 0.3)
            api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"), silently=True)
            api.cut_watches("EndpointSlice")
            await found.until_known(TWO)
            assert api.count("endpointslices?limit=") == 1, "the watch went on, no list"
    assert warnings(logs) == []


async def test_watches_are_begun_again_at_a_bounded_rate(api, discover):
    api.watch_fault = "brief"
    async with discover(**NO_BACKOFF_HELPS) as found:
        await found.until(lambda: api.count("/services?watch") >= 6, "watched six times")
        times = [when for when, path in api.requests if "/services?watch" in path]
        assert all(b - a >= 0.05 for a, b in itertools.pairwise(times))


async def test_watches_that_keep_ending_early_wait_longer_and_longer(api, discover):
    api.watch_fault = "brief"
    async with discover(watch_healthy=1.0, watch_backoff=1.0) as found:
        await found.until(lambda: api.count("/services?watch") >= 6, "watched six times")
        times = [when for when, path in api.requests if "/services?watch" in path]
        # The first goes on at once; then come half of 0.25, of 0.5, of 1 and of 1 s, at least.
        assert times[3] - times[2] >= 0.2
        assert times[5] - times[4] >= 0.45


async def test_versions_that_expire_again_and_again_are_not_listed_in_a_loop(api, discover):
    status = {"kind": "Status", "code": 410, "message": "too old resource version"}
    async with discover(first_backoff=1.0, last_backoff=1.0) as found:
        for number in range(1, 4):
            await found.until(
                lambda n=number: (
                    api.count("endpointslices?watch") == n and api.watchers("EndpointSlice") == 1
                ),
                "watched",
            )
            # Longer than a watch takes to count as healthy, so that the list is not new.
            await found.always(lambda: True, 0.15)
            api.send("EndpointSlice", {"type": "ERROR", "object": status})
            api.end_watches()
        await found.until(lambda: api.count("endpointslices?limit=") == 4, "listed for each")
        times = [when for when, path in api.requests if "endpointslices?limit=" in path]
        assert all(b - a >= 0.5 for a, b in itertools.pairwise(times))


async def test_a_watch_that_is_cut_at_once_is_a_failure(api, discover):
    api.watch_fault = "cut"
    with capture_logs() as logs:
        async with discover() as found:
            await found.until(lambda: len(warnings(logs)) == 2, "logged for each collection")
            await found.until_known(ONE)
    assert all(entry["request"] == "watch" for entry in warnings(logs))


async def test_an_outage_is_over_once_a_watch_lasts_even_if_it_delivers_nothing(api, discover):
    with capture_logs() as logs:
        async with discover() as found:
            await found.until_known(ONE)
            await found.until(
                lambda: api.watchers("EndpointSlice") == api.watchers("Service") == 1, "watched"
            )
            api.watch_fault = 500
            api.end_watches()
            await found.until(lambda: len(warnings(logs)) == 2, "logged for each collection")
            api.watch_fault = None
            over = "Kubernetes API answers again"
            await found.until(lambda: [e["event"] for e in logs].count(over) == 2, "logged as over")
            assert api.count("limit=") == 2, "by the watches, not by lists"


async def test_an_idle_connection_that_the_server_closed_is_no_outage(api, discover):
    with capture_logs() as logs:
        async with discover(watch=False, poll_interval=1, **NO_BACKOFF_HELPS) as found:
            await found.until_known(ONE)
            api.fault = "stale"
            api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"))
            await found.until_known(TWO)
            api.fault = None
    assert warnings(logs) == []


async def test_watches_that_end_politely_are_no_outage(api, discover):
    with capture_logs() as logs:
        async with discover(**NO_BACKOFF_HELPS) as found:
            for number in range(3):
                await found.until(lambda: api.watchers("EndpointSlice") == 1, "watched")
                api.apply(endpoint_slice(f"10.0.0.{number}"))
                await found.until_known({"web.shop": [f"10.0.0.{number}:8080"]})
                watches = api.count("endpointslices?watch")
                api.end_watches()
                await found.until(lambda w=watches: api.count("endpointslices?watch") > w, "watched again")
    assert warnings(logs) == []


async def test_an_expired_watch_lists_at_once(api, discover):
    async with discover(watch_settled=0.1, **NO_BACKOFF_HELPS) as found:
        await found.until(lambda: api.watchers("EndpointSlice") == 1, "watched")
        await found.always(lambda: True, 0.2)
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"), silently=True)
        status = {"kind": "Status", "code": 410, "message": "too old resource version"}
        api.send("EndpointSlice", {"type": "ERROR", "object": status})
        await found.until_known(TWO)
        await found.until(lambda: api.count("endpointslices?watch") == 2, "watched from the new list on")
        assert api.count("endpointslices?limit=") == 2


async def test_a_watch_goes_on_while_a_list_is_read_and_neither_undoes_the_other(api, discover):
    others = 20
    for number in range(others):
        api.apply(endpoint_slice("10.1.1.1", name=f"other-{number}", owner="other"))
    api.page_size = 1
    async with discover(poll_interval=1) as found:
        await found.until(lambda: api.watchers("EndpointSlice") == 1, "watched")
        pages = api.count("endpointslices?limit=")
        assert pages == others + 1
        api.page_delay = 0.1
        await found.until(lambda: api.count("endpointslices?limit=") > pages + 1, "listed again")
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"))
        await found.until_known(TWO)
        assert api.count("endpointslices?limit=") < 2 * pages, "known before the list was read"
        publications = len(found.publications)
        # The list was begun before the change, and does not have it.
        await found.until(lambda: api.count("endpointslices?limit=") > 2 * pages, "listed a third time")
        assert found.addresses() == TWO
        assert len(found.publications) == publications, "nothing came and went"


async def test_a_server_whose_versions_went_back_is_watched_from_its_list(api, discover):
    """As after etcd was restored from a backup."""
    async with discover(poll_interval=1, watch_healthy=60) as found:
        await found.until(lambda: api.watchers("EndpointSlice") == 1, "watched")
        api.set_version(5000)
        api.apply(endpoint_slice("10.0.0.9"))
        await found.until_known({"web.shop": ["10.0.0.9:8080"]})
        api.set_version(200)
        lists = api.count("endpointslices?limit=")
        await found.until(lambda: api.count("endpointslices?limit=") >= lists + 2, "listed")
        api.end_watches()
        await found.until(lambda: api.count("endpointslices?watch") >= 2, "watched again")
        await found.until(lambda: api.watchers("EndpointSlice") == 1, "watched")
        last = next(path for _, path in reversed(api.requests) if "endpointslices?watch" in path)
        assert "resourceVersion=200" in last
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"))
        await found.until_known(TWO)


@pytest.mark.parametrize(
    ("fault", "bounds", "expected"),
    [
        ("drip head", {"list_silence": 0.4, "list_request": 0.5}, "not complete after"),
        ("drip body", {"list_silence": 0.4, "list_request": 0.5}, "not complete after"),
        ("flood", {"list_bytes": 1_000_000}, "larger than 1000000 bytes"),
        ("hang", {"list_silence": 0.4}, "timed out"),
    ],
)
async def test_a_list_has_a_deadline_and_a_bound(api, discover, fault, bounds, expected):
    api.list_fault = fault
    with capture_logs() as logs:
        async with discover(**bounds) as found:
            await found.until(lambda: api.count("/services?limit=") >= 3, "given up and tried again")
            api.list_fault = None
            await found.until_known(ONE)
    reasons = {entry["reason"] for entry in warnings(logs)}
    assert all(expected in reason for reason in reasons), reasons


async def test_all_pages_of_a_list_have_a_deadline_together(api, discover):
    for number in range(20):
        api.apply(service(f"s{number}"))
    api.page_size, api.page_delay = 1, 0.1
    with capture_logs() as logs:
        async with discover(list_total=0.5) as found:
            await found.until(lambda: warnings(logs), "given up")
            assert not found.publications
            api.page_size, api.page_delay = None, 0
            await found.until(lambda: len(found.addresses()) == 21, "all known")


@pytest.mark.parametrize("fault", ["drip head", "drip body"])
async def test_a_watch_has_a_deadline_besides_that_of_silence(api, discover, fault):
    api.watch_fault = fault
    async with discover(watch_seconds=1, watch_grace=0.1, watch_head=5, watch_silence=5) as found:
        await found.until(lambda: api.count("/services?watch") >= 2, "given up and begun again")
        api.watch_fault = None
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"))
        await found.until_known(TWO)


async def test_a_watch_event_has_a_bound(api, discover):
    api.watch_fault = "flood"
    with capture_logs() as logs:
        async with discover(event_bytes=1_000_000, watch_healthy=60) as found:
            await found.until(lambda: warnings(logs), "given up")
            await found.until_known(ONE)
    assert "a watch event is larger than 1000000 bytes" in warnings(logs)[0]["reason"]


async def test_a_namespace_that_is_named_twice_is_read_once(api, discover):
    async with discover(namespaces=["shop", "shop"]) as found:
        await found.until_known(ONE)
        await found.until(lambda: api.watchers("EndpointSlice") == api.watchers("Service") == 1, "watched")
        assert api.count("limit=") == 2
        assert api.count("watch=true") == 2


async def test_no_confirmation_is_older_than_the_first_list_of_every_collection(api, discover):
    api.refused = {"Service": 500}
    async with discover() as found:
        await found.until(lambda: api.watchers("EndpointSlice") == 1, "one collection watched")
        api.apply(endpoint_slice("10.0.0.1", "10.0.0.2"))
        assert found.source.age() == float("inf")
        api.refused = {}
        await found.until_known(TWO)
        assert found.source.age() < 60


class BrokenError(Exception):
    """An error that nobody expected."""


async def test_an_error_in_a_watch_ends_the_program(api, discover, monkeypatch):
    whole = urllib3.PoolManager.request

    def broken(self, method, url, **kwargs):
        if "watch=true" in url:
            raise BrokenError
        return whole(self, method, url, **kwargs)

    monkeypatch.setattr("urllib3.PoolManager.request", broken)
    async with asyncio.timeout(10):
        with pytest.raises(BrokenError):
            async with discover() as found:
                await found.task


async def test_what_cannot_be_applied_ends_the_program(api, tmp_path, monkeypatch):
    class BrokenStore(Found):
        def _publish(self, changes):
            raise BrokenError

    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
    found = BrokenStore()
    source = KubernetesSource(found.store, collections(KINDS), poll_interval=60, watch=True)
    async with asyncio.timeout(10):
        with pytest.raises(BrokenError):
            await source.run()
