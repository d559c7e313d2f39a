"""What changes when Kubernetes objects change, and what does not."""

import tracemalloc

import pytest
from structlog.testing import capture_logs

from tests.support.convert import convert
from tests.support.policies import ROUTE, policy
from tests.support.routes import route, rule
from xds_server.mesh import services
from xds_server.mesh.store import Store
from xds_server.model.service import PortName, ServiceName
from xds_server.model.tables import ENDPOINTS, SERVERS, SERVICES, Changes, Entry
from xds_server.objects import meta
from xds_server.objects.kinds import ENDPOINT_SLICE, GRPC_BACKEND_POLICY, GRPC_ROUTE, SERVICE, Collection

ALL_SERVICES, ALL_SLICES = Collection(SERVICE), Collection(ENDPOINT_SLICE)
WEB, API = ServiceName("shop", "web"), ServiceName("shop", "api")


def service(name="web", port=80, **spec):
    return convert(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ports": [{"port": port}], **spec},
        }
    )


def endpoint_slice(*ips, name="web-1", owner="web"):
    labels = {"kubernetes.io/service-name": owner} if owner else {}
    return convert(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ip]} for ip in ips],
            "ports": [{"port": 8080}],
        }
    )


class Watched(Store):
    """A store whose publications are kept."""

    def __init__(self, *more: Collection):
        self.published: list[Changes] = []
        collections = [ALL_SERVICES, ALL_SLICES, *more]
        super().__init__(collections, lambda changes: self.published.append(dict(changes)))

    def last(self):
        """The last publication: names of services (None: gone), and the IPs behind the names of ports."""
        return {
            str(entry.key): [e.addresses[0].ip for e in value]
            if entry.table is ENDPOINTS and value
            else value
            for entry, value in self.published[-1].items()
            if entry.table is ENDPOINTS or value is None
        }

    def tables(self):
        """In which tables the last publication changed something."""
        return {entry.table for entry in self.published[-1]}

    def servers(self):
        """The ports that lead to servers, as the last publication changed them."""
        return {
            str(entry.key): value and list(map(str, value))
            for entry, value in self.published[-1].items()
            if entry.table is SERVERS
        }


@pytest.fixture
def store():
    store = Watched()
    store.replace({ALL_SERVICES: [service()]})
    store.replace({ALL_SLICES: [endpoint_slice("10.0.0.1")]})
    return store


def test_nothing_is_published_before_everything_is_listed():
    store = Watched()
    store.replace({ALL_SERVICES: [service()]})
    store.put(ALL_SLICES, endpoint_slice("10.0.0.1"))
    assert store.published == []
    store.replace({ALL_SLICES: [endpoint_slice("10.0.0.1")]})
    assert store.last() == {"web.shop:80": ["10.0.0.1"]}


def test_an_empty_cluster_is_published_too():
    store = Watched()
    store.replace({ALL_SERVICES: [], ALL_SLICES: []})
    assert store.published == [{}]


def test_a_list_without_news_publishes_nothing(store):
    store.replace({ALL_SERVICES: [service()], ALL_SLICES: [endpoint_slice("10.0.0.1")]})
    store.put(ALL_SERVICES, service())
    assert len(store.published) == 1


def test_a_list_replaces_so_that_what_vanished_vanishes(store):
    store.replace({ALL_SLICES: []})
    assert store.last() == {"web.shop:80": ()}
    store.replace({ALL_SERVICES: []})
    assert store.last() == {"web.shop": None, "web.shop:80": None}


def test_only_what_changed_is_published(store):
    store.put(ALL_SERVICES, service("api"))
    assert store.last() == {"api.shop:80": ()}
    store.put(ALL_SLICES, endpoint_slice("10.0.0.9", name="api-1", owner="api"))
    assert store.last() == {"api.shop:80": ["10.0.0.9"]}


def test_a_field_that_does_not_matter_changes_nothing(store):
    store.put(ALL_SERVICES, service(selector={"app": "other"}, clusterIP="10.96.0.1"))
    assert len(store.published) == 1


def test_slices_are_added_changed_and_removed(store):
    store.put(ALL_SLICES, endpoint_slice("10.0.0.2", name="web-2"))
    assert store.last() == {"web.shop:80": ["10.0.0.1", "10.0.0.2"]}
    store.put(ALL_SLICES, endpoint_slice("10.0.0.3", name="web-2"))
    assert store.last() == {"web.shop:80": ["10.0.0.1", "10.0.0.3"]}
    store.remove(ALL_SLICES, ("shop", "web-1"))
    assert store.last() == {"web.shop:80": ["10.0.0.3"]}
    store.remove(ALL_SLICES, ("shop", "web-1"))
    assert len(store.published) == 4


def test_a_slice_may_come_before_its_service():
    store = Watched()
    store.replace({ALL_SERVICES: [], ALL_SLICES: [endpoint_slice("10.0.0.1")]})
    store.put(ALL_SERVICES, service())
    assert store.last() == {"web.shop:80": ["10.0.0.1"]}


def test_a_slice_may_move_to_another_service(store):
    store.put(ALL_SERVICES, service("api"))
    store.put(ALL_SLICES, endpoint_slice("10.0.0.1", owner="api"))
    assert store.last() == {"web.shop:80": (), "api.shop:80": ["10.0.0.1"]}


def test_a_slice_of_nobody_is_nothing(store):
    store.put(ALL_SLICES, endpoint_slice("10.0.0.7", name="stray", owner=None))
    assert len(store.published) == 1


def test_problems_are_told_until_they_are_mended(store):
    store.put(ALL_SERVICES, service("far", type="ExternalName"))
    assert [(p.kind, p.key) for p in store.problems] == [("Service", ("shop", "far"))]
    store.remove(ALL_SERVICES, ("shop", "far"))
    assert store.problems == []


def test_a_change_of_endpoints_touches_the_endpoints_alone(store):
    store.put(ALL_SLICES, endpoint_slice("10.0.0.2"))
    assert store.tables() == {ENDPOINTS}


def test_a_change_of_ports_touches_the_service_and_the_endpoints_of_those_ports(store):
    store.put(ALL_SERVICES, service(port=81))
    assert store.published[-1].keys() == {
        Entry(SERVICES, WEB),
        Entry(ENDPOINTS, PortName(WEB, 80)),
        Entry(ENDPOINTS, PortName(WEB, 81)),
    }


def test_servers_are_known_where_there_is_a_security_policy():
    policies = Collection(GRPC_BACKEND_POLICY)
    store = Watched(policies)
    store.replace({ALL_SERVICES: [service(), service("api")], policies: []})
    store.replace({ALL_SLICES: [endpoint_slice("10.0.0.1")]})
    assert store.servers() == {}, "without any, nothing is kept"
    secure = convert(policy(tls={"mode": "Simple", "subjectAltNames": ["web.shop"]}))
    store.put(policies, secure)
    assert store.servers() == {"10.0.0.1:8080": ["web.shop:80"]}
    store.put(ALL_SLICES, endpoint_slice("10.0.0.1", "10.0.0.2", name="api-1", owner="api"))
    assert store.servers() == {
        "10.0.0.1:8080": ["api.shop:80", "web.shop:80"],
        "10.0.0.2:8080": ["api.shop:80"],
    }
    store.put(ALL_SLICES, endpoint_slice("10.0.0.3"))
    assert store.servers() == {"10.0.0.1:8080": ["api.shop:80"], "10.0.0.3:8080": ["web.shop:80"]}
    store.put(ALL_SERVICES, service(port=81))
    assert store.servers() == {"10.0.0.3:8080": ["web.shop:81"]}
    store.remove(policies, meta.key(secure))
    assert store.servers() == dict.fromkeys(("10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"))
    store.put(ALL_SLICES, endpoint_slice("10.0.0.4"))
    assert store.servers() == {}


def test_a_service_that_fails_to_assemble_stays_as_it_was_and_harms_no_other(store, monkeypatch):
    assemble = services.assemble

    def fail_for_web(source, slices, **options):
        if source.metadata.name == "web":
            raise ZeroDivisionError
        return assemble(source, slices, **options)

    with monkeypatch.context() as patched:
        patched.setattr("xds_server.mesh.service_assembler.assemble", fail_for_web)
        store.replace(
            {ALL_SERVICES: [service(port=81), service("api")], ALL_SLICES: [endpoint_slice("10.0.0.2")]}
        )
    assert store.published[-1].keys() == {Entry(SERVICES, API), Entry(ENDPOINTS, PortName(API, 80))}
    assert [(p.kind, p.key) for p in store.problems] == [("Service", WEB)]
    store.put(ALL_SLICES, endpoint_slice("10.0.0.3"))
    assert store.last() == {"web.shop:80": None, "web.shop:81": ["10.0.0.3"]}
    assert store.problems == []


def test_objects_that_are_gone_leave_nothing_behind(store):
    def churn(first):
        for number in range(first, first + 2_000):
            owner = f"gone-{number}"
            store.put(ALL_SERVICES, service(owner))
            store.put(ALL_SLICES, endpoint_slice("10.0.0.1", name=owner, owner=owner))
            store.remove(ALL_SERVICES, ("shop", owner))
            store.remove(ALL_SLICES, ("shop", owner))
        store.published.clear()

    # CPython keeps up to 2,000 tuples of each size for reuse: that many are traced before anything is compared.
    churn(0)
    tracemalloc.start()
    try:
        for first in range(2_000, 8_000, 2_000):
            churn(first)
        before = tracemalloc.get_traced_memory()[0]
        churn(8_000)
        assert tracemalloc.get_traced_memory()[0] - before < 50_000, (
            "less than an object for each that is gone"
        )
    finally:
        tracemalloc.stop()


def test_a_change_logs_ten_new_problems_of_a_service_and_how_many_more_there_are(store):
    bad = [f"not-an-ip-{number}" for number in range(25)]
    with capture_logs() as logs:
        store.put(ALL_SLICES, endpoint_slice("10.0.0.1", *bad))
    assert len(store.problems) == 25
    assert [e["event"] for e in logs[:10]] == ["object can't be used as it is"] * 10
    [more] = logs[10:]
    assert (more["owner"], more["more"]) == ("Service/shop/web", 15)
    with capture_logs() as logs:
        store.put(ALL_SLICES, endpoint_slice("10.0.0.2", *bad, "new"))
    assert ["new" in e["reason"] for e in logs] == [True]


def test_the_status_of_a_policy_follows_what_becomes_of_its_route():
    class Told:
        """The last status of each object."""

        def __init__(self):
            self.said = {}

        def problem(self, owner, problem):
            pass

        def status(self, kind, key, item, status):
            self.said[kind.name, key[1]] = status

    routes, policies = Collection(GRPC_ROUTE), Collection(GRPC_BACKEND_POLICY)
    store = Store([ALL_SERVICES, routes, policies], lambda _: None)
    told = Told()
    store.report_to(told)

    def said():
        """The conditions of the policy, and of the route."""
        return tuple(
            [f"{each.type}={each.status}" for each in told.said[kind, name].entries[0].conditions]
            for kind, name in (("GRPCBackendPolicy", "slow"), ("GRPCRoute", "split"))
        )

    def split(*rules):
        return route(*rules, name="split")

    target = {**ROUTE, "sectionName": "named"}
    mirrored = rule(name="named", filters=[{"type": "RequestMirror"}])
    store.replace(
        {
            ALL_SERVICES: [service()],
            routes: [split(rule(name="named"))],
            policies: [convert(policy("slow", target, timeout="60s"))],
        }
    )
    assert said()[0] == ["Accepted=True"]
    store.put(routes, split(mirrored))
    assert said() == (
        ["Accepted=True", "Programmed=False"],
        ["Accepted=False", "ResolvedRefs=True"],
    )
    store.put(routes, split(mirrored, rule()))
    assert said()[0] == ["Accepted=True", "Programmed=False"]
    assert "rule named of GRPCRoute split is dropped: filters[0]" in str(
        told.said["GRPCBackendPolicy", "slow"]
    )
    store.put(routes, split(rule(name="named")))
    assert said()[0] == ["Accepted=True"]
    store.remove(ALL_SERVICES, ("shop", "web"))
    assert said()[0] == ["Accepted=True", "Programmed=False"]
    store.remove(routes, ("shop", "split"))
    assert told.said["GRPCBackendPolicy", "slow"].entries[0].conditions[0].reason == "TargetNotFound"
    assert told.said["GRPCRoute", "split"] is None
