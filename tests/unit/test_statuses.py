"""How our part of a status is merged into the status that an object has."""

from xds_server.mesh.statuses import (
    ANCESTORS,
    CONTROLLER,
    PARENTS,
    Condition,
    Status,
    StatusEntry,
    is_outdated,
    merge,
)

REF = {"group": "", "kind": "Service", "name": "web"}
FOREIGN = {
    "parentRef": {"name": "gateway"},
    "controllerName": "example.com/other",
    "conditions": [],
    "more": 1,
}
NOON, LATER = "2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z"


def wanted(*, accepted=True, generation=1, refs=(REF,), reason="Accepted"):
    return Status(
        generation,
        tuple(StatusEntry(ref, (Condition("Accepted", accepted, reason, "text"),)) for ref in refs),
    )


def written(status=None, *, now=NOON, current=None, fields=PARENTS):
    entries = merge(current, status or wanted(), fields, now)
    assert entries is not None
    return {fields.entries: entries}


def test_a_first_status():
    assert written() == {
        "parents": [
            {
                "parentRef": REF,
                "controllerName": CONTROLLER,
                "conditions": [
                    {
                        "type": "Accepted",
                        "status": "True",
                        "observedGeneration": 1,
                        "lastTransitionTime": NOON,
                        "reason": "Accepted",
                        "message": "text",
                    }
                ],
            }
        ]
    }
    assert "ancestorRef" in written(fields=ANCESTORS)["ancestors"][0]


def test_equal_content_is_not_written():
    assert merge(written(), wanted(), PARENTS, LATER) is None


def test_the_time_of_a_transition_is_kept_while_the_status_stays():
    [entry] = written(wanted(generation=2), now=LATER, current=written())["parents"]
    assert entry["conditions"][0]["observedGeneration"] == 2
    assert entry["conditions"][0]["lastTransitionTime"] == NOON
    [entry] = written(wanted(accepted=False), now=LATER, current=written())["parents"]
    assert entry["conditions"][0]["lastTransitionTime"] == LATER


def test_entries_of_other_controllers_stay_as_they_are():
    current = {"parents": [FOREIGN, *written()["parents"]]}
    assert merge(current, wanted(), PARENTS, LATER) is None
    assert written(wanted(generation=2), current=current)["parents"][0] == FOREIGN
    assert merge(current, Status(1, ()), PARENTS, LATER) == [FOREIGN]
    assert merge({"parents": [FOREIGN]}, Status(1, ()), PARENTS, LATER) is None


def test_malformed_statuses_harm_nothing():
    for current in ({"parents": "text"}, {"parents": None}, {}, None):
        assert written(current=current)["parents"] == written()["parents"]
    broken = ["text", {"controllerName": CONTROLLER, "conditions": "text"}, {"controllerName": CONTROLLER}]
    entries = written(current={"parents": broken})["parents"]
    assert entries == ["text", *written()["parents"]]


def test_ours_are_cut_where_there_is_no_room():
    refs = tuple({**REF, "name": f"web-{n}"} for n in range(40))
    assert len(written(wanted(refs=refs))["parents"]) == 32
    assert len(written(wanted(refs=refs), current={"parents": [FOREIGN] * 30})["parents"]) == 32
    assert len(written(wanted(refs=refs), fields=ANCESTORS)["ancestors"]) == 16


def test_a_long_message_is_cut():
    status = Status(1, (StatusEntry(REF, (Condition("Accepted", True, "Accepted", "x" * 100_000),)),))
    assert len(written(status)["parents"][0]["conditions"][0]["message"]) == 4_096


def test_a_status_is_outdated_until_it_speaks_of_the_generation():
    assert is_outdated(None, wanted(), PARENTS)
    assert not is_outdated(written(), wanted(accepted=False), PARENTS)
    assert is_outdated(written(), wanted(generation=2), PARENTS)
