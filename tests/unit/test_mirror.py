"""Lists and events of one collection, in every order in which they may arrive."""

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from xds_server.kubernetes.mirror import Mirror, is_newer
from xds_server.objects.core import Service
from xds_server.objects.kinds import SERVICE, Collection
from xds_server.objects.meta import IdentifiedMetadata, Key, Object, key

ALL = Collection(SERVICE)
WEB, API = ("shop", "web"), ("shop", "api")


class State:
    """The simplest store there can be."""

    def __init__(self) -> None:
        self.items: dict[Key, Object] = {}
        self.listed = False

    def get(self, _: Collection, name: Key) -> Object | None:
        return self.items.get(name)

    def replace(self, lists: Mapping[Collection, Iterable[Object]]) -> None:
        self.listed = True
        self.items = {key(item): item for item in lists[ALL]}

    def put(self, _: Collection, item: Object) -> None:
        self.items[key(item)] = item

    def remove(self, _: Collection, name: Key) -> None:
        self.items.pop(name, None)

    def contents(self) -> dict[Key, str]:
        return {name: text(item) for name, item in self.items.items()}


def thing(name: Key, content: object = "") -> Service:
    return Service(IdentifiedMetadata(name=name[1], namespace=name[0], labels={"content": str(content)}))


def text(item: Object) -> str:
    return str((item.metadata.labels or {})["content"])


@pytest.fixture
def state():
    return State()


@pytest.fixture
def mirror(state):
    mirror = Mirror(state, ALL)
    mirror.list_began()
    mirror.listed("10", [thing(WEB, 10)], [], 1.0)
    return mirror


def test_a_list_is_applied_and_confirmed(state, mirror):
    assert state.contents() == {WEB: "10"}
    assert mirror.confirmed == 1


def test_an_event_that_is_older_than_the_list_is_ignored(state, mirror):
    mirror.changed("9", WEB, None, 2.0)
    mirror.changed("10", WEB, thing(WEB, "stale"), 3.0)
    assert state.contents() == {WEB: "10"}
    assert mirror.confirmed == 3, "the source is alive, all the same"


def test_events_that_come_while_a_list_is_read_are_applied_at_once_and_survive_it(state, mirror):
    mirror.list_began()
    mirror.changed("12", WEB, None, 2.0)
    mirror.changed("13", API, thing(API, 13), 2.0)
    assert state.contents() == {API: "13"}
    mirror.listed("11", [thing(WEB, 11)], [], 3.0)
    assert state.contents() == {API: "13"}


def test_a_list_that_is_newer_than_the_events_wins(state, mirror):
    mirror.list_began()
    mirror.changed("12", API, thing(API, 12), 2.0)
    mirror.listed("14", [thing(WEB, 14)], [], 3.0)
    assert state.contents() == {WEB: "14"}
    mirror.changed("13", API, thing(API, 13), 4.0)
    assert state.contents() == {WEB: "14"}
    mirror.changed("15", API, thing(API, 15), 5.0)
    assert state.contents() == {WEB: "14", API: "15"}


def test_events_before_a_list_was_requested_do_not_outlive_it_even_if_versions_went_back(state, mirror):
    mirror.changed("5000", WEB, thing(WEB, 5000), 2.0)
    mirror.list_began()
    mirror.listed("20", [thing(WEB, 20)], [], 3.0)
    assert state.contents() == {WEB: "20"}
    mirror.changed("21", WEB, thing(WEB, 21), 4.0)
    assert state.contents() == {WEB: "21"}


def test_a_failed_list_changes_nothing(state, mirror):
    mirror.list_began()
    mirror.changed("12", API, thing(API, 12), 2.0)
    mirror.list_failed()
    assert state.contents() == {WEB: "10", API: "12"}


def test_a_malformed_object_of_a_list_stays_as_it_was_last_understood(state, mirror):
    mirror.list_began()
    mirror.changed("12", WEB, thing(WEB, 12), 2.0)
    mirror.listed("14", [], [WEB, API], 3.0)
    assert state.contents() == {WEB: "12"}


def test_an_unavailable_collection_is_empty_only_if_nothing_is_known_of_it(state, mirror):
    mirror.list_began()
    mirror.unavailable(7.0)
    assert state.contents() == {WEB: "10"}
    assert mirror.confirmed == 1, "what is known is not confirmed"
    other = State()
    unknown = Mirror(other, ALL)
    unknown.unavailable(7.0)
    assert unknown.confirmed == 7
    assert other.listed
    assert other.contents() == {}


@pytest.mark.parametrize(
    ("version", "than", "newer"),
    [
        ("10", "9", True),
        ("9", "10", False),
        ("9", "9", False),
        ("", "9", True),
        ("9", "x", True),
        ("9" * 9999, "1", True),
    ],
)
def test_versions_are_compared_as_integers_and_the_unknown_is_newer(version, than, newer):
    assert is_newer(version, than) is newer


class Cluster(RuleBasedStateMachine):
    """A server with a history; a watch that may lag behind it, and lists that may arrive late.

    What is known is always exactly what the server had at the newest version that a list or an event told of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: list[tuple[Key, Service | None]] = []
        self.states: list[dict[Key, Service]] = [{}]
        self.watched = 0
        self.requested = False
        self.read: int | None = None
        self.state = State()
        self.mirror = Mirror(self.state, ALL)
        self.mirror.list_began()
        self.mirror.listed("0", [], [], 0.0)
        self.newest = 0

    @rule(name=strategies.sampled_from("abc"), present=strategies.booleans())
    def change(self, name: str, present: bool) -> None:  # noqa: FBT001 - hypothesis names it
        where = ("shop", name)
        item = thing(where, len(self.states)) if present else None
        after = {other: known for other, known in self.states[-1].items() if other != where}
        self.states.append({**after, where: item} if item else after)
        self.history.append((where, item))

    @precondition(lambda self: self.watched < len(self.history))
    @rule()
    def event(self) -> None:
        name, item = self.history[self.watched]
        self.watched += 1
        self.mirror.changed(str(self.watched), name, item, 0.0)
        self.newest = max(self.newest, self.watched)

    @precondition(lambda self: not self.requested)
    @rule()
    def request_list(self) -> None:
        self.mirror.list_began()
        self.requested = True

    @precondition(lambda self: self.requested and self.read is None)
    @rule()
    def read_list(self) -> None:
        self.read = len(self.history)

    @precondition(lambda self: self.read is not None)
    @rule()
    def list_arrives(self) -> None:
        assert self.read is not None
        self.mirror.listed(str(self.read), self.states[self.read].values(), [], 0.0)
        self.newest = max(self.newest, self.read)
        self.requested, self.read = False, None

    @precondition(lambda self: self.requested)
    @rule()
    def list_fails(self) -> None:
        self.mirror.list_failed()
        self.requested, self.read = False, None

    @invariant()
    def what_is_known_is_what_there_was_at_the_newest_version(self) -> None:
        assert self.state.items == self.states[self.newest]


TestCluster = Cluster.TestCase
