"""Every object matches the schema of Kubernetes, without unknown fields."""

import kubernetes_validate
import pytest

from tests.manifests import rendering

OLDEST, NEWEST = "1.28", kubernetes_validate.latest_version()


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("use", rendering.USES)
def test_kubernetes_accepts_every_object(use: str, version: str) -> None:
    for found in rendering.rendered(use):
        kubernetes_validate.validate(found, version, strict=True)


def test_an_unknown_field_is_rejected() -> None:
    service = {**rendering.of_kind("Service")["hello-server"], "spce": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, NEWEST, strict=True)
