"""A stand-in for the Kubernetes API server, over real HTTP: lists with pages, watches, and faults on command.

The one fake in these tests; everything behind it is the real thing. It keeps connections alive as HTTP/1.1 wants it: a
connection that is closed without "Connection: close" is a fault that a test asked for.
"""

import collections
import contextlib
import itertools
import json
import queue
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PLURALS = {"Service": "services", "EndpointSlice": "endpointslices"}
HISTORY = 10_000
"""Events that are kept for watches to resume."""
DRIP = 0.05
"""Seconds between two bytes of an answer that drips."""


class ApiStub:
    """Objects, watchers, and how requests are to fail.

    Attributes:
        fault: What every request gets instead of an answer: None, a status, "hang", "close" (hang up at once), "stale"
            (hang up on connections that were used before), "garbage", "drip head", "drip body" or "flood" (an answer
            that never ends).
        list_fault: The same for lists alone.
        watch_fault: The same for watches alone; also "end" (at once, politely), "expired" (an ERROR event, 410),
            "silence" (begun, and never a word), "cut" (begun, and hung up on at once) and "brief" (a bookmark, and
            hung up on).
        refused: The status that requests for a kind get, by kind.
        refused_watches: The same for watches alone.
        page_size: The most items of a page, whatever the limit of the request.
        page_delay: Seconds that each page takes.
        plurals: The kinds there are; a test may add one. Requests for others get 404.
        write_fault: The status that every write gets; None if they are carried out.
        refused_writes: The status that writes of an object get, by its name.
        requests: (time, path with query) of each request that reads.
        writes: (method, path, body, status of the answer) of each request that writes.
        events: Core Events by (namespace, name).
    """

    def __init__(self):
        self.fault = self.list_fault = self.watch_fault = None
        self.refused = {}
        self.refused_watches = {}
        self.retry_after = None
        self.page_size = None
        self.page_delay = 0
        self.plurals = dict(PLURALS)
        self.requests = []
        self.writes = []
        self.write_fault = None
        self.refused_writes = {}
        self.events = {}
        self.objects = {}
        self._version = 100
        self._history: collections.deque[tuple[int, str, str, bytes]] = collections.deque(maxlen=HISTORY)
        self._lists = {}
        self._tokens = itertools.count()
        self._watchers = []
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._released = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            used = False

            def setup(self):
                super().setup()
                stub._connections.add(self.connection)

            def finish(self):
                stub._connections.discard(self.connection)
                super().finish()

            def do_GET(self):
                stub._serve(self)
                self.used = True

            def do_PATCH(self):
                stub._write(self, "PATCH")
                self.used = True

            def do_POST(self):
                stub._write(self, "POST")
                self.used = True

            def log_message(self, *_):
                pass

        self._handler = Handler
        self._server: ThreadingHTTPServer
        self.port = 0
        self.start()

    def start(self):
        """Begins to listen, on the same port as before."""
        self._released.clear()

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_):
                """Clients that hang up are what these tests are about."""

        self._server = Server(("127.0.0.1", self.port), self._handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        """Refuses connections, and closes those that there are."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.end_watches()

    def kubeconfig(self, path, *, token=None):
        """Writes a kubeconfig that points here."""
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "stub",
                    "clusters": [{"name": "stub", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                    "users": [{"name": "stub", "user": {"token": token} if token else {}}],
                    "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "stub"}}],
                }
            )
        )
        return path

    # -- what happens in the cluster ------------------------------------------------------------

    def apply(self, item, *, silently=False):
        """Creates or updates an object; silently: the watches that there are do not get the event."""
        kind, key = item["kind"], _key(item)
        with self._lock:
            event = "MODIFIED" if (kind, key) in self.objects else "ADDED"
            stored = {**item, "metadata": {**item["metadata"], "resourceVersion": self._next_version()}}
            self.objects[kind, key] = stored
            self._record(kind, event, stored, silently)

    def delete(self, kind, namespace, name, *, silently=False):
        """Deletes an object."""
        with self._lock:
            gone = self.objects.pop((kind, (namespace, name)))
            gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": self._next_version()}}
            self._record(kind, "DELETED", gone, silently)

    def next_version(self):
        """Returns a resourceVersion that is newer than all before, for an event of a test's own."""
        with self._lock:
            return self._next_version()

    def set_version(self, version):
        """Goes on from any version, without what happened before: as after a backup was restored."""
        with self._lock:
            self._version = version
            self._history.clear()

    def send(self, kind, event):
        """Sends any event to the watchers of a kind: bytes as they are, anything else as JSON."""
        with self._lock:
            for watcher in self._watchers:
                if watcher.kind == kind:
                    watcher.put(event if isinstance(event, bytes) else json.dumps(event).encode())

    def watchers(self, kind):
        """How many watch a kind now."""
        return sum(1 for watcher in self._watchers if watcher.kind == kind)

    def end_watches(self):
        """Ends every watch as a server does when its time is over."""
        for watcher in list(self._watchers):
            watcher.put(None)

    def cut_watches(self, kind):
        """Hangs up on every watch of a kind."""
        for watcher in list(self._watchers):
            if watcher.kind == kind:
                watcher.put(_CUT)

    def count(self, part):
        """How many requests had this in their path or query."""
        return sum(1 for _, path in self.requests if part in path)

    def _next_version(self):
        self._version += 1
        return str(self._version)

    def _record(self, kind, event, item, silently):
        line = json.dumps({"type": event, "object": item}).encode()
        namespace = item["metadata"]["namespace"]
        self._history.append((self._version, kind, namespace, line))
        if not silently:
            for watcher in self._watchers:
                if watcher.wants(kind, namespace):
                    watcher.put(line)

    # -- HTTP -----------------------------------------------------------------------------------

    def _serve(self, handler):
        url = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.requests.append((time.monotonic(), handler.path))
        parts = url.path.split("/")
        kind = next((k for k, plural in self.plurals.items() if plural in parts), None)
        namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts else None
        watch = query.get("watch") == "true"
        fault = self.fault or (self.watch_fault if watch else self.list_fault) or self.refused.get(kind)
        fault = fault or (self.refused_watches.get(kind) if watch else None)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if fault == "stale" and not handler.used:
                fault = None
            if fault is not None and not (watch and fault in ("end", "expired", "silence", "cut", "brief")):
                self._fail(handler, fault)
            elif "events" in parts:
                event = self.events.get((namespace, parts[-1]))
                self._fail(handler, 404) if event is None else self._answer_json(handler, 200, event)
            elif kind is None:
                self._fail(handler, 404)
            elif parts[-1] != self.plurals[kind]:
                item = self.objects.get((kind, (namespace, parts[-1])))
                self._fail(handler, 404) if item is None else self._answer_json(handler, 200, item)
            elif watch:
                self._watch(handler, kind, namespace, query)
            else:
                self._list(handler, kind, namespace, query)

    def _write(self, handler, method):
        """Carries out the two writes that there are: a status, merged, and an Event, created or merged."""
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        parts = urlsplit(handler.path).path.split("/")
        namespace = parts[parts.index("namespaces") + 1]
        with self._lock:
            status, answer = self._carry_out(method, namespace, parts, body)
            self.writes.append((method, handler.path, body, status))
        if self.fault:
            self._fail(handler, self.fault)
        elif status >= 400:
            self._fail(handler, status)
        else:
            self._answer_json(handler, status, answer)

    def _carry_out(self, method, namespace, parts, body):
        if fault := self.write_fault or (self.fault and 500) or self.refused_writes.get(parts[-2]):
            return fault, None
        if "events" in parts:
            name = body["metadata"]["name"] if method == "POST" else parts[-1]
            known = self.events.get((namespace, name))
            if (known is None) != (method == "POST"):
                return 404 if known is None else 409, None
            self.events[namespace, name] = {**(known or {}), **body}
            return 201 if method == "POST" else 200, self.events[namespace, name]
        kind = next(k for k, plural in self.plurals.items() if plural in parts)
        place = kind, (namespace, parts[-2])
        item = self.objects.get(place)
        assert (method, parts[-1]) == ("PATCH", "status")
        if item is None:
            return 404, None
        if body["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            return 409, None
        status = {**item.get("status", {}), **body["status"]}
        if status != item.get("status"):
            item = {
                **item,
                "status": status,
                "metadata": {**item["metadata"], "resourceVersion": self._next_version()},
            }
            self.objects[place] = item
            self._record(kind, "MODIFIED", item, silently=False)
        return 200, item

    def _answer_json(self, handler, status, value):
        self._answer(handler, status, json.dumps(value).encode())

    def _fail(self, handler, fault):
        if fault == "hang":
            self._released.wait(30)
            handler.close_connection = True
        elif fault in ("close", "stale"):
            handler.close_connection = True
        elif fault == "garbage":
            self._answer(handler, 200, b"<html>not what you asked for</html>")
        elif fault == "flood":
            self._begin(handler)
            while True:
                self._chunk(handler, b" " * 65536)
        elif fault == "drip head":
            self._drip(handler, b"HTTP/1.1 200 OK\r\nX-Drip: ")
        elif fault == "drip body":
            self._drip(handler, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        else:
            status = {"kind": "Status", "code": fault, "message": f"the stub says {fault}"}
            headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
            self._answer(handler, fault, json.dumps(status).encode(), headers)

    def _drip(self, handler, begin):
        """Sends a byte now and then until the client hangs up."""
        handler.close_connection = True
        handler.wfile.write(begin)
        while not self._released.wait(DRIP):
            handler.wfile.write(b" ")

    def _list(self, handler, kind, namespace, query):
        """Answers with one page of what there was when the list began, as the API does."""
        if self.page_delay:
            self._released.wait(self.page_delay)
        token, _, start = query.get("continue", "").partition("-")
        with self._lock:
            if token:
                found, version = self._lists[token]
            else:
                token = str(next(self._tokens))
                version = str(self._version)
                found = [
                    item
                    for (k, (where, _)), item in sorted(self.objects.items())
                    if k == kind and namespace in (None, where)
                ]
                self._lists[token] = found, version
        start = int(start or 0)
        size = self.page_size or int(query.get("limit", len(found) or 1))
        metadata = {"resourceVersion": version}
        if start + size < len(found):
            metadata["continue"] = f"{token}-{start + size}"
        else:
            self._lists.pop(token, None)
        body = {"kind": f"{kind}List", "metadata": metadata, "items": found[start : start + size]}
        self._answer(handler, 200, json.dumps(body).encode())

    def _watch(self, handler, kind, namespace, query):
        self._begin(handler)
        cut = self.watch_fault in ("cut", "brief")
        if self.watch_fault == "brief":
            bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self._version)}}}
            self._chunk(handler, json.dumps(bookmark).encode() + b"\n")
        if self.watch_fault == "expired":
            self._chunk(handler, _expired() + b"\n")
        if self.watch_fault == "silence":
            self._released.wait(30)
        if self.watch_fault is None:
            cut = self._events(handler, _Watcher(kind, namespace), query) is _CUT
        if cut:
            handler.close_connection = True
        else:
            handler.wfile.write(b"0\r\n\r\n")

    def _events(self, handler, watcher, query):
        """Sends events until time is over; returns the wish that ended it before, if there was one."""
        since = int(query["resourceVersion"])
        with self._lock:
            if len(self._history) == HISTORY and since < self._history[0][0]:
                watcher.put(_expired())
                watcher.put(None)
            for version, kind, namespace, line in self._history:
                if version > since and watcher.wants(kind, namespace):
                    watcher.put(line)
            self._watchers.append(watcher)
        try:
            deadline = time.monotonic() + float(query["timeoutSeconds"])
            while (left := deadline - time.monotonic()) > 0:
                try:
                    event = watcher.get(timeout=left)
                except queue.Empty:
                    return None
                if event is None or event is _CUT:
                    return event
                self._chunk(handler, event + b"\n")
            return None
        finally:
            self._watchers.remove(watcher)

    def _begin(self, handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.flush()

    def _chunk(self, handler, data):
        handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        handler.wfile.flush()

    def _answer(self, handler, status, body, headers=()):
        handler.send_response(status)
        for name, value in dict(headers).items():
            handler.send_header(name, value)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


_CUT = b"cut"


class _Watcher(queue.Queue[bytes | None]):
    def __init__(self, kind, namespace):
        super().__init__()
        self.kind = kind
        self._namespace = namespace

    def wants(self, kind, namespace):
        return kind == self.kind and self._namespace in (None, namespace)


def _expired():
    status = {"kind": "Status", "code": 410, "message": "too old resource version"}
    return json.dumps({"type": "ERROR", "object": status}).encode()


def _key(item):
    return item["metadata"]["namespace"], item["metadata"]["name"]


def service(name="web", *, namespace="shop", **spec):
    """A Service object."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"name": "grpc", "port": 80}], **spec},
    }


def endpoint_slice(*ips, name="web-1", owner="web", namespace="shop", **fields):
    """An EndpointSlice object."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": owner},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip in ips],
        "ports": [{"name": "grpc", "port": 8080}],
        **fields,
    }
