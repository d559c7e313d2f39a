"""A third kind from the API and from files, without a line of code of its own; what an optional kind may lack."""

import pytest
import yaml
from structlog.testing import capture_logs

from tests.discovery.found import Found
from tests.discovery.test_files import discover as discover_files
from tests.discovery.widget import WITH_WIDGETS, size, widget
from tests.support.api_stub import endpoint_slice, service

ONE = {"web.shop": ["10.0.0.1:8080"]}


@pytest.fixture
def api(api):
    api.plurals["Widget"] = "widgets"
    return api


def lines(logs):
    return [(e["log_level"], e["event"].split(";")[0]) for e in logs if "/widgets" in e.get("path", "")]


GONE = ("info", "collection is not available")
BACK = ("info", "collection is available")
LOST = ("warning", "collection can't be read any more")
UNWATCHED = ("warning", "collection can be listed but not watched")


async def test_a_third_kind_is_listed_and_watched(api, discover):
    api.apply(widget(size=1))
    async with discover(kinds=WITH_WIDGETS) as found:
        await found.until(lambda: size(found) == 1, "the widget listed")
        assert api.count("/apis/example.com/v1/widgets?limit=") == 1
        await found.until(lambda: api.watchers("Widget") == 1, "watched")
        api.apply(widget(size=2))
        await found.until(lambda: size(found) == 2, "the widget changed")
        api.delete("Widget", "shop", "w")
        await found.until(lambda: size(found) is None, "the widget deleted")


@pytest.mark.parametrize("status", [403, 404])
async def test_an_optional_kind_holds_up_nothing_and_is_used_once_it_can_be_read(api, discover, status):
    api.refused = {"Widget": status}
    api.apply(widget())
    with capture_logs() as logs:
        async with discover(kinds=WITH_WIDGETS, poll_interval=1) as found:
            await found.until_known(ONE)
            await found.until(lambda: found.source.age() < 60, "confirmed")
            await found.until(lambda: api.count("widgets?limit=") >= 3, "tried at each poll")
            assert api.count("widgets?watch") == 0
            assert lines(logs) == [GONE]
            api.refused = {}
            await found.until(lambda: size(found) == 1, "the widget known")
            await found.until(lambda: api.watchers("Widget") == 1, "watched")
            api.apply(widget(size=2))
            await found.until(lambda: size(found) == 2, "the widget changed")
            assert lines(logs) == [GONE, BACK]


@pytest.mark.parametrize("status", [403, 404])
async def test_what_was_known_of_an_optional_kind_stays_known(api, discover, status):
    api.apply(widget(size=1))
    with capture_logs() as logs:
        async with discover(kinds=WITH_WIDGETS, poll_interval=1) as found:
            await found.until(lambda: size(found) == 1, "the widget known")
            await found.until(lambda: api.watchers("Widget") == 1, "watched")
            api.refused = {"Widget": status}
            api.end_watches()
            seen = api.count("widgets?limit=")
            await found.until(lambda: api.count("widgets?limit=") >= seen + 3, "tried at each poll")
            assert size(found) == 1
            assert lines(logs) == [LOST]
            # Polls that are refused confirm nothing: with one a second, the age would never exceed two seconds.
            await found.until(lambda: found.source.age() > 3, "unconfirmed for three seconds")
            api.apply(widget(size=2))
            api.refused = {}
            await found.until(lambda: size(found) == 2, "the change known")
            await found.until(lambda: found.source.age() < 1, "confirmed again")
            await found.until(lambda: BACK in lines(logs), "logged")
    assert lines(logs) == [LOST, BACK]
    [hint] = [e["hint"] for e in logs if "any more" in e["event"]]
    assert "grant get, list and watch on widgets" in hint


async def test_an_optional_kind_that_may_be_listed_but_not_watched_is_polled_with_a_warning(api, discover):
    api.apply(widget(size=1))
    api.refused_watches = {"Widget": 403}
    with capture_logs() as logs:
        async with discover(kinds=WITH_WIDGETS, poll_interval=1) as found:
            await found.until(lambda: size(found) == 1, "the widget known")
            await found.until(lambda: lines(logs), "logged")
            api.apply(widget(size=2))
            await found.until(lambda: size(found) == 2, "the change known")
            lists = api.count("widgets?limit=")
            await found.until(lambda: api.count("widgets?limit=") >= lists + 2, "listed at polls")
            assert lines(logs) == [UNWATCHED]
            api.refused_watches = {}
            await found.until(lambda: api.watchers("Widget") == 1, "watched")
            api.apply(widget(size=3))
            await found.until(lambda: size(found) == 3, "the change known")
            await found.until(lambda: len(lines(logs)) == 2, "logged")
    assert lines(logs) == [UNWATCHED, ("info", "collection is watched again")]
    assert "grant watch on widgets" in next(e["hint"] for e in logs if "not watched" in e["event"])


async def test_any_other_failure_of_an_optional_kind_is_an_outage(api, discover):
    api.refused = {"Widget": 500}
    with capture_logs() as logs:
        async with discover(kinds=WITH_WIDGETS) as found:
            await found.until(lambda: api.count("widgets?limit=") >= 3, "tried again")
            assert not found.publications
            api.refused = {}
            await found.until_known(ONE)
    assert lines(logs) == [
        ("warning", "Kubernetes API request failed"),
        ("info", "Kubernetes API answers again"),
    ]


@pytest.mark.parametrize("status", [403, 404])
async def test_a_required_kind_that_cannot_be_read_is_an_outage(api, discover, status):
    api.refused = {"EndpointSlice": status}
    with capture_logs() as logs:
        async with discover() as found:
            await found.until(lambda: api.count("endpointslices?limit=") >= 3, "tried again")
            assert not found.publications
            api.refused = {}
            await found.until_known(ONE)
    assert [e["reason"] for e in logs if e["log_level"] == "warning"] == [f"{status} the stub says {status}"]


async def test_a_third_kind_from_files(tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text(yaml.dump_all([service(), endpoint_slice("10.0.0.1"), widget(size=1)]))
    async with discover_files(tmp_path, kinds=WITH_WIDGETS) as found:
        await found.until(lambda: size(found) == 1, "the widget known")
        assert found.addresses() == ONE
        path.write_text(yaml.dump_all([service(), endpoint_slice("10.0.0.1"), widget(size=2)]))
        await found.until(lambda: size(found) == 2, "the widget changed")
        path.write_text(yaml.dump_all([service(), endpoint_slice("10.0.0.1")]))
        await found.until(lambda: size(found) is None, "the widget gone")


async def test_files_without_an_optional_kind(tmp_path):
    (tmp_path / "all.yaml").write_text(yaml.dump_all([service(), endpoint_slice("10.0.0.1")]))
    async with discover_files(tmp_path, kinds=WITH_WIDGETS) as found:
        await found.until_known(ONE)


def test_a_namespace_that_is_named_twice_is_one_collection():
    assert Found(namespaces=["shop", "shop"]).collections == Found(namespaces=["shop"]).collections
