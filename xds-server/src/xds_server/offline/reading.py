"""Documents of Kubernetes objects in files, each with the lines of its fields.

Documents that are no Kubernetes objects, and kinds that the server does not read, are left out: a repository has many.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from servicekit.errors import ConfigurationError
from xds_server.errors import MalformedObjectError
from xds_server.files import parsing
from xds_server.objects import documents
from xds_server.objects.kinds import KINDS

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".json")
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")

BY_NAME: documents.Kinds = {(kind.api_version, kind.name): kind for kind in KINDS}

Lines = Mapping[str, int]
"""The line of each field, by its path, such as ``spec.rules[0].matches``. The document itself has an empty path."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document of a kind that the server reads.

    Attributes:
        file: Where it is.
        content: As it was parsed.
        lines: Of its fields.
    """

    file: str
    content: dict[str, Any]
    lines: Lines

    def line(self, path: str) -> int:
        """The line of a field, or of the nearest field around it that is there."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines[path]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file, or a document of one, that can't be read.

    Attributes:
        file: Where it is.
        line: In the file.
        reason: What is wrong.
    """

    file: str
    line: int
    reason: str


def find(paths: Iterable[str]) -> list[str]:
    """The files to read: those that are named, and those of folders that are named, at any depth.

    Raises:
        ConfigurationError: There is no such file.
    """
    found: list[str] = []
    for path in paths:
        if path == STDIN or Path(path).is_file():
            found.append(path)
        elif Path(path).is_dir():
            found += sorted(str(file) for file in Path(path).rglob("*") if _is_wanted(file, Path(path)))
        else:
            raise ConfigurationError(f"{path}: no such file or folder")
    return list(dict.fromkeys(found))


def read(files: Iterable[str]) -> Iterator[Document | Unreadable]:
    """Yields the documents of files, and what can't be read."""
    for file in files:
        try:
            text = (sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()).decode()
            parsing.check_bounds(text)
            yield from _documents(file, text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            yield Unreadable(
                file, mark.line + 1 if mark else 1, f"this is not YAML: {error.problem or error}"
            )
        except Exception as error:  # noqa: BLE001 - PyYAML lets errors of any type pass
            known = isinstance(error, MalformedObjectError | OSError)
            yield Unreadable(file, 1, str(error) if known else f"{type(error).__name__}: {error}")


def _is_wanted(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return file.suffix in SUFFIXES and file.name not in KUSTOMIZATIONS and not hidden and file.is_file()


def _documents(file: str, text: str) -> Iterator[Document | Unreadable]:
    # JSON is YAML, too.
    loader = parsing.LOADER(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            for line, name in _repeated(node):
                yield Unreadable(file, line, f"the field {name} is there twice; the last one counts")
            yield from _of_known_kinds(file, loader.construct_document(node), node)
    finally:
        loader.dispose()


def _of_known_kinds(file: str, content: object, node: yaml.Node) -> Iterator[Document]:
    """Yields the documents in a document: a List has several."""
    if not isinstance(content, dict) or not isinstance(kind := content.get("kind"), str):
        return
    items = content.get("items")
    if kind.endswith("List") and isinstance(items, list):
        nodes = _child(node, "items")
        implied = (
            {}
            if kind == "List"
            else {"apiVersion": content.get("apiVersion"), "kind": kind.removesuffix("List")}
        )
        for item, inner in zip(items, nodes.value if nodes else (), strict=False):
            if isinstance(item, dict):
                yield from _of_known_kinds(file, {**implied, **item}, inner)
    elif (content.get("apiVersion"), kind) in BY_NAME:
        yield Document(file, content, dict(_lines(node, "")))


def _repeated(node: yaml.Node) -> Iterator[tuple[int, str]]:
    """Yields the line and the name of each field that stands twice in one mapping: YAML forbids that, PyYAML doesn't."""
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            if isinstance(key.value, str):
                if key.value in names and key.value != "<<":
                    yield key.start_mark.line + 1, key.value
                names.add(key.value)
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated(value)


def _child(node: yaml.Node, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _lines(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    """Yields the path and the line of a node and of all nodes in it."""
    yield path, node.start_mark.line + 1
    children: Sequence[tuple[str, yaml.Node, yaml.Node]] = ()
    if isinstance(node, yaml.MappingNode):
        children = [
            (f"{path}.{key.value}" if path else str(key.value), key, value) for key, value in node.value
        ]
    elif isinstance(node, yaml.SequenceNode):
        children = [(f"{path}[{index}]", value, value) for index, value in enumerate(node.value)]
    for name, key, value in children:
        for inner, line in _lines(value, name):
            # A field is where its name is: its value may begin in the next line.
            yield inner, key.start_mark.line + 1 if inner == name else line
