"""Which resources a change rebuilds, who is notified, and what is shared."""

import tracemalloc

import pytest
from structlog.testing import capture_logs

from tests.protocol.client import CDS, EDS, LDS, RDS, find, make_cache, publish, service
from xds_server.cache.cache import Cache
from xds_server.model.client import Client
from xds_server.model.service import ServiceName
from xds_server.model.tables import SERVICES
from xds_server.resources.builders import builder
from xds_server.resources.types import Key, Resource, ResourceType

WEB, API = "web.shop:80", "api.shop:80"


class Listener:
    """A subscriber that keeps what it was notified of."""

    def __init__(self, namespace="shop"):
        self.client = Client(namespace)
        self.changes = []
        self.flushes = 0

    def changed(self, key):
        self.changes.append((key.type, key.name))

    def flush(self):
        self.flushes += 1

    def take(self):
        changes, self.changes = set(self.changes), []
        return sorted(changes, key=lambda change: (change[0].label, change[1]))


@pytest.fixture
def cache():
    cache = make_cache()
    publish(cache, service("web", "10.0.0.1"), service("api", "10.0.0.2"))
    return cache


def subscribe(cache, subscriber, *names, kinds=ResourceType):
    for kind in kinds:
        for name in names:
            cache.subscribe(subscriber, Key(kind, name))


def variants(cache):
    return sorted(
        ((key.type.label, key.name, dict(traits)) for key, traits, _, _ in cache.resources()), key=str
    )


def test_a_change_of_endpoints_notifies_of_the_assignment_alone(cache):
    subscriber = Listener()
    subscribe(cache, subscriber, WEB, API)
    publish(cache, service("web", "10.0.0.9"))
    assert (subscriber.take(), subscriber.flushes) == ([(EDS, WEB)], 1)


def test_a_change_of_ports_notifies_of_everything_that_it_makes_or_breaks(cache):
    subscriber = Listener()
    subscribe(cache, subscriber, WEB, "web", "web.shop:81")
    publish(cache, service("web", "10.0.0.1", ports=(81,)))
    assert subscriber.take() == [
        *((kind, name) for kind in (CDS, EDS) for name in (WEB, "web.shop:81")),
        *((LDS, name) for name in ("web", WEB, "web.shop:81")),
        *((RDS, name) for name in (WEB, "web.shop:81")),
    ]
    assert subscriber.flushes == 1


def test_a_change_that_leads_to_the_same_content_notifies_nobody(cache):
    subscriber = Listener()
    subscribe(cache, subscriber, WEB, "web")
    publish(cache, service("web", "10.0.0.1"))
    assert (subscriber.take(), subscriber.flushes) == ([], 0)


def test_what_was_looked_for_in_vain_is_built_when_it_appears(cache):
    subscriber = Listener()
    subscribe(cache, subscriber, "new", "new-listener", kinds=[LDS])
    publish(cache, service("new", "10.0.0.9"))
    assert subscriber.take() == [(LDS, "new"), (LDS, "new-listener")]
    publish(cache, service("new-listener", "10.0.0.8"))
    assert subscriber.take() == [(LDS, "new-listener")]


def test_a_resource_that_depends_on_no_trait_is_built_once_for_all():
    built = []

    def record(key):
        build = builder(key, cluster_domain="cluster.local", load_reports=False)

        def recorded(lookup):
            built.append(key)
            return build and build(lookup)

        return recorded

    cache = Cache(record)
    publish(cache, service("web", "10.0.0.1"))
    subscribers = [Listener(namespace) for namespace in ("shop", "team", "other")]
    for subscriber in subscribers:
        subscribe(cache, subscriber, WEB, "web.shop", kinds=[CDS, LDS])
    assert len(built) == len(set(built)) == 4
    assert variants(cache) == [
        ("CDS", "web.shop", {}),
        ("CDS", WEB, {}),
        ("LDS", "web.shop", {}),
        ("LDS", WEB, {}),
    ]


def test_a_short_name_is_one_resource_for_each_namespace(cache):
    subscribers = [Listener("shop"), Listener("shop"), Listener("team")]
    for subscriber in subscribers:
        subscribe(cache, subscriber, "web", kinds=[LDS])
    assert variants(cache) == [("LDS", "web", {"namespace": "shop"}), ("LDS", "web", {"namespace": "team"})]
    publish(cache, service("web", "10.0.0.1", ports=(81,)))
    assert [s.take() for s in subscribers] == [[(LDS, "web")], [(LDS, "web")], []]
    publish(cache, service("web", "10.0.0.1", namespace="team"))
    assert [s.take() for s in subscribers] == [[], [], [(LDS, "web")]]
    assert b"web.team:80" in find(cache, LDS, "web", "team").body
    assert b"web.shop:81" in find(cache, LDS, "web", "shop").body


def test_what_one_namespace_depends_on_goes_with_its_subscribers(cache):
    staying = Listener("shop")
    subscribe(cache, staying, "web", kinds=[LDS])
    tracemalloc.start()
    try:
        for number in range(2_000):
            passing = Listener(f"namespace-{number}")
            subscribe(cache, passing, "web", kinds=[LDS])
            cache.unsubscribe(passing, Key(LDS, "web"))
        assert tracemalloc.get_traced_memory()[0] < 200_000  # CPython keeps 2,000 tuples for reuse
    finally:
        tracemalloc.stop()


def test_names_that_nobody_subscribes_to_any_more_leave_nothing_behind(cache):
    subscriber = Listener()
    tracemalloc.start()
    try:
        for number in range(2_000):
            subscribe(cache, subscriber, f"service-{number}.shop:80", kinds=[LDS, CDS])
            for kind in (LDS, CDS):
                cache.unsubscribe(subscriber, Key(kind, f"service-{number}.shop:80"))
        assert tracemalloc.get_traced_memory()[0] < 200_000  # CPython keeps 2,000 tuples for reuse
    finally:
        tracemalloc.stop()


def test_a_change_in_one_namespace_rebuilds_nothing_for_others():
    built = []

    def record(key):
        def build(lookup):
            built.append(lookup.client_namespace)
            return lookup.get(SERVICES, ServiceName(lookup.client_namespace, "web")) and Resource(
                "web", b"", ""
            )

        return build

    cache = Cache(record)
    for namespace in ("shop", "team"):
        subscribe(cache, Listener(namespace), "web", kinds=[LDS])
    built.clear()
    publish(cache, service("web", namespace="team"))
    assert built == ["team"]


def test_nothing_is_kept_without_subscribers(cache):
    subscribers = [Listener("shop"), Listener("team")]
    for subscriber in subscribers:
        subscribe(cache, subscriber, WEB, "web", "nowhere")
        cache.subscribe_all(subscriber, CDS)
    for subscriber in subscribers:
        for kind in ResourceType:
            for name in (WEB, "web", "nowhere"):
                cache.unsubscribe(subscriber, Key(kind, name))
        cache.unsubscribe_all(subscriber, CDS)
    assert list(cache.resources()) == []
    publish(cache, service("web", "10.0.0.9", ports=(81,)), gone=["api"])
    assert [s.take() for s in subscribers] == [[], []]


class TestTraits:
    """Which traits a resource depends on may change: here the namespace matters while the service has two ports."""

    @pytest.fixture
    def cache(self):
        def build(lookup):
            found = lookup.get(SERVICES, ServiceName("shop", "web"))
            namespace = lookup.client_namespace if len(found.ports) > 1 else ""
            return Resource(
                "web", f"{namespace} {len(found.ports)}".encode(), f"{namespace} {len(found.ports)}"
            )

        cache = Cache(lambda _: build)
        publish(cache, service("web"))
        return cache

    def test_subscribers_are_grouped_anew_when_they_change(self, cache):
        shop, other, team = subscribers = [Listener("shop"), Listener("shop"), Listener("team")]
        for subscriber in subscribers:
            subscribe(cache, subscriber, "web", kinds=[CDS])
        assert variants(cache) == [("CDS", "web", {})]
        publish(cache, service("web", ports=(80, 81)))
        assert [s.take() for s in subscribers] == [[(CDS, "web")]] * 3
        assert variants(cache) == [
            ("CDS", "web", {"namespace": "shop"}),
            ("CDS", "web", {"namespace": "team"}),
        ]
        assert [cache.get(Key(CDS, "web"), s.client).version for s in subscribers] == [
            "shop 2",
            "shop 2",
            "team 2",
        ]
        cache.unsubscribe(other, Key(CDS, "web"))
        cache.unsubscribe(team, Key(CDS, "web"))
        assert variants(cache) == [("CDS", "web", {"namespace": "shop"})]
        subscribe(cache, team, "web", kinds=[CDS])
        publish(cache, service("web"))
        assert variants(cache) == [("CDS", "web", {})]
        assert [s.take() for s in (shop, other, team)] == [[(CDS, "web")], [], [(CDS, "web")]]
        assert cache.get(Key(CDS, "web"), team.client).version == " 1"


class TestWildcard:
    def test_it_covers_canonical_names_as_they_come_and_go(self, cache):
        subscriber = Listener()
        cache.subscribe_all(subscriber, CDS)
        publish(cache, service("new", "10.0.0.3"), service("web", "10.0.0.1", ports=(80, 81)), gone=["api"])
        assert subscriber.take() == [(CDS, API), (CDS, "new.shop:80"), (CDS, "web.shop:81")]
        assert {key.name for key, *_ in cache.resources()} == {"new.shop:80", WEB, "web.shop:81"}

    def test_it_and_a_name_that_it_covers_are_two_subscriptions(self, cache):
        subscriber = Listener()
        subscribe(cache, subscriber, API, kinds=[CDS])
        cache.subscribe_all(subscriber, CDS)
        cache.unsubscribe(subscriber, Key(CDS, API))
        publish(cache, gone=["api"])
        assert subscriber.take() == [(CDS, API)]
        subscribe(cache, subscriber, WEB, kinds=[CDS])
        cache.unsubscribe_all(subscriber, CDS)
        publish(cache, gone=["web"])
        assert subscriber.take() == [(CDS, WEB)]

    def test_it_is_flushed_by_the_first_publication_even_if_there_is_nothing(self):
        cache, subscriber = make_cache(), Listener()
        cache.subscribe_all(subscriber, CDS)
        cache.publish({})
        cache.publish({})
        assert subscriber.flushes == 1


class TestFailedBuild:
    @pytest.fixture
    def broken(self):
        """Keys whose build fails."""
        return {Key(CDS, WEB)}

    @pytest.fixture
    def cache(self, broken):
        def fail_if_broken(key):
            build = builder(key, cluster_domain="cluster.local", load_reports=False)

            def failing(lookup):
                resource = build and build(lookup)
                if key in broken:
                    raise ZeroDivisionError
                return resource

            return failing

        cache = Cache(fail_if_broken)
        publish(cache, service("web", "10.0.0.1"), service("api", "10.0.0.2"))
        return cache

    def test_it_keeps_the_last_good_form_and_the_rest_of_the_change_goes_out(self, cache, broken):
        broken.clear()
        subscriber = Listener()
        subscribe(cache, subscriber, WEB, API, "web.shop:81", kinds=[CDS])
        good = find(cache, CDS, WEB)
        broken.add(Key(CDS, WEB))
        with capture_logs() as logs:
            publish(cache, service("web", "10.0.0.1", ports=(80, 81)), gone=["api"])
        assert subscriber.take() == [(CDS, API), (CDS, "web.shop:81")]
        assert find(cache, CDS, WEB) == good
        assert [(key.type, key.name) for key, _ in cache.problems()] == [(CDS, WEB)]
        [line] = [entry for entry in logs if entry["log_level"] == "error"]
        assert (line["type"], line["name"]) == ("CDS", WEB)

    def test_it_is_healed_by_the_next_change_of_what_it_depends_on(self, cache, broken):
        subscriber = Listener()
        subscribe(cache, subscriber, WEB, kinds=[CDS])
        assert find(cache, CDS, WEB) is None
        broken.clear()
        publish(cache, service("web", "10.0.0.1", ports=(80, 81)))
        assert subscriber.take() == [(CDS, WEB)]
        assert find(cache, CDS, WEB) is not None
        assert list(cache.problems()) == []

    def test_it_is_no_problem_any_more_when_nobody_subscribes(self, cache, broken):
        subscriber = Listener()
        subscribe(cache, subscriber, WEB, kinds=[CDS])
        assert list(cache.problems())
        cache.unsubscribe(subscriber, Key(CDS, WEB))
        assert list(cache.problems()) == []
