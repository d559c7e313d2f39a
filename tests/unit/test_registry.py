"""What changes when Kubernetes objects change, and what does not."""

import pytest

from xds_server.discovery import objects
from xds_server.discovery.registry import Changes, Registry
from xds_server.model import ServiceName

SERVICES, SLICES = (objects.Service, ""), (objects.EndpointSlice, "")
WEB = ServiceName("shop", "web")


def service(name="web", port=80, **spec):
    return objects.convert(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ports": [{"port": port}], **spec},
        }
    )


def endpoint_slice(*ips, name="web-1", owner="web"):
    labels = {"kubernetes.io/service-name": owner} if owner else {}
    return objects.convert(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ip]} for ip in ips],
            "ports": [{"port": 8080}],
        }
    )


class Watched(Registry):
    """A registry whose publications are kept."""

    def __init__(self):
        self.published: list[Changes] = []
        super().__init__([SERVICES, SLICES], lambda changes: self.published.append(dict(changes)))

    def last(self):
        """Addresses by service in the last publication."""
        return {
            str(name): found and [e.addresses[0].ip for port in found.ports for e in port.endpoints]
            for name, found in self.published[-1].items()
        }


@pytest.fixture
def registry():
    registry = Watched()
    registry.replace({SERVICES: [service()]})
    registry.replace({SLICES: [endpoint_slice("10.0.0.1")]})
    return registry


def test_nothing_is_published_before_everything_is_listed():
    registry = Watched()
    registry.replace({SERVICES: [service()]})
    registry.put(SLICES, endpoint_slice("10.0.0.1"))
    assert (registry.synced, registry.published) == (False, [])
    registry.replace({SLICES: [endpoint_slice("10.0.0.1")]})
    assert (registry.synced, registry.last()) == (True, {"web.shop": ["10.0.0.1"]})


def test_an_empty_cluster_is_published_too():
    registry = Watched()
    registry.replace({SERVICES: [], SLICES: []})
    assert registry.published == [{}]


def test_a_list_without_news_publishes_nothing(registry):
    registry.replace({SERVICES: [service()], SLICES: [endpoint_slice("10.0.0.1")]})
    registry.put(SERVICES, service())
    assert len(registry.published) == 1


def test_a_list_replaces_so_that_what_vanished_vanishes(registry):
    registry.replace({SLICES: []})
    assert registry.last() == {"web.shop": []}
    registry.replace({SERVICES: []})
    assert registry.last() == {"web.shop": None}


def test_only_what_changed_is_published(registry):
    registry.put(SERVICES, service("api"))
    assert registry.last() == {"api.shop": []}
    registry.put(SLICES, endpoint_slice("10.0.0.9", name="api-1", owner="api"))
    assert registry.last() == {"api.shop": ["10.0.0.9"]}


def test_a_field_that_does_not_matter_changes_nothing(registry):
    registry.put(SERVICES, service(selector={"app": "other"}, clusterIP="10.96.0.1"))
    assert len(registry.published) == 1


def test_slices_are_added_changed_and_removed(registry):
    registry.put(SLICES, endpoint_slice("10.0.0.2", name="web-2"))
    assert registry.last() == {"web.shop": ["10.0.0.1", "10.0.0.2"]}
    registry.put(SLICES, endpoint_slice("10.0.0.3", name="web-2"))
    assert registry.last() == {"web.shop": ["10.0.0.1", "10.0.0.3"]}
    registry.remove(SLICES, ("shop", "web-1"))
    assert registry.last() == {"web.shop": ["10.0.0.3"]}
    registry.remove(SLICES, ("shop", "web-1"))
    assert len(registry.published) == 4


def test_a_slice_may_come_before_its_service():
    registry = Watched()
    registry.replace({SERVICES: [], SLICES: [endpoint_slice("10.0.0.1")]})
    registry.put(SERVICES, service())
    assert registry.last() == {"web.shop": ["10.0.0.1"]}


def test_a_slice_may_move_to_another_service(registry):
    registry.put(SERVICES, service("api"))
    registry.put(SLICES, endpoint_slice("10.0.0.1", owner="api"))
    assert registry.last() == {"web.shop": [], "api.shop": ["10.0.0.1"]}


def test_a_slice_of_nobody_is_nothing(registry):
    registry.put(SLICES, endpoint_slice("10.0.0.7", name="stray", owner=None))
    assert len(registry.published) == 1


def test_problems_are_told_until_they_are_mended(registry):
    registry.put(SERVICES, service("far", type="ExternalName"))
    assert [(p.kind, p.key) for p in registry.problems] == [("Service", ("shop", "far"))]
    registry.remove(SERVICES, ("shop", "far"))
    assert registry.problems == []
    assert registry.services.keys() == {WEB}
