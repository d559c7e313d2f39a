"""Fields that a kind does not have, and what was probably meant."""

import pytest

from tests.support.policies import ACCEPTED, EVERYTHING, policy
from tests.support.routes import header, method, rule
from xds_server.objects.fields import MAX_FIELDS, unknown_fields
from xds_server.objects.kinds import ENDPOINT_SLICE, GRPC_BACKEND_POLICY, GRPC_ROUTE, KINDS, NODE, SERVICE


def found(document):
    """The unknown fields of a document of any kind, as texts."""
    [kind] = [
        kind for kind in KINDS if (kind.api_version, kind.name) == (document["apiVersion"], document["kind"])
    ]
    return [str(field) for field in unknown_fields(kind, document)]


def route(*rules, metadata=None, status=None, **spec):
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": "r", **(metadata or {})},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": [*rules], **spec},
        **({"status": status} if status else {}),
    }


@pytest.mark.parametrize("document", ACCEPTED.values(), ids=ACCEPTED)
def test_policies_that_the_api_server_accepts_have_none(document):
    assert found(document) == []


def test_fields_that_are_not_read_are_known_all_the_same():
    assert (
        found(
            route(
                rule(
                    method("a", "B"),
                    header("x", "1"),
                    name="n",
                    filters=[{"type": "RequestMirror", "requestMirror": {"backendRef": {"anything": 1}}}],
                    sessionPersistence={"anything": 1},
                ),
                hostnames=["a.example"],
                metadata={
                    "annotations": {"a": "b"},
                    "labels": {"any": "thing"},
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                    "managedFields": [{"manager": "kubectl"}],
                },
                status={"parents": [{"anything": 1}]},
            )
        )
        == []
    )


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (policy(retries={"codes": ["UNAVAILABLE"]}), "spec.retries (did you mean retry?)"),
        (policy(Timeout="5s"), "spec.Timeout (did you mean timeout?)"),
        (
            policy(max_concurrent_requests=1),
            "spec.max_concurrent_requests (did you mean maxConcurrentRequests?)",
        ),
        (policy(retry={"code": ["INTERNAL"]}), "spec.retry.code (did you mean codes?)"),
        (
            policy(outlierDetection={"failurePercentage": {"treshold": 1}}),
            "spec.outlierDetection.failurePercentage.treshold (did you mean threshold?)",
        ),
        (policy(colour="red"), "spec.colour"),
        ({**policy(), "specs": {}}, "specs (did you mean spec?)"),
        ({**policy(), "metadata": {"name": "a", "lables": {}}}, "metadata.lables (did you mean labels?)"),
        (route(rule(), rule(backendRef=[])), "spec.rules[1].backendRef (did you mean backendRefs?)"),
        (
            route(rule(to=[{"name": "a", "wieght": 1}])),
            "spec.rules[0].backendRefs[0].wieght (did you mean weight?)",
        ),
        (route(rule({"path": {}})), "spec.rules[0].matches[0].path"),
        (route(parentRef=[]), "spec.parentRef (did you mean parentRefs?)"),
        ({**route(), True: 1}, "True"),
    ],
)
def test_unknown_fields(document, expected):
    assert found(document) == [expected]


def test_several_in_the_order_of_the_document():
    assert found(policy(retries=1, **EVERYTHING, faults=2)) == [
        "spec.retries (did you mean retry?)",
        "spec.faults (did you mean fault?)",
    ]


def test_their_number_and_length_are_bounded():
    document = {**policy(), "spec": {f"{number}{'x' * 100_000}": 1 for number in range(1000)}}
    fields = unknown_fields(GRPC_BACKEND_POLICY, document)
    assert len(fields) == MAX_FIELDS
    assert all(len(str(field)) < 200 for field in fields)


@pytest.mark.parametrize("kind", [SERVICE, ENDPOINT_SLICE, NODE])
def test_kinds_of_which_a_part_is_read_have_none(kind):
    assert unknown_fields(kind, {"spec": {"selector": {}}, "anything": 1}) == []


@pytest.mark.parametrize(
    "document", [{"spec": None}, {"spec": 1}, {"spec": {"rules": {"a": 1}}}, {"spec": [[]]}]
)
def test_documents_of_another_shape_are_no_error(document):
    assert len(unknown_fields(GRPC_ROUTE, document)) <= 1
