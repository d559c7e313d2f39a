"""Every object matches the schema of Kubernetes, without unknown fields; of other kinds, what xds-server reads."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.manifests import rendering
from xds_server.objects import documents, kinds

OLDEST, NEWEST = "1.28", kubernetes_validate.latest_version()

SINCE = {
    "examples/zones": "1.30",  # trafficDistribution
    "components/injector": "1.36",
    "components/injector-v1beta1": "1.34",
    "components/injector with components/injector-tls": "1.36",
}
"""The first Kubernetes for uses that need a newer one than OLDEST."""

CERT_MANAGER = "cert-manager.io/v1"
"""test_secured.py compares these with what is mounted."""

OTHERS = {kind.name: kind for kind in (kinds.GRPC_ROUTE, kinds.GRPC_BACKEND_POLICY)}
EXAMPLES = [
    file for file in (rendering.ROOT / "k8s/examples").glob("*/*.yaml") if file.stem != "kustomization"
]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("use", rendering.USES)
def test_kubernetes_accepts_every_object(use: str, version: str) -> None:
    first = SINCE.get(use, OLDEST) if version == OLDEST else version
    for found in rendering.rendered(use):
        if found["kind"] in OTHERS or found["apiVersion"] == CERT_MANAGER:
            continue  # its schema is not one of Kubernetes
        kubernetes_validate.validate(found, first, strict=True)


def test_an_unknown_field_is_rejected() -> None:
    service = {**rendering.of_kind("Service")["hello-server"], "spce": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, NEWEST, strict=True)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: "/".join(file.parts[-2:]))
def test_xds_server_reads_every_route_and_policy_of_the_examples(file: Path) -> None:
    by_kind = {(kind.api_version, kind.name): kind for kind in OTHERS.values()}
    for found in yaml.safe_load_all(file.read_text()):
        labels = found["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == found["metadata"]["name"]
        assert labels["app.kubernetes.io/part-of"] == "proxyless-grpc-lb"
        if found["kind"] in OTHERS:
            kind = OTHERS[found["kind"]]
            assert documents.identity(found, by_kind).kind is kind
            assert isinstance(documents.convert(found, by_kind), kind.type)
