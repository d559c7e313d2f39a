#!/usr/bin/env python3
"""Draws the exchange on one ADS stream as a Mermaid sequence diagram, from xds-server's debug log.

    LOG_LEVEL=DEBUG LOG_FORMAT=json ./taskw local | tools/draw_exchange.py hello-client.default

reads until the demo ends (Ctrl-C) and draws the first stream of that node. docs/how-it-works.md has its output.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

VERBS = {"subscribe": "subscribe to", "ack": "ACK", "nack": "NACK", "stale": "(stale)"}


def read(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yields the events of a log; skips lines that are not JSON objects."""
    for line in lines:
        try:
            event = json.loads(line[line.find("{") :])
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def draw(events: Iterable[dict[str, Any]], node: str) -> Iterator[str]:
    """Yields the lines of the diagram."""
    events = list(events)
    opened = [e["stream"] for e in events if e["event"] == "stream opened" and e.get("node") == node]
    if not opened:
        raise SystemExit(f"draw_exchange: no stream of node {node!r} in this log")
    yield "sequenceDiagram"
    yield f"  participant C as {node.partition('.')[0]}"
    yield "  participant X as xds-server"
    for event in events:
        if event.get("stream") != opened[0]:
            continue
        names = ", ".join(map(str, event.get("names", ()))) or "nothing"
        if event["event"] == "request":
            answered = f" (nonce {event['nonce']})" if event["nonce"] else ""
            yield f"  C->>X: {event['type']} {VERBS.get(str(event['kind']), event['kind'])} {names}{answered}"
        elif event["event"] == "response":
            version = str(event["version"])[:8]
            yield f"  X->>C: {event['type']} {names} (version {version}…, nonce {event['nonce']})"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    print("\n".join(draw(read(sys.stdin), sys.argv[1])))
