"""The State of the World protocol, rule by rule, as transcripts of one stream.

The rules are those of https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
"""

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from tests.protocol.client import CDS, EDS, LDS, MESSAGES, RDS, Client, make_cache, publish, service
from xds_server.ads.limits import Limits, Usage
from xds_server.ads.session import WILDCARD_NAMES, RequestKind, Session, Status
from xds_server.ads.subscription import (
    MAX_ERROR_DETAIL_LENGTH,
    MAX_NAME_LENGTH,
    MAX_NAMES,
    MAX_UNANSWERED,
)
from xds_server.errors import ExhaustedError, InvalidRequestError
from xds_server.resources.types import ResourceType

WEB, API = "web.shop:80", "api.shop:80"


@pytest.fixture
def cache():
    cache = make_cache()
    publish(cache, service("web", "10.0.0.1"), service("api", "10.0.0.2"))
    return cache


@pytest.fixture
def client(cache):
    return Client(cache)


def test_a_cold_start_takes_four_responses(client):
    transcript = []
    for kind in (LDS, RDS, CDS, EDS):
        client.send(kind, [WEB])
        transcript += client.receive()
    assert transcript == [(LDS, [WEB]), (RDS, [WEB]), (CDS, [WEB]), (EDS, [WEB])]


def test_an_ack_gets_no_response(client):
    client.send(EDS, [WEB])
    client.receive(ack=False)
    assert client.send(EDS, [WEB], version=client.held[EDS].offered).kind is RequestKind.ACK
    assert client.receive() == []


def test_types_of_one_stream_are_independent(cache, client):
    for kind in (CDS, EDS):
        client.send(kind, [WEB])
    client.receive()
    publish(cache, service("web", "10.0.0.1", "10.0.0.3"))
    assert client.receive() == [(EDS, [WEB])]


def test_only_the_first_request_carries_the_node(cache):
    client = Client(cache, node_id="pod-1")
    client.send(LDS, [WEB])
    client.send(CDS, [WEB])
    assert client.session.node.id == "pod-1"
    assert len(client.receive()) == 2


def test_a_node_without_id_or_metadata_is_served(cache):
    session = Session(cache, Usage(Limits()).open("10.0.0.1"), flush=lambda: None)
    session.request(discovery_pb2.DiscoveryRequest(type_url=CDS.value, resource_names=[WEB]))
    assert next(session.round()) is not None
    assert session.client.namespace == "default"


def test_a_request_without_type_ends_the_stream(cache):
    with pytest.raises(InvalidRequestError, match="type_url"):
        Session(cache, Usage(Limits()).open("10.0.0.1"), flush=lambda: None).request(
            discovery_pb2.DiscoveryRequest()
        )


def test_an_unknown_type_is_ignored(cache, client):
    request = discovery_pb2.DiscoveryRequest(type_url="type.googleapis.com/some.Secret", resource_names=["x"])
    assert client.session.request(request).kind is RequestKind.UNKNOWN_TYPE
    assert client.receive() == []


def test_a_new_name_gets_a_response(client):
    client.send(EDS, [WEB])
    client.receive()
    client.send(EDS, [WEB, API])
    assert client.receive() == [(EDS, [API])]


def test_responses_of_a_full_state_type_have_every_subscribed_resource(client):
    client.send(CDS, [WEB])
    client.receive()
    client.send(CDS, [WEB, API])
    assert client.receive() == [(CDS, [API, WEB])]


@pytest.mark.parametrize("kind", ResourceType)
def test_a_name_subscribed_to_again_is_resent_without_a_change(client, kind):
    client.send(kind, [WEB])
    client.receive()
    client.send(kind, [])
    assert client.receive() == []
    client.send(kind, [WEB])
    assert client.receive() == [(kind, [WEB])]


@pytest.mark.parametrize("kind", ResourceType)
def test_unsubscribed_names_are_not_sent(cache, client, kind):
    client.send(kind, [WEB, API])
    client.receive()
    client.send(kind, [API])
    publish(cache, service("web", "10.0.0.9", ports=(81,)))
    assert client.receive() == []


def test_an_empty_list_after_names_is_no_wildcard(cache, client):
    client.send(CDS, [WEB])
    client.receive()
    client.send(CDS, [])
    publish(cache, service("new", "10.0.0.9"))
    assert client.receive() == []


@pytest.mark.parametrize("kind", ResourceType)
def test_a_missing_resource_is_sent_when_it_appears(cache, client, kind):
    outcome = client.send(kind, ["new.shop:80"])
    assert outcome.missing == ("new.shop:80",)
    assert client.receive() == []
    publish(cache, service("new", "10.0.0.9"))
    assert client.receive() == [(kind, ["new.shop:80"])]


@pytest.mark.parametrize("kind", ResourceType)
def test_a_missing_resource_does_not_delay_the_others(client, kind):
    client.send(kind, [WEB, "nowhere.shop:80"])
    assert client.receive() == [(kind, [WEB])]


def test_a_stale_nonce_gets_no_response(cache, client):
    client.send(EDS, [WEB])
    client.receive()
    old = client.held[EDS].nonce
    publish(cache, service("web", "10.0.0.5"))
    client.receive()
    assert client.send(EDS, [WEB, API], nonce=old).kind is RequestKind.STALE
    assert client.receive() == []
    # The client repeats all its names when it acknowledges the newer response.
    client.send(EDS, [WEB, API])
    assert client.receive() == [(EDS, [API])]


@pytest.mark.parametrize("kind", [RDS, EDS])
def test_a_name_dropped_and_subscribed_again_during_another_response_is_sent(cache, client, kind):
    client.send(kind, [WEB, API])
    client.receive()
    publish(cache, service("web", "10.0.0.1", ports=(81,)))
    client.receive()
    publish(cache, service("web", "10.0.0.1"))
    crossing = client.next()
    assert crossing.names == (WEB,)
    for names in ([WEB], [WEB, API]):
        assert client.send(kind, names).kind is RequestKind.STALE
    assert client.receive() == []
    assert API not in client.held[kind].resources
    _, _, answer = client.take(crossing)
    client.session.request(answer)
    assert client.receive() == [(kind, [API])]


@pytest.mark.parametrize("kind", ResourceType)
def test_a_name_that_was_not_subscribed_when_it_arrived_is_resent(cache, client, kind):
    client.send(kind, [WEB])
    client.receive()
    client.send(kind, [WEB, API])
    crossing = client.next()
    # It gives the name up before it reads the response, and wants it again before it answers that.
    client.send(kind, [WEB])
    client.take(crossing)
    assert API not in client.held[kind].resources
    client.send(kind, [WEB, API])
    [(_, names)] = client.receive()
    assert API in names
    assert API in client.held[kind].resources


@pytest.mark.parametrize("kind", [LDS, CDS])
def test_a_deletion_that_crosses_a_new_subscription_is_sent(cache, client, kind):
    client.send(kind, [WEB])
    crossing = client.next()
    client.send(kind, [])
    publish(cache, gone=["web"])
    client.send(kind, [WEB])
    _, _, answer = client.take(crossing)
    client.session.request(answer)
    assert client.receive() == [(kind, [])]
    assert client.held[kind].resources == {}


def test_a_later_request_supersedes_an_earlier_one(client):
    client.send(EDS, [WEB])
    client.send(EDS, [API])
    assert client.receive() == [(EDS, [API])]


def test_a_nonce_of_one_type_means_nothing_to_another(client):
    for kind in (CDS, EDS):
        client.send(kind, [WEB])
    client.receive()
    assert client.send(EDS, [WEB, API], nonce=client.held[CDS].nonce).kind is RequestKind.STALE
    assert client.send(EDS, [WEB, API]).kind is RequestKind.SUBSCRIBE


@pytest.mark.parametrize("kind", [RDS, EDS])
def test_of_a_partial_type_only_changed_resources_are_sent(cache, client, kind):
    client.send(kind, [WEB, API])
    client.receive()
    publish(cache, gone=["web"])
    client.receive()
    publish(cache, service("web", "10.0.0.9"))
    assert client.receive() == [(kind, [WEB])]


@pytest.mark.parametrize("kind", [LDS, CDS])
def test_of_a_full_state_type_all_subscribed_resources_are_sent(cache, client, kind):
    client.send(kind, [WEB, API, "new.shop:80"])
    assert client.receive() == [(kind, [API, WEB])]
    publish(cache, service("new", "10.0.0.9"), service("other", "10.0.0.8"))
    assert client.receive() == [(kind, [API, "new.shop:80", WEB])]


def test_when_one_of_a_full_state_type_changes_all_are_sent_at_once(cache, client):
    client.send(LDS, ["api", "web"])
    client.receive()
    before = client.held[LDS].resources
    publish(cache, service("web", "10.0.0.1", ports=(81,)))
    assert client.receive() == [(LDS, ["api", "web"])]
    assert client.held[LDS].resources["api"] == before["api"]
    assert b"web.shop:81" in client.held[LDS].resources["web"]


def test_after_unsubscribing_some_names_of_a_full_state_type_the_others_are_sent(cache, client):
    client.send(LDS, ["api", "web"])
    client.receive()
    client.send(LDS, ["web"])
    publish(cache, service("web", "10.0.0.1", ports=(81,)), service("api", "10.0.0.2", ports=(81,)))
    assert client.receive() == [(LDS, ["web"])]


def test_after_unsubscribing_some_names_of_a_partial_type_the_others_are_sent(cache, client):
    client.send(EDS, [API, WEB])
    client.receive()
    client.send(EDS, [WEB])
    publish(cache, service("web", "10.0.0.8"), service("api", "10.0.0.9"))
    assert client.receive() == [(EDS, [WEB])]


@pytest.mark.parametrize("kind", ResourceType)
def test_a_pending_change_of_an_unsubscribed_name_is_not_sent(cache, client, kind):
    client.send(kind, [API, WEB])
    client.receive()
    publish(cache, service("web", "10.0.0.9", ports=(81,)))
    client.send(kind, [API])
    assert client.receive() == []


@pytest.mark.parametrize("kind", ResourceType)
def test_after_unsubscribing_everything_nothing_is_sent(cache, client, kind):
    client.send(kind, [WEB, API])
    client.receive()
    client.send(kind, [])
    publish(cache, service("web", "10.0.0.9", ports=(80, 81)), gone=["api"])
    assert client.receive() == []


@pytest.mark.parametrize("kind", ResourceType)
def test_resources_are_never_wrapped_and_have_no_time_to_live(client, kind):
    client.send(kind, [WEB, WEB])
    message = discovery_pb2.DiscoveryResponse.FromString(client.next().body)
    assert [item.type_url for item in message.resources] == [kind.value]
    assert MESSAGES[kind].FromString(message.resources[0].value).IsInitialized()
    fields = {descriptor.name for descriptor, _ in message.ListFields()}
    assert fields == {"version_info", "resources", "type_url", "nonce"}


def test_endpoints_follow_a_cluster_that_comes_back_though_they_are_the_same(cache, client):
    for kind in (CDS, EDS):
        client.send(kind, [WEB])
    client.receive()
    publish(cache, gone=["web"])
    assert client.receive() == [(CDS, [])]
    # Envoy warms the cluster until it has its endpoints, and has not unsubscribed from them meanwhile.
    publish(cache, service("web", "10.0.0.1"))
    assert client.receive() == [(CDS, [WEB]), (EDS, [WEB])]


def test_a_request_that_crosses_the_first_response_is_answered(client):
    client.send(EDS, [WEB])
    assert client.next() is not None
    client.send(EDS, [WEB, API], nonce="")
    assert client.receive() == [(EDS, [API])]


@pytest.mark.parametrize("kind", ResourceType)
def test_version_and_nonce_of_an_earlier_stream_do_not_matter(client, kind):
    client.send(kind, [WEB], nonce="7", version="from-another-server")
    assert client.receive() == [(kind, [WEB])]


def test_the_version_is_the_content(cache, client):
    client.send(EDS, [WEB])
    client.receive()
    first = client.held[EDS].version
    publish(cache, service("web", "10.0.0.5"))
    client.receive()
    assert client.held[EDS].version != first
    publish(cache, service("web", "10.0.0.1"))
    client.receive()
    assert client.held[EDS].version == first


def test_a_change_reverted_before_it_was_sent_is_not_sent(cache, client):
    client.send(EDS, [WEB])
    client.receive()
    publish(cache, service("web", "10.0.0.5"))
    publish(cache, service("web", "10.0.0.1"))
    assert client.receive() == []


def test_a_slow_stream_gets_the_newest_content_once(cache, client):
    client.send(EDS, [WEB])
    client.receive()
    for last in range(2, 250):
        publish(cache, service("web", f"10.0.0.{last}"))
    assert client.receive() == [(EDS, [WEB])]
    assert b"10.0.0.249" in client.held[EDS].resources[WEB]


def test_without_pods_the_assignment_is_empty(cache, client):
    client.send(EDS, [WEB])
    client.receive()
    publish(cache, service("web"))
    assert client.receive() == [(EDS, [WEB])]
    assert b"10.0.0.1" not in client.held[EDS].resources[WEB]
    publish(cache, service("web", "10.0.0.1"))
    assert client.receive() == [(EDS, [WEB])]


def test_a_referenced_resource_is_sent_before_the_one_that_refers_to_it(cache, client):
    for kind in (LDS, RDS, CDS, EDS):
        client.send(kind, ["new.shop:80"])
    publish(cache, service("new", "10.0.0.9"))
    assert [kind for kind, _ in client.receive()] == [CDS, EDS, LDS, RDS]


def test_removals_are_sent_last_and_references_before_their_targets(cache, client):
    for kind in (LDS, CDS):
        client.send(kind, [WEB, API, "new.shop:80"])
    client.receive()
    publish(cache, service("new", "10.0.0.9"), gone=["web"])
    assert client.receive() == [
        (CDS, [API, "new.shop:80", WEB]),
        (LDS, [API, "new.shop:80", WEB]),
        (LDS, [API, "new.shop:80"]),
        (CDS, [API, "new.shop:80"]),
    ]


def test_a_listener_with_a_new_target_is_sent_before_its_old_target_is_removed(cache, client):
    client.send(LDS, ["web"])
    client.send(CDS, [WEB])
    client.receive()
    publish(cache, service("web", "10.0.0.1", ports=(81,)))
    assert client.receive() == [(LDS, ["web"]), (CDS, [])]


@pytest.mark.parametrize("kind", [RDS, EDS])
def test_a_deleted_service_removes_nothing_from_a_partial_type(cache, client, kind):
    client.send(kind, [WEB])
    client.receive()
    publish(cache, gone=["web"])
    assert client.receive() == []


@pytest.mark.parametrize("kind", ResourceType)
def test_a_service_deleted_and_created_again_is_resent(cache, client, kind):
    client.send(kind, [WEB])
    client.receive()
    publish(cache, gone=["web"])
    client.receive()
    publish(cache, service("web", "10.0.0.1"))
    assert client.receive() == [(kind, [WEB])]


def test_a_removed_port_only_removes_its_own_resources(cache, client):
    publish(cache, service("web", "10.0.0.1", ports=(80, 81)))
    client.send(CDS, [WEB, "web.shop:81"])
    client.receive()
    publish(cache, service("web", "10.0.0.1"))
    assert client.receive() == [(CDS, [WEB])]


class TestRound:
    """Responses are made when they are taken, so what changes during a round is not sent in an old form."""

    def test_a_change_during_a_round_is_included(self, cache, client):
        for kind in (CDS, EDS):
            client.send(kind, [WEB])
        responses = client.session.round()
        assert next(responses).type is CDS
        publish(cache, service("web", "10.0.0.7"))
        assert b"10.0.0.7" in next(responses).body
        assert list(responses) == []
        assert client.next() is None

    def test_a_resource_that_comes_back_during_a_round_is_not_removed(self, cache, client):
        for kind in (LDS, CDS):
            client.send(kind, [WEB, API])
        client.receive()
        publish(cache, service("api", "10.0.0.2", ports=(80, 81)), gone=["web"])
        publish(cache, service("new", "10.0.0.3"))
        client.send(CDS, [WEB, API, "new.shop:80"])
        responses = client.session.round()
        assert next(responses).names == (API, "new.shop:80", WEB)
        publish(cache, service("web", "10.0.0.1"))
        later = [(response.type, response.names) for response in responses]
        assert all(WEB in names for type_, names in later if type_ is CDS)
        for response in iter(client.next, None):
            client.take(response)
        assert {*client.held[CDS].resources} >= {WEB, API}

    def test_what_goes_during_a_round_is_removed_in_the_next(self, cache, client):
        for kind in (LDS, CDS):
            client.send(kind, [WEB, API])
        client.receive()
        publish(cache, gone=["web"])
        responses = client.session.round()
        assert next(responses).names == (API,)
        publish(cache, gone=["api"])
        assert [(response.type, response.names) for response in responses] == [(CDS, (API,))]
        assert [(kind, names) for kind, names in client.receive()] == [(LDS, []), (CDS, [])]

    @pytest.mark.parametrize("names", [[WEB, API, "new.shop:80"], ["*"]], ids=["names", "wildcard"])
    def test_a_removal_is_not_sent_to_a_client_that_dropped_the_name_meanwhile(self, cache, client, names):
        client.send(CDS, names)
        client.receive()
        publish(cache, service("new", "10.0.0.9"), gone=["web"])
        responses = client.session.round()
        client.take(next(responses))
        client.send(CDS, [API])
        assert list(responses) == []

    def test_a_removal_is_not_sent_of_a_resource_that_came_back(self, cache, client):
        client.send(CDS, [WEB, API, "new.shop:80"])
        client.receive()
        publish(cache, service("new", "10.0.0.9"), gone=["web"])
        client.take(client.next())
        publish(cache, service("web", "10.0.0.1"))
        assert client.receive() == []


class TestBeforeTheFirstSync:
    def test_nothing_is_sent_before_the_first_sync(self):
        cache = make_cache()
        client = Client(cache)
        for kind in ResourceType:
            client.send(kind, [WEB])
        assert client.receive() == []
        publish(cache, service("web", "10.0.0.1"))
        assert [kind for kind, _ in client.receive()] == [CDS, EDS, LDS, RDS]

    @pytest.mark.parametrize("kind", [LDS, CDS])
    def test_a_wildcard_gets_no_empty_response(self, kind):
        cache = make_cache()
        client = Client(cache)
        client.send(kind, ["*"])
        assert client.receive() == []
        before = client.woken
        cache.publish({})
        assert client.woken > before
        assert client.receive() == [(kind, [])]


class TestWildcard:
    @pytest.mark.parametrize("kind", [LDS, CDS])
    @pytest.mark.parametrize("names", [["*"], []], ids=["explicit", "legacy"])
    def test_everything_under_canonical_names(self, client, kind, names):
        client.send(kind, names)
        assert client.receive() == [(kind, [API, WEB])]

    @pytest.mark.parametrize("kind", [LDS, CDS])
    def test_new_and_deleted_services_are_sent(self, cache, client, kind):
        client.send(kind, ["*"])
        assert client.receive() == [(kind, [API, WEB])]
        publish(cache, service("new", "10.0.0.9"))
        assert client.receive() == [(kind, [API, "new.shop:80", WEB])]
        publish(cache, gone=["api"])
        assert client.receive() == [(kind, ["new.shop:80", WEB])]

    def test_a_name_added_to_a_wildcard_is_resent(self, client):
        client.send(CDS, ["*"])
        client.receive()
        client.send(CDS, ["*", WEB])
        assert client.receive() == [(CDS, [API, WEB])]

    def test_the_wildcard_covers_a_name_that_was_unsubscribed(self, cache, client):
        client.send(CDS, ["*", WEB])
        client.receive()
        client.send(CDS, ["*"])
        assert client.receive() == []
        publish(cache, gone=["web"])
        assert client.receive() == [(CDS, [API])]

    def test_unsubscribing_the_wildcard_keeps_the_names(self, cache, client):
        client.send(CDS, ["*", WEB])
        client.receive()
        client.send(CDS, [WEB])
        publish(cache, service("api", "10.0.0.9", ports=(81,)), service("web", "10.0.0.9", ports=(81,)))
        assert client.receive() == [(CDS, [])]

    def test_an_empty_list_is_the_wildcard_only_until_something_was_named(self, cache, client):
        # The example of the protocol's documentation, step by step.
        client.send(CDS, [])
        assert client.receive() == [(CDS, [API, WEB])]
        client.send(CDS, ["*", WEB])
        assert client.receive() == [(CDS, [API, WEB])]
        client.send(CDS, [WEB])
        assert client.receive() == []
        publish(cache, service("new", "10.0.0.9"))
        assert client.receive() == []
        client.send(CDS, [])
        publish(cache, service("web", "10.0.0.9", ports=(80, 81)))
        assert client.receive() == []

    @pytest.mark.parametrize("stale", [[WEB], ["nowhere.shop:80"], []])
    def test_a_wildcard_dropped_and_requested_again_around_a_response_is_resent(self, client, stale):
        client.send(CDS, ["*"])
        client.receive()
        client.send(CDS, ["*", API])
        crossing = client.next()
        assert client.send(CDS, stale).kind is RequestKind.STALE
        client.take(crossing)
        client.send(CDS, ["*"])
        client.receive()
        assert client.held[CDS].resources.keys() == {API, WEB}

    def test_an_empty_list_after_a_name_in_a_stale_request_is_not_the_wildcard(self, cache, client):
        client.send(CDS, [])
        client.receive()
        publish(cache, service("new", "10.0.0.9"))
        crossing = client.next()
        assert client.send(CDS, [WEB]).kind is RequestKind.STALE
        client.take(crossing)
        client.send(CDS, [])
        assert client.receive() == []
        publish(cache, service("newer", "10.0.0.9"))
        assert client.receive() == []

    def test_an_acknowledgement_of_a_wildcard_does_not_hurry_changes(self, cache, client):
        client.send(CDS, ["*"])
        client.receive(ack=False)
        publish(cache, service("new", "10.0.0.9"))
        assert not client.send(CDS, ["*"], version=client.held[CDS].offered).is_due

    def test_a_wildcard_dropped_before_its_response_gets_none(self, client):
        client.send(CDS, ["*"])
        client.send(CDS, [])
        assert client.receive() == []

    def test_pending_changes_of_names_that_only_the_wildcard_covered_are_dropped_with_it(self, cache, client):
        client.send(CDS, ["*", WEB])
        client.receive()
        publish(cache, service("new", "10.0.0.9"))
        client.send(CDS, [WEB])
        assert client.receive() == []

    def test_a_name_outside_the_wildcard_is_removed_when_it_is_unsubscribed(self, client):
        client.send(LDS, ["*", "web"])
        assert client.receive() == [(LDS, [API, "web", WEB])]
        client.send(LDS, ["*"])
        assert client.receive() == [(LDS, [API, WEB])]
        assert {name for _, name in statuses(client)} == {API, WEB}

    @pytest.mark.parametrize("kind", [RDS, EDS])
    def test_a_partial_type_has_none(self, client, kind):
        client.send(kind, ["*"])
        assert client.receive() == []


def statuses(client):
    return {(held.type, held.name): held.status for held in client.session.statuses()}


class TestStatus:
    def test_missing_sent_and_acknowledged(self, client):
        client.send(EDS, [WEB, "nowhere.shop:80"])
        client.receive(ack=False)
        assert statuses(client) == {(EDS, WEB): Status.SENT, (EDS, "nowhere.shop:80"): Status.MISSING}
        client.send(EDS, [WEB, "nowhere.shop:80"], version=client.held[EDS].offered)
        assert statuses(client)[EDS, WEB] is Status.ACKNOWLEDGED

    def test_a_later_response_keeps_the_status_of_an_earlier_one(self, cache, client):
        client.send(EDS, [WEB, API])
        client.receive()
        publish(cache, service("web", "10.0.0.9"))
        client.receive(ack=False)
        assert statuses(client) == {(EDS, WEB): Status.SENT, (EDS, API): Status.ACKNOWLEDGED}


class TestRejections:
    def test_a_rejection_keeps_the_clients_message(self, client):
        client.send(CDS, [WEB])
        client.receive(refuse=[CDS])
        [held] = client.session.statuses()
        assert held.status is Status.REJECTED
        assert held.rejection.message == "refused on purpose"
        assert held.rejection.names == (WEB,)

    def test_rejected_content_is_not_resent(self, client):
        client.send(EDS, [WEB])
        assert client.receive(refuse=[EDS]) == [(EDS, [WEB])]
        assert client.receive() == []

    def test_other_content_is_sent_and_its_ack_clears_the_rejection(self, cache, client):
        client.send(EDS, [WEB])
        client.receive(refuse=[EDS])
        publish(cache, service("web", "10.0.0.7"))
        assert client.receive() == [(EDS, [WEB])]
        assert statuses(client) == {(EDS, WEB): Status.ACKNOWLEDGED}

    def test_a_new_subscription_after_a_rejection_does_not_clear_it(self, client):
        client.send(EDS, [WEB])
        client.receive(refuse=[EDS])
        # With the nonce of what was refused, and no error again: as every client does.
        assert client.send(EDS, [WEB, API]).kind is RequestKind.SUBSCRIBE
        assert client.receive() == [(EDS, [API])]
        assert statuses(client) == {(EDS, WEB): Status.REJECTED, (EDS, API): Status.ACKNOWLEDGED}

    def test_a_rejection_that_crosses_a_newer_response_is_recorded(self, client):
        client.send(EDS, [WEB])
        first = client.next()
        client.send(EDS, [WEB, API], nonce="")
        second = client.next()
        _, _, refusal = client.take(first, refuse=True)
        outcome = client.session.request(refusal)
        assert (outcome.kind, outcome.rejection.version) == (RequestKind.NACK, first.version)
        _, _, answer = client.take(second)
        client.session.request(answer)
        assert statuses(client) == {(EDS, WEB): Status.REJECTED, (EDS, API): Status.ACKNOWLEDGED}

    def test_a_rejection_ends_with_its_resource(self, cache, client):
        client.send(CDS, [WEB, API])
        client.receive(refuse=[CDS])
        client.send(CDS, [API])
        assert statuses(client) == {(CDS, API): Status.REJECTED}
        client.send(CDS, [API, WEB])
        client.receive(ack=False)
        assert statuses(client)[CDS, WEB] is Status.SENT
        client.send(CDS, [API, WEB], version=client.held[CDS].offered)
        assert statuses(client) == {(CDS, API): Status.ACKNOWLEDGED, (CDS, WEB): Status.ACKNOWLEDGED}

    def test_a_rejection_is_reported_once(self, client):
        client.send(EDS, [WEB])
        client.receive(refuse=[EDS])
        assert client.send(EDS, [WEB], error="again").rejection is None
        [held] = client.session.statuses()
        assert held.rejection.message == "refused on purpose"

    def test_a_long_rejection_message_is_truncated(self, client):
        client.send(EDS, [WEB])
        client.receive(ack=False)
        outcome = client.send(EDS, [WEB], error="x" * 100_000)
        assert len(outcome.rejection.message) == MAX_ERROR_DETAIL_LENGTH

    def test_a_rejection_only_affects_its_stream(self, cache, client):
        other = Client(cache)
        for each in (client, other):
            each.send(EDS, [WEB])
        client.receive(refuse=[EDS])
        assert other.receive() == [(EDS, [WEB])]
        assert statuses(other) == {(EDS, WEB): Status.ACKNOWLEDGED}


class TestManyStreams:
    def test_streams_of_one_node_id_are_independent(self, cache):
        first, second = Client(cache, node_id="same"), Client(cache, node_id="same")
        first.send(EDS, [WEB])
        second.send(EDS, [API])
        assert first.receive() == [(EDS, [WEB])]
        assert second.receive() == [(EDS, [API])]
        first.session.close()
        publish(cache, service("api", "10.0.0.9"))
        assert second.receive() == [(EDS, [API])]

    def test_a_short_name_is_resolved_for_each_client(self, cache):
        publish(cache, service("web", "10.1.0.1", namespace="team", ports=(90,)))
        here, there = Client(cache, namespace="shop"), Client(cache, namespace="team")
        for each in (here, there):
            each.send(LDS, ["web"])
            assert each.receive() == [(LDS, ["web"])]
        assert WEB.encode() in here.held[LDS].resources["web"]
        assert b"web.team:90" in there.held[LDS].resources["web"]

    def test_only_subscribed_streams_are_notified(self, cache):
        first, second = Client(cache), Client(cache)
        first.send(EDS, [WEB])
        second.send(EDS, [API])
        for each in (first, second):
            each.receive()
            each.woken = 0
        publish(cache, service("web", "10.0.0.8"))
        assert (first.woken, second.woken) == (1, 0)

    def test_resources_without_subscribers_are_removed_from_the_cache(self, cache):
        clients = [Client(cache) for _ in range(20)]
        for number, each in enumerate(clients):
            for kind in ResourceType:
                each.send(kind, [WEB, f"unknown-{number}", "*"])
            each.receive()
        assert list(cache.resources())
        for each in clients:
            each.session.close()
        assert list(cache.resources()) == []
        publish(cache, service("web", "10.0.0.8"), service("other"))
        assert list(cache.resources()) == []


class TestLimits:
    def test_a_closed_session_ignores_requests(self, cache, client):
        client.send(CDS, [WEB])
        client.receive()
        client.session.close()
        assert statuses(client) == {}
        client.send(EDS, [WEB])
        assert client.next() is None
        assert list(cache.resources()) == []

    def test_memory_of_a_client_that_never_answers_is_bounded(self, cache, client):
        client.send(EDS, [WEB])
        for number in range(MAX_UNANSWERED + 5):
            publish(cache, service("web", f"10.0.0.{number}"))
            assert client.receive(ack=False) == [(EDS, [WEB])]
        assert client.send(EDS, [WEB], nonce="5", error="too late").rejection is None
        assert client.send(EDS, [WEB], nonce="6", error="late").rejection.message == "late"
        client.send(EDS, [WEB], error="at last")
        assert statuses(client) == {(EDS, WEB): Status.REJECTED}

    def test_too_many_names(self, client):
        with pytest.raises(InvalidRequestError, match=f"at most {MAX_NAMES}"):
            client.send(EDS, [str(n) for n in range(MAX_NAMES + 1)])

    def test_more_names_than_its_address_may_have(self, cache):
        usage = Usage(Limits(names_of_peer=3))
        sessions = [Session(cache, usage.open("10.0.0.1"), flush=lambda: None) for _ in range(2)]
        request = discovery_pb2.DiscoveryRequest(type_url=EDS.value, resource_names=[WEB, API])
        sessions[0].request(request)
        with pytest.raises(ExhaustedError, match="over the bound of 3"):
            sessions[1].request(request)
        for session in sessions:
            session.close()
        assert list(cache.resources()) == []
        Session(cache, usage.open("10.0.0.1"), flush=lambda: None).request(request)

    def test_a_wildcard_counts_as_many_names(self, cache):
        session = Session(
            cache, Usage(Limits(names_of_peer=WILDCARD_NAMES + 1)).open("10.0.0.1"), flush=lambda: None
        )
        session.request(discovery_pb2.DiscoveryRequest(type_url=CDS.value, resource_names=["*", WEB]))
        with pytest.raises(ExhaustedError, match=f"would subscribe to {2 * WILDCARD_NAMES + 1} names"):
            session.request(discovery_pb2.DiscoveryRequest(type_url=LDS.value, resource_names=["*"]))

    @pytest.mark.parametrize(
        ("field", "text", "problem"),
        [
            ("NODE_NAME", "x" * 300, "longer than 253"),
            *(
                ("NAMESPACE", bad, "no namespace can be called")
                for bad in ("x" * 64, "$(POD_NAMESPACE)", "Shop", "shop.", "a b", "shop\n")
            ),
        ],
    )
    def test_a_trait_that_can_not_be(self, cache, field, text, problem):
        request = discovery_pb2.DiscoveryRequest(type_url=CDS.value)
        request.node.metadata.update({field: text})
        with pytest.raises(InvalidRequestError, match=problem):
            Session(cache, Usage(Limits()).open("10.0.0.1"), flush=lambda: None).request(request)

    def test_too_many_servers(self, client):
        names = [f"grpc/server?xds.resource.listening_address=0.0.0.0:{port}" for port in range(1, 34)]
        client.send(LDS, names[:32])
        with pytest.raises(InvalidRequestError, match="33 Listeners of servers; at most 32"):
            client.send(LDS, names, nonce="")

    def test_names_that_change_all_the_time(self, cache):
        usage = Usage(Limits(changed_names=11, changed_names_per_second=1), clock=lambda: now)
        now = 0.0
        session = Session(cache, usage.open("10.0.0.1"), flush=lambda: None)

        def ask(*names):
            session.request(discovery_pb2.DiscoveryRequest(type_url=EDS.value, resource_names=names))

        ask(*map(str, range(5)))
        ask("a")
        with pytest.raises(ExhaustedError, match="changes its names too often"):
            ask("b")
        now = 2.0
        ask("b")

    def test_a_long_node_id_is_shown_in_part(self, cache):
        client = Client(cache, node_id="x" * 1_000)
        client.send(EDS, [WEB])
        assert client.session.node.id == "x" * 320

    def test_too_many_names_in_a_stale_request(self, client):
        client.send(EDS, [WEB])
        client.receive()
        with pytest.raises(InvalidRequestError, match=f"at most {MAX_NAMES}"):
            client.send(EDS, [str(n) for n in range(MAX_NAMES + 1)], nonce="stale")

    def test_too_large_a_node(self, cache):
        with pytest.raises(InvalidRequestError, match="the node has"):
            Client(cache, node_id="x" * 20_000).send(EDS, [WEB])

    def test_a_node_with_the_long_list_of_extensions_that_envoy_sends(self, cache):
        session = Session(cache, Usage(Limits()).open("10.0.0.1"), flush=lambda: None)
        request = discovery_pb2.DiscoveryRequest(type_url=EDS.value, resource_names=[WEB])
        request.node.id = "envoy"
        for number in range(500):
            request.node.extensions.add(
                name=f"envoy.filters.http.number_{number}", category="envoy.filters.http"
            )
        session.request(request)
        assert base_pb2.Node.FromString(session.node.encoded) == base_pb2.Node(id="envoy")
        for number in range(1_500):
            request.node.extensions.add(
                name=f"envoy.filters.http.number_{number}", category="envoy.filters.http"
            )
        with pytest.raises(InvalidRequestError, match="at most 65536"):
            Session(cache, Usage(Limits()).open("10.0.0.1"), flush=lambda: None).request(request)

    def test_too_long_a_name(self, client):
        with pytest.raises(InvalidRequestError, match=f"longer than {MAX_NAME_LENGTH}"):
            client.send(EDS, ["x" * (MAX_NAME_LENGTH + 1)])
