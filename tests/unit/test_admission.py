"""Who may connect, by the SPIFFE id of a certificate."""

import pytest

from xds_server.admission import Admission
from xds_server.errors import ForbiddenError
from xds_server.model.identity import Identity, parse

SHOP = "spiffe://cluster.local/ns/shop/sa/checkout"


def test_a_spiffe_id_names_a_service_account() -> None:
    identity = Admission("cluster.local").identify([SHOP])
    assert identity == Identity("cluster.local", "shop", "checkout")
    assert str(identity) == SHOP


def test_without_a_certificate_nobody_is_known() -> None:
    assert Admission("cluster.local", ["nobody"]).identify(None) is None


@pytest.mark.parametrize(
    "ids",
    [
        [],
        [SHOP, "spiffe://cluster.local/ns/b/sa/c"],
        ["spiffe://other.example/ns/shop/sa/checkout"],
        ["spiffe://cluster.local/ns/shop"],
        ["spiffe://cluster.local/ns/shop/sa/checkout/x"],
        ["spiffe://cluster.local/ns/shop/../bank/sa/checkout"],
        ["spiffe://cluster.local/ns/SHOP/sa/checkout"],
        ["spiffe://cluster.local/ns/shop/sa/"],
        ["spiffe://cluster.local/ns/shop/sa/check%6Fut"],
        ["https://cluster.local/ns/shop/sa/checkout"],
        [SHOP + "\n"],
    ],
)
def test_other_ids_are_refused_with_the_form_that_is_expected(ids: list[str]) -> None:
    with pytest.raises(ForbiddenError, match="/ns/NAMESPACE/sa/ACCOUNT"):
        Admission("cluster.local").identify(ids)


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        (SHOP, True),
        ("spiffe://cluster.local/ns/shop/sa/*", True),
        ("spiffe://cluster.local/ns/*/sa/checkout", True),
        ("*", True),
        ("spiffe://cluster.local/ns/shop/sa/check", False),
        ("spiffe://cluster.local/ns/bank/sa/*", False),
    ],
)
def test_patterns_say_who_may_connect(pattern: str, allowed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    admission = Admission("cluster.local", ["spiffe://cluster.local/ns/z/sa/z", pattern])
    if allowed:
        assert admission.identify([SHOP]) == parse(SHOP)
    else:
        with pytest.raises(ForbiddenError, match="ALLOWED_CLIENTS"):
            admission.identify([SHOP])
