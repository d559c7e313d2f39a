"""Statuses and Events, written by the whole program's parts to an API server that counts what is written."""

import json
import threading
from contextlib import contextmanager
from functools import partial

import pytest
from structlog.testing import capture_logs

from tests.support.api_stub import ApiStub
from tests.support.waiting import wait_until
from xds_server.kubernetes.api import Api
from xds_server.kubernetes.events import EventLimits, EventWriter, ObjectRef
from xds_server.kubernetes.writer import CONTESTED, StatusWriter, WriterLimits
from xds_server.mesh.statuses import CONTROLLER, Condition, Status, StatusEntry
from xds_server.objects.kinds import GRPC_ROUTE
from xds_server.objects.meta import Tracked, decode

REF = {"group": "", "kind": "Service", "name": "web"}
FOREIGN = {"parentRef": {"name": "gateway"}, "controllerName": "example.com/other", "conditions": []}
FAST = WriterLimits(first=(0, 0), again=(0, 0), gap=0, first_backoff=0.01, last_backoff=0.02)
WEB = ObjectRef("Service", "v1", "shop", "web", "uid-1")


@pytest.fixture
def stub():
    found = ApiStub()
    found.plurals["GRPCRoute"] = "grpcroutes"
    yield found
    found.stop()


@pytest.fixture
def api(stub, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(stub.kubeconfig(tmp_path / "kubeconfig")))
    return Api()


@contextmanager
def running(writer):
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        yield writer
    finally:
        writer.stop()
        thread.join(10)
        assert not thread.is_alive()


def route(*, generation=1, status=None, name="web"):
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": name, "namespace": "shop", "generation": generation},
        "spec": {"parentRefs": [REF]},
        **({"status": status} if status else {}),
    }


def stored(stub, name="web"):
    return stub.objects["GRPCRoute", ("shop", name)]


def read(stub, name="web"):
    item = decode(json.dumps(stored(stub, name)).encode(), GRPC_ROUTE.type)
    assert isinstance(item, Tracked)
    return item


def wanted(*, accepted=True, generation=1):
    return Status(generation, (StatusEntry(REF, (Condition("Accepted", accepted, "Reason", "text"),)),))


def accepted(stub, name="web"):
    """The status of our condition; None if there is none."""
    for entry in stored(stub, name).get("status", {}).get("parents", ()):
        if entry["controllerName"] == CONTROLLER:
            return entry["conditions"][0]["status"]
    return None


def results(stub):
    return [status for *_, status in stub.writes]


# ---- statuses ----


def test_a_status_is_written_once(stub, api):
    stub.apply(route())
    with running(StatusWriter(api, FAST)) as writer:
        writer.want(GRPC_ROUTE, read(stub), wanted())
        wait_until("the status", lambda: accepted(stub) == "True")
        writer.want(GRPC_ROUTE, read(stub), wanted())
    assert results(stub) == [200]


def test_nothing_is_written_if_the_object_says_it_already(stub, api):
    stub.apply(route())
    stub.apply(route(name="other"))
    first = StatusWriter(api, FAST)
    with running(first):
        first.want(GRPC_ROUTE, read(stub), wanted())
        wait_until("the status", lambda: accepted(stub))
    with running(StatusWriter(api, FAST)) as second:
        second.want(GRPC_ROUTE, read(stub), wanted())
        second.want(GRPC_ROUTE, read(stub, "other"), wanted())
        wait_until("the status of another object", lambda: accepted(stub, "other"))
    assert [path.rpartition("grpcroutes/")[2] for _, path, *_ in stub.writes] == [
        "web/status",
        "other/status",
    ]


def test_two_servers_that_disagree_are_told_apart_in_the_log(stub, api):
    stub.apply(route())
    with capture_logs() as lines, running(StatusWriter(api, FAST)) as writer:
        for number in range(2 * CONTESTED):
            before = len(stub.writes)
            writer.want(GRPC_ROUTE, read(stub), wanted(accepted=number % 2 == 0))
            wait_until("a write", partial(lambda seen: len(stub.writes) > seen, before))
    [line] = [line for line in lines if "something else writes" in line["event"]]
    assert line["object"] == "shop/web"
    assert "one version of xds-server" in line["hint"]


def test_a_replica_that_comes_second_finds_the_work_done(stub, api):
    stub.apply(route())
    item = read(stub)
    with running(StatusWriter(api, FAST)) as one:
        one.want(GRPC_ROUTE, item, wanted())
        wait_until("the status", lambda: accepted(stub))
    with running(StatusWriter(api, FAST)) as other:
        other.want(GRPC_ROUTE, item, wanted())
        wait_until("the second try", lambda: len(stub.writes) == 2)
    assert results(stub) == [200, 409]
    assert stub.count("grpcroutes/web") == 1, "it looked"


def test_a_change_meanwhile_is_not_undone(stub, api):
    stub.apply(route())
    old = read(stub)
    stub.apply(route(status={"parents": [FOREIGN]}))
    with running(StatusWriter(api, FAST)) as writer:
        writer.want(GRPC_ROUTE, old, wanted())
        wait_until("the status", lambda: accepted(stub))
    assert stored(stub)["status"]["parents"][0] == FOREIGN
    assert results(stub) == [409, 200]


def test_an_outdated_wish_is_dropped_for_a_newer_generation(stub, api):
    stub.apply(route())
    old = read(stub)
    stub.apply(route(generation=2))
    with running(StatusWriter(api, FAST)) as writer:
        writer.want(GRPC_ROUTE, old, wanted(generation=1))
        wait_until("a try", lambda: stub.count("grpcroutes/web") == 1)
        writer.want(GRPC_ROUTE, read(stub), wanted(generation=2))
        wait_until("the status", lambda: accepted(stub))
    assert stored(stub)["status"]["parents"][0]["conditions"][0]["observedGeneration"] == 2


def test_the_newest_wish_counts(stub, api):
    stub.apply(route())
    writer = StatusWriter(api, FAST)
    item = read(stub)
    for number in range(10):
        writer.want(GRPC_ROUTE, item, wanted(accepted=number % 2 == 1))
    with running(writer):
        wait_until("the status", lambda: accepted(stub))
    assert (results(stub), accepted(stub)) == ([200], "True")


def test_a_wish_that_has_become_true_is_dropped(stub, api):
    stub.apply(route())
    writer = StatusWriter(api, FAST)
    writer.want(GRPC_ROUTE, read(stub), wanted(accepted=False))
    other = StatusWriter(api, FAST)
    other.want(GRPC_ROUTE, read(stub), wanted())
    with running(other):
        wait_until("the status", lambda: accepted(stub))
    writer.want(GRPC_ROUTE, read(stub), wanted())
    with running(writer):
        pass
    assert results(stub) == [200]


@pytest.mark.parametrize("fault", [403, 500, 429])
def test_what_fails_is_tried_again_and_the_newest_is_written(stub, api, fault):
    stub.apply(route())
    stub.apply(route(name="api"))
    stub.write_fault = fault
    with running(StatusWriter(api, FAST)) as writer:
        writer.want(GRPC_ROUTE, read(stub), wanted(accepted=False))
        writer.want(GRPC_ROUTE, read(stub, "api"), wanted())
        wait_until("some tries", lambda: len(stub.writes) > 3)
        writer.want(GRPC_ROUTE, read(stub), wanted())
        stub.write_fault = None
        wait_until("both", lambda: accepted(stub) == "True" and accepted(stub, "api") == "True")


def test_objects_that_are_refused_hold_up_no_other(stub, api):
    for number in range(5):
        stub.apply(route(name=f"bad-{number}"))
    stub.apply(route())
    stub.refused_writes = {f"bad-{number}": 422 for number in range(5)}
    slow = WriterLimits(first=(0, 0), again=(0, 0), gap=0, first_backoff=600, last_backoff=600)
    with running(StatusWriter(api, slow)) as writer:
        for number in range(5):
            writer.want(GRPC_ROUTE, read(stub, f"bad-{number}"), wanted())
        wait_until("five refusals", lambda: results(stub).count(422) == 5)
        writer.want(GRPC_ROUTE, read(stub), wanted())
        wait_until("the good one", lambda: accepted(stub))


def test_an_object_that_is_gone_is_forgotten(stub, api):
    stub.apply(route())
    stub.apply(route(name="api"))
    gone = read(stub)
    stub.delete("GRPCRoute", "shop", "web")
    with running(StatusWriter(api, FAST)) as writer:
        writer.want(GRPC_ROUTE, gone, wanted())
        writer.want(GRPC_ROUTE, read(stub, "api"), wanted())
        wait_until("the other", lambda: accepted(stub, "api"))
    assert sorted(results(stub)) == [200, 404]


def test_a_wish_may_be_taken_back(stub, api):
    stub.apply(route())
    writer = StatusWriter(api, FAST)
    writer.want(GRPC_ROUTE, read(stub), wanted())
    writer.forget(GRPC_ROUTE, ("shop", "web"))
    with running(writer):
        pass
    assert stub.writes == []


# ---- Events ----


def events(stub):
    return {(e["reason"], e["message"], e["count"]) for e in stub.events.values()}


def test_an_event_is_on_its_object(stub, api):
    with running(EventWriter(api)) as writer:
        writer.report(WEB, "NotUsable", "its port is 0")
        wait_until("the Event", lambda: stub.events)
    [((namespace, name), event)] = stub.events.items()
    assert namespace == "shop"
    assert name.startswith("web.")
    assert event["involvedObject"] == {
        "kind": "Service",
        "apiVersion": "v1",
        "namespace": "shop",
        "name": "web",
        "uid": "uid-1",
    }
    assert (event["type"], event["count"], event["source"]) == ("Warning", 1, {"component": "xds-server"})
    assert event["firstTimestamp"] == event["lastTimestamp"]


def test_repetitions_are_counted_in_one_event(stub, api):
    with running(EventWriter(api, EventLimits(repeat=0.01))) as writer:
        writer.report(WEB, "RejectedByClient", "no")
        wait_until("the Event", lambda: stub.events)
        for _ in range(9):
            writer.report(WEB, "RejectedByClient", "no")
        wait_until("the count", lambda: events(stub) == {("RejectedByClient", "no", 10)})


def test_repetitions_within_a_minute_are_not_written_one_by_one(stub, api):
    writer = EventWriter(api)
    for _ in range(10):
        writer.report(WEB, "RejectedByClient", "no")
    with running(writer):
        wait_until("the Event", lambda: stub.events)
        for _ in range(10):
            writer.report(WEB, "RejectedByClient", "no")
    assert len(stub.writes) == 1
    assert events(stub) == {("RejectedByClient", "no", 10)}


def test_two_replicas_write_one_event(stub, api):
    with running(EventWriter(api)) as one, running(EventWriter(api)) as other:
        one.report(WEB, "NotUsable", "text")
        other.report(WEB, "NotUsable", "text")
        wait_until("both", lambda: len(stub.writes) == 3)
    assert len(stub.events) == 1
    assert sorted(results(stub)) == [200, 201, 409]


def test_events_beyond_the_burst_are_written_later(stub, api):
    writer = EventWriter(api, EventLimits(burst=2, per_second=10, of_object=2, of_object_per_second=10))
    for number in range(6):
        writer.report(WEB, "NotUsable", f"problem {number}")
    with running(writer):
        wait_until("all Events", lambda: len(stub.events) == 6)


def test_what_clients_reject_does_not_delay_problems_of_objects(stub, api):
    writer = EventWriter(api, EventLimits(burst=3, of_object=3))
    for number in range(20):
        writer.report(WEB, "RejectedByClient", f"reason {number}")
    writer.report(WEB, "NotUsable", "its port is 0")
    with running(writer):
        wait_until("the problem", lambda: ("NotUsable", "its port is 0", 1) in events(stub))


def test_the_count_goes_on_after_a_restart(stub, api):
    for _ in range(2):
        with running(EventWriter(api, EventLimits(repeat=0.01))) as writer:
            before = sum(count for *_, count in events(stub))
            for number in range(1, 4):
                writer.report(WEB, "RejectedByClient", "no")
                wait_until(
                    "the count",
                    partial(
                        lambda wanted: events(stub) == {("RejectedByClient", "no", wanted)}, before + number
                    ),
                )
    assert events(stub) == {("RejectedByClient", "no", 6)}


def test_the_api_is_left_alone_for_as_long_as_it_asks(stub, api):
    stub.write_fault, stub.retry_after = 429, 3_600
    with (
        running(EventWriter(api, EventLimits(longest_pause=3_600))) as asked,
        running(EventWriter(api)) as other,
    ):
        asked.report(WEB, "NotUsable", "first")
        wait_until("a try", lambda: stub.writes)
        stub.write_fault = None
        asked.report(WEB, "NotUsable", "second")
        other.report(WEB, "NotUsable", "of another")
        wait_until("the Event of another", lambda: stub.events)
    assert events(stub) == {("NotUsable", "of another", 1)}


def test_more_events_than_may_wait_are_dropped(stub, api):
    writer = EventWriter(api, EventLimits(waiting=3))
    for number in range(20):
        writer.report(WEB, "NotUsable", f"problem {number}")
    with running(writer):
        wait_until("the Events", lambda: len(stub.events) == 3)


def test_one_object_does_not_take_all_room(stub, api):
    """A client may reject one Service with a thousand texts."""
    limits = EventLimits(burst=1_000, of_object=1_000, waiting=6, waiting_of_object=3)
    writer = EventWriter(api, limits)
    api_service = WEB._replace(name="api")
    for number in range(20):
        writer.report(WEB, "NotUsable", f"problem {number}")
    writer.report(api_service, "NotUsable", "its port is 0")
    with running(writer):
        wait_until("the Events", lambda: len(stub.events) == 4)
    assert ("NotUsable", "its port is 0", 1) in events(stub)


def test_new_events_come_slowly_after_a_burst(stub, api):
    writer = EventWriter(api, EventLimits(burst=8, of_object=3))
    for number in range(20):
        writer.report(WEB, "NotUsable", f"problem {number}")
    for number in range(20):
        writer.report(WEB._replace(name=f"api-{number}"), "NotUsable", "text")
    with running(writer):
        wait_until("the Events", lambda: len(stub.events) == 8)
    assert len(stub.writes) == 8
    assert sum(event["involvedObject"]["name"] == "web" for event in stub.events.values()) == 3


def test_a_long_message_is_cut(stub, api):
    with running(EventWriter(api)) as writer:
        writer.report(WEB, "NotUsable", "x" * 5_000)
        wait_until("the Event", lambda: stub.events)
    assert [len(event["message"]) for event in stub.events.values()] == [1_024]


def test_an_event_that_can_not_be_written_is_dropped_and_later_ones_are_not(stub, api):
    stub.write_fault = 403
    with running(EventWriter(api)) as writer:
        writer.report(WEB, "NotUsable", "first")
        wait_until("a try", lambda: stub.writes)
        stub.write_fault = None
        writer.report(WEB, "NotUsable", "second")
        wait_until("the Event", lambda: events(stub) == {("NotUsable", "second", 1)})
