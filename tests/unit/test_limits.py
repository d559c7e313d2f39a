"""What clients may hold: of one address, and all together."""

import pytest

from xds_server.ads.limits import Limits, Usage
from xds_server.errors import ExhaustedError

LIMITS = Limits(
    streams=5,
    streams_of_peer=3,
    reserved_streams=0,
    names=100,
    names_of_peer=60,
    reserved_names=20,
    few_names=10,
)


def test_streams_of_one_address_and_of_all():
    usage = Usage(LIMITS)
    first = [usage.open("a") for _ in range(3)]
    with pytest.raises(ExhaustedError, match="a has 3 streams open, as many as one address may"):
        usage.open("a")
    second = [usage.open("b") for _ in range(2)]
    with pytest.raises(ExhaustedError, match="5 streams are open"):
        usage.open("c")
    first.pop().close()
    second.append(usage.open("c"))
    for allowance in first + second:
        allowance.close()
    assert [usage.open(peer) for peer in "aaabb"]


def test_addresses_with_few_streams_may_use_the_reserve_and_others_may_not():
    usage = Usage(Limits(streams=10, streams_of_peer=8, reserved_streams=2, few_streams=1))
    held = [usage.open("a") for _ in range(6)]
    held += [usage.open("b") for _ in range(2)]
    with pytest.raises(ExhaustedError, match=r"8 streams are open, .* for addresses with 1 or more"):
        usage.open("b")
    held += [usage.open("c"), usage.open("d")]
    with pytest.raises(ExhaustedError, match="10 streams are open"):
        usage.open("e")
    for allowance in held:
        allowance.close()


def test_names_of_one_address_count_over_all_of_its_streams():
    usage = Usage(LIMITS)
    one, other = usage.open("a"), usage.open("a")
    one.hold(40)
    other.hold(20)
    with pytest.raises(ExhaustedError, match="a would subscribe to 61 names, over the bound of 60 for one"):
        other.hold(21)
    one.hold(39)
    other.hold(21)
    one.close()
    other.hold(60)


def test_a_refused_number_changes_nothing():
    usage = Usage(LIMITS)
    allowance = usage.open("a")
    allowance.hold(60)
    with pytest.raises(ExhaustedError):
        allowance.hold(70)
    allowance.close()
    usage.open("a").hold(60)


def test_addresses_with_few_names_may_use_the_reserve_and_others_may_not():
    usage = Usage(LIMITS)
    usage.open("a").hold(60)
    greedy, modest = usage.open("b"), usage.open("c")
    greedy.hold(20)
    with pytest.raises(ExhaustedError, match="over the bound of 80 for addresses with more than 10"):
        greedy.hold(21)
    modest.hold(10)
    usage.open("d").hold(10)
    with pytest.raises(ExhaustedError, match="all clients together would subscribe to 101 names"):
        usage.open("e").hold(1)


def test_fewer_names_are_always_allowed():
    usage = Usage(LIMITS)
    usage.open("a").hold(60)
    greedy = usage.open("b")
    greedy.hold(20)
    usage.open("c").hold(10)
    greedy.hold(19)
