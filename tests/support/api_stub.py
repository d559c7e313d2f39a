"""A stand-in for the Kubernetes API server, over real HTTP: lists with pages, watches, and faults on command.

The one fake in these tests; everything behind it is the real thing.
"""

import contextlib
import json
import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PLURALS = {"Service": "services", "EndpointSlice": "endpointslices"}
VERSIONS = {"Service": "v1", "EndpointSlice": "discovery.k8s.io/v1"}


class ApiStub:
    """Objects, watchers, and how requests are to fail.

    Attributes:
        fault: What every request gets instead of an answer: None, a status, "hang", "close" or "garbage".
        watch_fault: The same for watches alone; also "end" (at once, politely), "expired" (an ERROR event, 410)
            and "silence" (begun, and never a word).
        requests: (time, path with query) of each request.
    """

    def __init__(self):
        self.fault = None
        self.watch_fault = None
        self.retry_after = None
        self.page_size = None
        self.requests = []
        self.objects = {}
        self.history_lost = False
        self._version = 100
        self._watchers = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                stub._serve(self)

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
        """Refuses connections and ends those that there are."""
        self._released.set()
        for watcher in list(self._watchers):
            watcher.put(None)
        self._server.shutdown()
        self._server.server_close()

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
        """Creates or updates an object; silently: no watch tells."""
        kind, key = item["kind"], _key(item)
        with self._lock:
            self._version += 1
            event = "MODIFIED" if (kind, key) in self.objects else "ADDED"
            stored = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self._version)}}
            self.objects[kind, key] = stored
            if not silently:
                self._tell(kind, event, stored)

    def delete(self, kind, namespace, name, *, silently=False):
        """Deletes an object."""
        with self._lock:
            self._version += 1
            gone = self.objects.pop((kind, (namespace, name)))
            gone["metadata"]["resourceVersion"] = str(self._version)
            if not silently:
                self._tell(kind, "DELETED", gone)

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
        """Closes every watch."""
        for watcher in list(self._watchers):
            watcher.put(None)

    def count(self, part):
        """How many requests had this in their path or query."""
        return sum(1 for _, path in self.requests if part in path)

    def _tell(self, kind, event, item):
        for watcher in self._watchers:
            if watcher.kind == kind:
                watcher.put(json.dumps({"type": event, "object": item}).encode())

    # -- HTTP -----------------------------------------------------------------------------------

    def _serve(self, handler):
        url = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.requests.append((time.monotonic(), handler.path))
        kind = next(k for k, plural in PLURALS.items() if url.path.endswith(f"/{plural}"))
        parts = url.path.split("/")
        namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts else None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.fault is not None:
                self._fail(handler, self.fault)
            elif query.get("watch") == "true":
                if self.watch_fault not in (None, "end", "expired", "silence"):
                    self._fail(handler, self.watch_fault)
                else:
                    self._watch(handler, kind, query)
            else:
                self._list(handler, kind, namespace, query)

    def _fail(self, handler, fault):
        if fault == "hang":
            self._released.wait(30)
            handler.close_connection = True
        elif fault == "close":
            handler.close_connection = True
            handler.connection.close()
        elif fault == "garbage":
            self._answer(handler, 200, b"<html>not what you asked for</html>")
        else:
            status = {"kind": "Status", "code": fault, "message": f"the stub says {fault}"}
            headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
            self._answer(handler, fault, json.dumps(status).encode(), headers)

    def _list(self, handler, kind, namespace, query):
        with self._lock:
            found = [
                item
                for (k, (where, _)), item in sorted(self.objects.items())
                if k == kind and namespace in (None, where)
            ]
            version = str(self._version)
        start = int(query.get("continue", 0))
        size = self.page_size or int(query.get("limit", len(found) or 1))
        metadata = {"resourceVersion": version}
        if start + size < len(found):
            metadata["continue"] = str(start + size)
        body = {"kind": f"{kind}List", "metadata": metadata, "items": found[start : start + size]}
        self._answer(handler, 200, json.dumps(body).encode())

    def _watch(self, handler, kind, query):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        if self.watch_fault == "expired":
            status = {"kind": "Status", "code": 410, "message": "too old resource version"}
            self._chunk(handler, json.dumps({"type": "ERROR", "object": status}).encode())
        if self.watch_fault == "silence":
            self._released.wait(30)
        if self.watch_fault is None:
            self._events(handler, kind, query)
        self._chunk(handler, None)
        handler.close_connection = True

    def _events(self, handler, kind, query):
        watcher = _Watcher(kind)
        with self._lock:
            for (k, _), item in sorted(self.objects.items()):
                # Good enough a history: what changed since, as it is now.
                if k == kind and int(item["metadata"]["resourceVersion"]) > int(query["resourceVersion"]):
                    watcher.put(json.dumps({"type": "MODIFIED", "object": item}).encode())
            self._watchers.append(watcher)
        try:
            deadline = time.monotonic() + float(query["timeoutSeconds"])
            while (left := deadline - time.monotonic()) > 0:
                try:
                    event = watcher.get(timeout=left)
                except queue.Empty:
                    return
                if event is None:
                    return
                self._chunk(handler, event)
        finally:
            self._watchers.remove(watcher)

    def _chunk(self, handler, data):
        if data is None:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            line = data + b"\n"
            handler.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        handler.wfile.flush()

    def _answer(self, handler, status, body, headers=()):
        handler.send_response(status)
        for name, value in dict(headers).items():
            handler.send_header(name, value)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


class _Watcher(queue.Queue[bytes | None]):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind


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
