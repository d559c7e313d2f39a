"""Services from files: what a person does to files, and what editors do to them."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest
import watchfiles
import yaml
from structlog.testing import capture_logs

from servicekit.errors import ConfigurationError
from tests.discovery.found import Found
from tests.support.api_stub import endpoint_slice, service
from tests.support.policies import policy
from xds_server import metrics
from xds_server.files import FilesSource
from xds_server.objects.kinds import GRPC_BACKEND_POLICY, KINDS

ONE = {"web.shop": ["10.0.0.1:8080"]}
TWO = {"web.shop": ["10.0.0.1:8080", "10.0.0.2:8080"]}


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "web.yaml", service(), endpoint_slice("10.0.0.1"))
    return tmp_path


def write(path, *documents):
    """Whole or not at all, as a careful tool writes."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(yaml.dump_all(documents))
    draft.rename(path)


@contextlib.asynccontextmanager
async def discover(folder, *, kinds=KINDS, namespaces=(), poll_interval=60, watch=True):
    found = Found(kinds, namespaces)
    found.source = FilesSource(
        found.store,
        found.collections,
        directory=folder,
        poll_interval=poll_interval,
        watch=watch,
    )
    task = asyncio.create_task(found.source.run())
    try:
        yield found
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_files_are_followed(folder):
    async with discover(folder) as found:
        await found.until_known(ONE)
        write(folder / "more.yml", endpoint_slice("10.0.0.2", name="web-2"))
        await found.until_known(TWO)
        (folder / "more.yml").unlink()
        await found.until_known(ONE)


async def test_a_file_that_is_replaced_by_renaming(folder):
    async with discover(folder) as found:
        await found.until_known(ONE)
        draft = folder / ".web.yaml"
        draft.write_text(yaml.dump_all([service(), endpoint_slice("10.0.0.1", "10.0.0.2")]))
        draft.rename(folder / "web.yaml")
        await found.until_known(TWO)


async def test_a_file_that_is_written_in_place(folder):
    async with discover(folder) as found:
        await found.until_known(ONE)
        (folder / "web.yaml").write_text(yaml.dump_all([service(), endpoint_slice("10.0.0.1", "10.0.0.2")]))
        await found.until_known(TWO)


async def test_polling_alone(folder):
    async with discover(folder, watch=False, poll_interval=1) as found:
        await found.until_known(ONE)
        write(folder / "web.yaml", service(), endpoint_slice("10.0.0.1", "10.0.0.2"))
        await found.until_known(TWO)


async def test_without_notifications_the_polls_go_on(folder, monkeypatch):
    def no_more(*_, **__):
        raise OSError("inotify watch limit reached")

    monkeypatch.setattr(watchfiles, "awatch", no_more)
    with capture_logs() as logs:
        async with discover(folder, poll_interval=1) as found:
            await found.until_known(ONE)
            write(folder / "web.yaml", service(), endpoint_slice("10.0.0.1", "10.0.0.2"))
            await found.until_known(TWO)
    assert "inotify watch limit reached" in {e.get("reason") for e in logs}


async def test_json_and_lists(tmp_path):
    items = [service(), endpoint_slice("10.0.0.1")]
    (tmp_path / "all.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    bare = {key: value for key, value in service("api").items() if key in ("metadata", "spec")}
    (tmp_path / "api.json").write_text(
        json.dumps({"apiVersion": "v1", "kind": "ServiceList", "items": [bare]})
    )
    async with discover(tmp_path) as found:
        await found.until_known({**ONE, "api.shop": []})


async def test_other_kinds_and_other_files_do_not_matter(folder):
    write(folder / "pod.yaml", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}, None)
    (folder / "notes.txt").write_text("}{")
    with capture_logs() as logs:
        async with discover(folder) as found:
            await found.until_known(ONE)
    assert [e for e in logs if e["log_level"] != "info"] == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("kind: [", "did not find expected node content"),
        ("", "it is empty; delete it to remove its objects"),
        ("just text", "expected a Kubernetes object, got str"),
        ("kind: Service", "expected a Kubernetes object, with apiVersion and kind"),
        ("a: &a [*a, *a]\nb: \xff", "expected a Kubernetes object"),
    ],
)
async def test_a_file_that_stops_parsing_keeps_its_last_good_objects(folder, content, reason):
    with capture_logs() as logs:
        async with discover(folder) as found:
            await found.until_known(ONE)
            (folder / "web.yaml").write_text(content)
            write(folder / "more.yaml", service("api"))
            await found.until_known({**ONE, "api.shop": []})
            write(folder / "web.yaml", service(), endpoint_slice("10.0.0.1", "10.0.0.2"))
            await found.until_known({**TWO, "api.shop": []})
    lines = [e for e in logs if e["event"] == "file can't be read; its last good objects stay served"]
    assert len(lines) == 1
    assert lines[0]["file"] == "web.yaml"
    assert reason in lines[0]["reason"]


async def test_a_malformed_object_harms_only_itself_and_keeps_what_it_was(folder):
    with capture_logs() as logs:
        async with discover(folder) as found:
            await found.until_known(ONE)
            write(folder / "web.yaml", service(), {**endpoint_slice(), "endpoints": 7}, service("api"))
            await found.until_known({**ONE, "api.shop": []})
    [line] = [e for e in logs if e["event"] == "object is malformed; keeping its last valid version"]
    assert line["reason"].startswith("EndpointSlice shop/web-1: ")
    assert line["kept"]


async def test_a_malformed_security_policy_closes_what_it_targets(folder):
    """Without it, the Service would be open to all. One that was valid before stays as it was."""
    spec: dict[str, Any] = {"tls": {"mode": "Simple", "subjectAltNames": ["web.shop"]}, "timeout": 5}
    write(folder / "policy.yaml", policy(**spec))
    async with discover(folder) as found:
        await found.until_known(ONE)
        [problem] = found.store.problems
        assert "timeout" in problem.reason
        assert problem.reason.endswith("this is closed: Service web")
        write(folder / "policy.yaml", policy(**spec | {"timeout": "5s"}))
        await found.until(lambda: not found.store.problems, "it is mended")
        write(folder / "policy.yaml", policy(**spec))
        write(folder / "api.yaml", service("api"))
        await found.until_known({**ONE, "api.shop": []})
        assert not found.store.problems
        write(folder / "policy.yaml", policy(timeout=5))
        await found.until(lambda: not found.store.problems, "it is no security policy any more")


async def test_of_two_objects_of_one_name_the_first_counts(folder):
    write(folder / "zzz.yaml", endpoint_slice("10.9.9.9"))
    with capture_logs() as logs:
        async with discover(folder) as found:
            await found.until_known(ONE)
    assert [e["object"] for e in logs if "defined twice" in e["event"]] == ["shop/web-1"]


async def test_a_folder_that_vanishes_takes_nothing_with_it(folder):
    with capture_logs() as logs:
        async with discover(folder, poll_interval=1) as found:
            await found.until_known(ONE)
            folder.rename(folder.with_name("elsewhere"))
            await found.always(lambda: found.addresses() == ONE, 2)
            write(
                folder.with_name("elsewhere") / "web.yaml", service(), endpoint_slice("10.0.0.1", "10.0.0.2")
            )
            folder.with_name("elsewhere").rename(folder)
            await found.until_known(TWO)
    lines = [e["event"] for e in logs if "directory can" in e["event"]]
    assert lines == ["directory can't be read; serving the last known state", "directory can be read again"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    found = Found()
    with pytest.raises(ConfigurationError, match=r"DISCOVERY_DIR=.*nowhere: no such directory"):
        FilesSource(
            found.store, found.collections, directory=tmp_path / "nowhere", poll_interval=60, watch=True
        )


async def test_json_is_parsed_as_json(tmp_path):
    """An escaped surrogate pair is valid JSON, and no valid YAML."""
    text = json.dumps(
        {**service(), "metadata": {**service()["metadata"], "annotations": {"a": "\U0001f600"}}}
    )
    assert r"\ud83d\ude00" in text
    (tmp_path / "web.json").write_text(text)
    (tmp_path / "slice.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(endpoint_slice("10.0.0.1")).encode())
    async with discover(tmp_path) as found:
        await found.until_known(ONE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Input data was truncated"),
        ("", "it is empty"),
        ("# a comment\n{}", "JSON is malformed"),
        ("[]", "expected a Kubernetes object, got list"),
        ("[" * 100_000, "recursion"),
        (b"\xff", "JSON is malformed"),
    ],
)
async def test_json_that_does_not_parse_harms_only_itself(folder, content, reason):
    (folder / "bad.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with capture_logs() as logs:
        async with discover(folder) as found:
            await found.until_known(ONE)
    [line] = [e for e in logs if e["log_level"] == "warning"]
    assert line["file"] == "bad.json"
    assert reason in line["reason"]


def bomb(first, level):
    """A YAML text of 20 levels, each of which refers to the one before it twice."""
    levels = "\n".join(f"l{n}: &l{n} " + level % (n - 1, n - 1) for n in range(1, 21))
    return f"apiVersion: v1\nkind: %s\nl0: &l0 {first}\n{levels}\n"


LISTS = bomb("{apiVersion: v1, kind: Pod}", "{apiVersion: v1, kind: List, items: [*l%d, *l%d]}") % "List"
LISTS += "items: [*l20]"
MERGES = bomb("{a: 1}", "{<<: [*l%d, *l%d]}") % "Pod"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("labels: {on: !!bool maybe}", "KeyError: 'maybe'"),
        ("a: !!float ''", "IndexError"),
        ("a: !!int ''", "IndexError"),
        ("a: !!timestamp foo", "AttributeError"),
        (f"{{apiVersion: v1, kind: Service, metadata: {{name: 0x{'f' * 4000}}}}}", "ValueError"),
        ("[" * 30_000, "nested more than 100 levels deep"),
        ("- " * 30_000, "nested more than 100 levels deep"),
        (LISTS, "aliases stand for more than 100000 nodes"),
        (MERGES, "aliases stand for more than 100000 nodes"),
        ("a: *a", "alias *a refers to no complete node before it"),
    ],
)
async def test_yaml_that_does_not_parse_harms_only_itself(folder, content, reason):
    write(folder / "bad.yaml", service("api"))
    with capture_logs() as logs:
        async with discover(folder, poll_interval=1) as found:
            await found.until_known({**ONE, "api.shop": []})
            counted = metrics.malformed.labels("file")._value.get()
            (folder / ".draft").write_text(content)
            (folder / ".draft").rename(folder / "bad.yaml")
            write(folder / "web.yaml", service(), endpoint_slice("10.0.0.1", "10.0.0.2"))
            await found.until_known({**TWO, "api.shop": []})
            write(folder / "web.yaml", service(), endpoint_slice("10.0.0.1"))
            await found.until_known({**ONE, "api.shop": []})
    [line] = [e for e in logs if e["log_level"] == "warning"]
    assert line["file"] == "bad.yaml"
    assert reason in line["reason"]
    assert metrics.malformed.labels("file")._value.get() == counted + 1


async def test_aliases_and_merge_keys_are_understood(folder):
    items = json.dumps([endpoint_slice("10.0.0.2", name="web-2")])
    labels = json.dumps(endpoint_slice()["metadata"]["labels"])
    assert labels in items
    (folder / "more.yaml").write_text(
        f"labels: &labels {labels}\n"
        f"apiVersion: v1\nkind: List\nitems: {items.replace(labels, '{<<: *labels}')}\n"
    )
    async with discover(folder) as found:
        await found.until_known(TWO)


async def test_a_file_of_too_many_objects_harms_only_itself(folder):
    items = [{"metadata": {"name": "many"}}] * 100_001
    (folder / "many.json").write_text(json.dumps({"apiVersion": "v1", "kind": "ServiceList", "items": items}))
    with capture_logs() as logs:
        async with discover(folder) as found:
            await found.until_known(ONE)
    [line] = [e for e in logs if e["log_level"] == "warning"]
    assert line["reason"] == "it has more than 100000 objects; split it into several files"


HUNG = """
import asyncio, pathlib, sys, threading
from xds_server.files import FilesSource
from xds_server.mesh.store import Store
from xds_server.objects.kinds import KINDS, collections

class Hung(type(pathlib.Path())):
    def iterdir(self):
        loop.call_soon_threadsafe(task.cancel)
        threading.Event().wait()

async def main():
    global loop, task
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    every = collections(KINDS)
    store = Store(every, lambda changes: None)
    await FilesSource(store, every, directory=Hung(sys.argv[1]), poll_interval=60, watch=True).run()

try:
    asyncio.run(main())
except asyncio.CancelledError:
    print("ended")
"""


def test_a_read_that_hangs_does_not_keep_the_process_from_ending(folder):
    ended = subprocess.run(
        [sys.executable, "-c", HUNG, folder], capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout.endswith("ended\n")


@pytest.mark.parametrize("name", [".venv", ".git", "node_modules", "__pycache__"])
async def test_notifications_do_not_depend_on_the_name_of_the_folder(tmp_path, name):
    folder = tmp_path / name / "services"
    folder.mkdir(parents=True)
    write(folder / "web.yaml", service(), endpoint_slice("10.0.0.1"))
    async with discover(folder) as found:
        await found.until_known(ONE)
        write(folder / "web.yaml", service(), endpoint_slice("10.0.0.1", "10.0.0.2"))
        await found.until_known(TWO)
        # The scan that begins the notifications may have found that; only a notification tells of this.
        write(folder / "web.yaml", service(), endpoint_slice("10.0.0.1"))
        await found.until_known(ONE)


async def test_a_link_whose_target_is_missing_keeps_its_objects(folder):
    target = folder / "web.target"
    (folder / "web.yaml").rename(target)
    (folder / "web.yaml").symlink_to(target)
    with capture_logs() as logs:
        async with discover(folder, poll_interval=1) as found:
            await found.until_known(ONE)
            target.rename(folder / "elsewhere")
            write(folder / "api.yaml", service("api"))
            await found.until_known({**ONE, "api.shop": []})
            (folder / "elsewhere").rename(target)
            await found.until(lambda: "file can be read again" in {e["event"] for e in logs}, "read again")
            (folder / "web.yaml").unlink()
            await found.until_known({"api.shop": []})
    assert [e["file"] for e in logs if e["log_level"] == "warning"] == ["web.yaml"]


async def test_a_folder_that_has_no_objects_any_more_is_logged_once(folder):
    with capture_logs() as logs:
        async with discover(folder, poll_interval=1) as found:
            await found.until_known(ONE)
            (folder / "web.yaml").unlink()
            await found.until_known({})
            scanned = len(found.publications)
            write(folder / "api.yaml", service("api"))
            await found.until_known({"api.shop": []})
            assert len(found.publications) > scanned
    [line] = [e for e in logs if e["log_level"] == "warning"]
    assert line["event"] == "the directory has no objects any more; all are removed"
    assert line["removed"] == 2
    assert "volume is mounted" in line["hint"]


async def test_an_unreadable_file_is_logged_once_and_when_it_is_readable_again(folder):
    """A link into a loop stands for a file that the system refuses: it is refused to every user."""
    with capture_logs() as logs:
        async with discover(folder, poll_interval=1) as found:
            await found.until_known(ONE)
            counted = metrics.malformed.labels("file")._value.get()
            (folder / ".loop").symlink_to(".loop")
            (folder / ".loop").rename(folder / "web.yaml")
            for n in range(3):  # each is a scan that finds the file as it was
                write(folder / "api.yaml", service(f"api-{n}"))
                await found.until_known({**ONE, f"api-{n}.shop": []})
            assert metrics.malformed.labels("file")._value.get() == counted + 1
            write(folder / "web.yaml", service(), endpoint_slice("10.0.0.1", "10.0.0.2"))
            await found.until_known({**TWO, "api-2.shop": []})
    lines = [(e["event"], e["log_level"]) for e in logs if e.get("file") == "web.yaml"]
    assert lines == [
        ("file can't be read; its last good objects stay served", "warning"),
        ("file can be read again", "info"),
    ]


async def test_an_unreadable_file_is_read_as_soon_as_it_may_be(folder, tmp_path_factory):
    """Nothing in the folder changes, nor does the file: only the way to it."""
    outside = tmp_path_factory.mktemp("outside")
    write(outside / "more.yaml", endpoint_slice("10.0.0.2", name="web-2"))
    (folder / "more.yaml").symlink_to(outside / "way" / "more.yaml")
    async with discover(folder, poll_interval=1) as found:
        await found.until_known(ONE)
        (outside / "way").symlink_to(outside)
        await found.until_known(TWO)


def loop(path):
    path.symlink_to(path.name)


def unreadable(path):
    path.write_text("kind: [")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip(
            "this user may read every file; the symlink loop is refused by the system in the same way"
        )


def bad_date(path):
    path.write_text("since: 2001-99-99")


def nested_without_end(path):
    path.write_text("&a {apiVersion: v1, kind: List, items: [*a]}")


@pytest.mark.parametrize("make", [loop, os.mkfifo, os.mkdir, unreadable, bad_date, nested_without_end])
async def test_a_bad_path_harms_only_itself(folder, make):
    bad = folder / "bad.yaml"
    make(bad)
    counted = metrics.malformed.labels("file")._value.get()
    with capture_logs() as logs:
        async with discover(folder, poll_interval=1) as found:
            await found.until_known(ONE)
            write(folder / "web.yaml", service(), endpoint_slice("10.0.0.1", "10.0.0.2"))
            await found.until_known(TWO)
            write(folder / "web.yaml", service(), endpoint_slice("10.0.0.1"))
            await found.until_known(ONE)
            assert [e["file"] for e in logs if e["log_level"] == "warning"] == ["bad.yaml"], "logged once"
            assert metrics.malformed.labels("file")._value.get() == counted + 1
            (bad.rmdir if bad.is_dir() else bad.unlink)()
            write(bad, service("api"))
            await found.until_known({**ONE, "api.shop": []})


async def test_a_bad_path_keeps_what_its_file_had(folder):
    async with discover(folder) as found:
        await found.until_known(ONE)
        (folder / "web.yaml").unlink()
        loop(folder / "web.yaml")
        write(folder / "api.yaml", service("api"))
        await found.until(lambda: "api.shop" in found.addresses(), "the other file known")


async def test_only_the_namespaces_that_are_named(folder):
    write(folder / "other.yaml", service("other", namespace="elsewhere"))
    async with discover(folder, namespaces=["shop", "shop"]) as found:
        await found.until_known(ONE)


async def test_notifications_that_break_off_are_logged_once(folder, monkeypatch):
    async def breaks(*_, **__):
        yield set()
        raise RuntimeError("error in underlying watcher")

    monkeypatch.setattr(watchfiles, "awatch", breaks)
    with capture_logs() as logs:
        async with discover(folder, poll_interval=1) as found:
            await found.until_known(ONE)
            write(folder / "web.yaml", service(), endpoint_slice("10.0.0.1", "10.0.0.2"))
            await found.until_known(TWO)
    assert [e["reason"] for e in logs if e["log_level"] == "warning"] == ["error in underlying watcher"]


async def test_fields_that_a_kind_does_not_have_are_ignored_and_named(folder):
    mistaken = policy(timeout="10s", retries={"codes": ["UNAVAILABLE"]})
    with capture_logs() as logs:
        write(folder / "policy.yaml", mistaken)
        async with discover(folder) as found:
            await found.until_known(ONE)
            key = (mistaken["metadata"]["namespace"], mistaken["metadata"]["name"])
            known = found.store.find(GRPC_BACKEND_POLICY, key)
            assert known.spec.timeout == "10s"
            write(folder / "more.yml", endpoint_slice("10.0.0.2", name="web-2"))
            await found.until_known(TWO)
    [line] = [line for line in logs if "fields" in line]
    assert line["file"] == "policy.yaml"
    assert line["object"] == "shop/web"
    assert line["fields"] == "spec.retries (did you mean retry?)"
