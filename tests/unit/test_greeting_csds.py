"""What is logged of a client's xDS resources, from CSDS responses of gRPC's form."""

from typing import Any

import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.status.v3.csds_pb2 import ClientStatusResponse
from google.protobuf.json_format import ParseDict

from greeting.client.csds import PATIENCE, History, resources
from greeting.client.message import Message

TARGET = "xds:///hello-server.default:50051"
NAME = "hello-server.default:50051"
TYPES = {
    "LDS": "envoy.config.listener.v3.Listener",
    "RDS": "envoy.config.route.v3.RouteConfiguration",
    "CDS": "envoy.config.cluster.v3.Cluster",
    "EDS": "envoy.config.endpoint.v3.ClusterLoadAssignment",
}


def config(
    type_: str, status: str = "ACKED", version: str = "1", name: str = NAME, **more: Any
) -> dict[str, Any]:
    type_url = f"type.googleapis.com/{TYPES.get(type_, type_)}"
    return {"type_url": type_url, "name": name, "version_info": version, "client_status": status} | more


def response(*configs: dict[str, Any], scope: str = f"xds:/{NAME}") -> Any:
    clients = [
        {"client_scope": scope, "generic_xds_configs": list(configs)},
        {"client_scope": "#server", "generic_xds_configs": [config("LDS", name="of another")]},
    ]
    return ParseDict({"config": clients}, ClientStatusResponse())


def endpoint(
    address: str, port: int = 50051, health: str = "HEALTHY", also: tuple[str, ...] = ()
) -> dict[str, Any]:
    def socket(host: str) -> dict[str, Any]:
        return {"socket_address": {"address": host, "port_value": port}}

    additional = [{"address": socket(host)} for host in also]
    return {
        "endpoint": {"address": socket(address), "additional_addresses": additional},
        "health_status": health,
    }


def assignment(*groups: tuple[dict[str, str], list[dict[str, Any]]]) -> Any:
    message = ParseDict(
        {
            "cluster_name": NAME,
            "endpoints": [{"locality": place, "lb_endpoints": each} for place, each in groups],
        },
        ClusterLoadAssignment(),
    )
    packed = response(config("EDS"))
    packed.config[0].generic_xds_configs[0].xds_config.Pack(message)
    return packed


def look(history: History, response: Any, now: float = 0, *, connected: bool = True) -> list[Message]:
    return history.update(resources(response, TARGET), now, connected=connected)


def test_resources_come_in_the_order_in_which_a_client_subscribes() -> None:
    found = resources(response(*(config(each) for each in ("EDS", "CDS", "RDS", "LDS"))), TARGET)
    assert [resource.type for resource in found.values()] == ["LDS", "RDS", "CDS", "EDS"]


@pytest.mark.parametrize(
    ("target", "scope"),
    [
        (TARGET, f"xds:/{NAME}"),
        ("xds:hello-server", "xds:hello-server"),
        ("XDS:///hello-server", "xds:/hello-server"),
        ("xds:///hello%2Dserver", "xds:/hello-server"),
    ],
)
def test_only_the_scope_of_the_target_is_looked_at(target: str, scope: str) -> None:
    found = resources(response(config("LDS"), scope=scope), target)
    assert [resource.name for resource in found.values()] == [NAME]
    assert resources(response(config("LDS"), scope="xds:/other"), target) == {}


def test_endpoints_are_logged_with_health_and_locality() -> None:
    first = endpoint("10.244.1.7"), endpoint("10.244.1.9", health="UNKNOWN")
    second = endpoint("10.244.2.3", also=("fd00::3",)), endpoint("fd00::4", 4)
    found = assignment(({"zone": "zone-b"}, list(second)), ({"zone": "zone-a"}, list(first)))
    (message,) = look(History(), found)
    assert message.facts["endpoints"] == [
        "10.244.1.7:50051 HEALTHY zone-a",
        "10.244.1.9:50051 UNKNOWN zone-a",
        "10.244.2.3:50051+[fd00::3]:50051 HEALTHY zone-b",
        "[fd00::4]:4 HEALTHY zone-b",
    ]


@pytest.mark.parametrize(
    ("locality", "place"), [({}, ""), ({"region": "r", "zone": "z", "sub_zone": "s"}, " r/z/s")]
)
def test_any_locality(locality: dict[str, str], place: str) -> None:
    (message,) = look(History(), assignment((locality, [endpoint("10.0.0.1")])))
    assert message.facts["endpoints"] == [f"10.0.0.1:50051 HEALTHY{place}"]


def test_an_empty_assignment_is_logged_too() -> None:
    (message,) = look(History(), assignment())
    assert message == Message(
        "xDS", {"type": "EDS", "status": "ACKED", "name": NAME, "version": "1", "endpoints": []}
    )


def test_only_changes_are_logged() -> None:
    history = History()
    assert [message.facts["type"] for message in look(history, response(config("LDS"), config("CDS")))] == [
        "LDS",
        "CDS",
    ]
    assert look(history, response(config("LDS"), config("CDS"))) == []
    assert look(history, response(config("LDS"), config("CDS", version="2"))) == [
        Message("xDS", {"type": "CDS", "status": "ACKED", "name": NAME, "version": "2"})
    ]
    assert look(history, response(config("LDS"))) == [
        Message("xDS", {"type": "CDS", "status": "UNSUBSCRIBED", "name": NAME})
    ]


def test_a_rejection_is_logged_with_its_reason() -> None:
    error = {"details": "errors validating Cluster resource:\n[field:lb_policy]", "version_info": "2"}
    (message,) = look(History(), response(config("CDS", "NACKED", error_state=error)))
    assert message.warning
    assert message.facts == {
        "type": "CDS",
        "status": "NACKED",
        "name": NAME,
        "version": "1",
        "error": "errors validating Cluster resource: [field:lb_policy]",
        "rejected_version": "2",
    }


@pytest.mark.parametrize(
    ("type_", "words"), [("LDS", "knows no Service of that name and port"), ("EDS", "does not send it")]
)
def test_a_missing_resource_is_logged_with_a_hint(type_: str, words: str) -> None:
    (message,) = look(History(), response(config(type_, "DOES_NOT_EXIST", version="")))
    assert message.warning
    assert words in message.facts["hint"]
    assert "version" not in message.facts


def test_a_target_without_a_listener_is_logged_once_after_a_while() -> None:
    history = History()
    asked = response(config("LDS", "REQUESTED", version=""))
    (first,) = look(history, asked, 100)
    assert (first.facts["status"], first.warning) == ("REQUESTED", False)
    assert look(history, asked, 100 + PATIENCE) == []
    (late,) = look(history, asked, 100.1 + PATIENCE)
    assert (late.event, late.warning) == ("nobody serves this target", True)
    assert "`kubectl get services -A`" in late.facts["hint"]
    assert look(history, asked, 200) == []


def test_a_resource_that_is_requested_again_may_be_overdue_again() -> None:
    history = History()
    asked, answered = response(config("EDS", "REQUESTED")), response(config("EDS"))
    look(history, asked, 0)
    assert [message.event for message in look(history, asked, 3)] == [
        "the xDS server does not send a resource"
    ]
    look(history, answered, 4)
    assert [message.event for message in look(history, asked, 10)] == ["xDS"]
    assert look(history, asked, 11) == []
    assert [message.event for message in look(history, asked, 13)] == [
        "the xDS server does not send a resource"
    ]


def test_nothing_is_overdue_without_a_connection() -> None:
    history = History()
    asked = response(config("LDS", "REQUESTED"))
    look(history, asked, 0, connected=False)
    assert look(history, asked, 60, connected=False) == []


def test_a_newer_grpc_may_know_more() -> None:
    newer = response(config("some.new.Type"))
    newer.config[0].generic_xds_configs[0].client_status = 99
    (message,) = look(History(), newer)
    assert (message.facts["type"], message.facts["status"]) == ("some.new.Type", "99")
