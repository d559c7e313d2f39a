"""Kubernetes objects from the bytes of a YAML or JSON file, with bounds on what a small file can cost.

This module must not know about file systems.
"""

import codecs
import itertools
from typing import Any

import msgspec
import yaml

from xds_server.errors import MalformedObjectError
from xds_server.objects import documents

MAX_DOCUMENTS = 100_000
"""Objects of known kinds in one file."""
MAX_DEPTH = 100
"""Levels of nesting in a YAML document. libyaml's loader recurses in C, so deep nesting would overflow the stack."""
MAX_NODES = 5_000_000
"""Values in one YAML file: some 400,000 endpoints. Each takes many times its bytes as an object."""
MAX_COPIED_NODES = 100_000
"""Nodes that the aliases of one YAML file may stand for. Nested aliases and merge keys grow exponentially."""

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_json(data: bytes, kinds: documents.Kinds) -> list[dict[str, Any]]:
    """Returns the documents of known kinds in a JSON file.

    Raises:
        MalformedObjectError: It holds something else than Kubernetes objects, or exceeds a bound.
        Exception: It is not JSON; msgspec's errors, ValueError and RecursionError among others.
    """
    return _flatten([msgspec.json.decode(data.removeprefix(codecs.BOM_UTF8))], kinds)


def parse_yaml(data: bytes, kinds: documents.Kinds) -> list[dict[str, Any]]:
    """Returns the documents of known kinds in a YAML file.

    Raises:
        MalformedObjectError: It holds something else than Kubernetes objects, or exceeds a bound.
        Exception: It is not YAML. PyYAML lets errors of any type pass, such as KeyError for ``!!bool maybe``.
    """
    text = data.decode()
    check_bounds(text)
    return _flatten(list(yaml.load_all(text, Loader=LOADER)), kinds)


def _flatten(parsed: list[Any], kinds: documents.Kinds) -> list[dict[str, Any]]:
    every = (item for each in parsed if each is not None for item in documents.flatten(each, kinds))
    found = list(itertools.islice(every, MAX_DOCUMENTS + 1))
    if len(found) > MAX_DOCUMENTS:
        raise MalformedObjectError(f"it has more than {MAX_DOCUMENTS} objects; split it into several files")
    return found


def check_bounds(text: str, max_nodes: int = MAX_NODES) -> None:
    """Reads the events of a YAML text, which costs no recursion and no copies, before anything is built from it.

    Raises:
        MalformedObjectError: It is too deep or too long, or its aliases stand for too much.
        yaml.YAMLError: It is not YAML.
    """
    nodes = copied = 0
    sizes: dict[str | None, int] = {}  # by anchor; no alias asks for None
    opened: list[tuple[str | None, int]] = []  # each open collection: its anchor, and the nodes before it
    for event in yaml.parse(text, Loader=LOADER):
        if nodes > max_nodes:
            raise MalformedObjectError(f"it has more than {max_nodes} values; split it into several files")
        if isinstance(event, yaml.ScalarEvent):
            nodes += 1
            sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, nodes))
            nodes += 1
            if len(opened) > MAX_DEPTH:
                raise MalformedObjectError(f"it is nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            sizes[anchor] = nodes - before
        elif isinstance(event, yaml.AliasEvent):
            size = _alias_size(event.anchor, sizes)
            nodes += size
            copied += size
            if copied > MAX_COPIED_NODES:
                raise MalformedObjectError(f"its aliases stand for more than {MAX_COPIED_NODES} nodes")
        elif isinstance(event, yaml.DocumentStartEvent):
            sizes.clear()


def _alias_size(anchor: str | None, sizes: dict[str | None, int]) -> int:
    """The nodes that an alias stands for."""
    if anchor not in sizes:  # it is undefined, or its node contains the alias
        raise MalformedObjectError(
            f"expected a Kubernetes object, but alias *{anchor} refers to no complete node before it"
        )
    return sizes[anchor]
