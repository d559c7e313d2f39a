"""What lint finds in files, and where."""

from pathlib import Path

import pytest

from servicekit.errors import ConfigurationError
from xds_server.offline import reading
from xds_server.offline.lint import Finding, Level, lint

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ports: [{name: grpc, port: 80}]
"""
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
    - backendRefs: [{name: web, port: 80}]
"""
POLICY = """\
apiVersion: proxyless-grpc-lb.dev/v1alpha1
kind: GRPCBackendPolicy
metadata: {name: web}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  timeout: 10s
"""


def found(folder: Path, **files: str) -> list[tuple[str, int, str]]:
    """What is found in files: their names, lines, and levels with messages."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return [_short(each) for each in lint(reading.read(reading.find([str(folder)])))]


def _short(each: Finding) -> tuple[str, int, str]:
    return Path(each.file).stem, each.line, f"{each.level.value}: {each.message}"


def test_nothing_is_wrong(tmp_path: Path) -> None:
    assert found(tmp_path, a=f"{SERVICE}---\n{ROUTE}---\n{POLICY}") == []


def test_documents_that_are_no_objects_and_other_kinds_do_not_count(tmp_path: Path) -> None:
    other = "kind: Deployment\napiVersion: apps/v1\nmetadata: {name: a}\n---\n- a list\n---\n5\n---\nno: kind\n---\n"
    (tmp_path / "kustomization.yaml").write_text("resources: [a.yaml]")
    (tmp_path / ".hidden.yaml").write_text("a: [")
    (tmp_path / "text.txt").write_text("a: [")
    assert found(tmp_path, a=f"{other}{SERVICE}") == []


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: b\nc: [\n", 3, "this is not YAML"),
        ("a: !!bool maybe", 1, "KeyError"),
        ("a: &x [*x]", 1, "alias"),
        (SERVICE.replace("{name: web}", "{name: 5}"), 3, "Expected `str`, got `int`"),
        (SERVICE + ROUTE, 6, "apiVersion is there twice"),
        (f"{SERVICE}---\n{ROUTE.replace('backendRefs', 'backends')}", 13, "did you mean backendRefs?"),
        (
            f"{SERVICE}---\n{ROUTE}      matches: [{{method: {{type: RegularExpression, service: '('}}}}]\n",
            14,
            "RE2",
        ),
        (f"{SERVICE}---\n{ROUTE}      sessionPersistence: {{}}\n", 14, "sessionPersistence"),
        (f"{SERVICE}---\n{POLICY.replace('10s', '1s')}", 12, "spec.timeout is 1s; expected 5s to 24h"),
        (f"{SERVICE}---\n{POLICY}  retries: {{}}\n", 13, "did you mean retry?"),
        (f"{SERVICE}---\n{ROUTE.replace('port: 80', 'port: 81')}", 13, "BackendNotFound"),
        (f"{SERVICE}---\n{ROUTE.replace('name: web}]', 'name: web, port: 9}]', 1)}", 11, "no such TCP port"),
    ],
)
def test_what_is_wrong_is_found_where_it_is(tmp_path: Path, text: str, line: int, says: str) -> None:
    results = found(tmp_path, a=text)
    assert any(says in message and message.startswith("error: ") for _, _, message in results), results
    assert line in [number for _, number, message in results if says in message], results


def test_the_items_of_a_list_have_lines_of_their_own(tmp_path: Path) -> None:
    text = (
        "apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: Service\n    metadata: {name: 5}\n"
    )
    [(_, line, message)] = found(tmp_path, a=text)
    assert line == 6
    assert "Expected `str`" in message


def test_a_service_that_is_in_no_file_is_assumed_and_the_rest_is_judged(tmp_path: Path) -> None:
    bad = ROUTE.replace(
        "    - back", "    - matches: [{headers: [{name: user-agent, value: x}]}]\n      back"
    )
    notes = found(tmp_path, a=f"{bad}---\n{POLICY}")
    assert [message.partition(":")[0] for _, _, message in notes] == ["note", "error", "note"]
    assert "Service default/web is in none of the files" in notes[0][2]
    assert "user-agent" in notes[1][2]


def test_two_policies_for_one_target_are_in_conflict(tmp_path: Path) -> None:
    results = found(
        tmp_path, a=SERVICE, b=POLICY, c=POLICY.replace("{name: web}\nspec", "{name: web2}\nspec")
    )
    [(file, _, message)] = results
    assert file == "c"
    assert "Conflicted" in message


def test_variants_of_an_object_are_each_judged(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/b.yaml").write_text(POLICY.replace("10s", "1s"))
    (tmp_path / "other/c.yaml").write_text(POLICY.replace("10s", "2s"))
    results = found(tmp_path, a=f"{SERVICE}---\n{POLICY}")
    assert [(file, message.partition(":")[0]) for file, _, message in results] == [
        ("b", "error"),
        ("c", "warning"),
        ("c", "error"),
    ]
    assert "is the same object" in results[1][2]


def test_a_file_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file or folder"):
        reading.find([str(tmp_path / "gone")])


def test_every_finding_has_the_object_and_the_level(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(POLICY.replace("10s", "1s"))
    findings = lint(reading.read([str(tmp_path / "a.yaml")]))
    assert {(each.object, each.level) for each in findings} == {
        ("GRPCBackendPolicy default/web", Level.ERROR),
        ("GRPCBackendPolicy default/web", Level.NOTE),
    }
