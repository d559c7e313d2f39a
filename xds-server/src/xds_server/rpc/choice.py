"""Chooses how calls are served, by a self-test when the program starts.

``events`` needs parts of grpc that are not public, so a new grpcio may break it: by an error, by silence or by events
that are missing. The self-test makes real calls over loopback, to find that out before a client does. If it fails,
``threads`` serves the calls: at more CPU, but correctly.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import grpc
import structlog

from servicekit import listening
from servicekit.errors import ConfigurationError
from xds_server.rpc.call import Call, Transport
from xds_server.rpc.threads import ThreadTransport

TransportSetting = Literal["auto", "events", "threads"]

DEADLINE = 5.0
"""Seconds that the self-test may take; on a machine that is not busy it takes a few hundredths of one."""

_STOP_SECONDS = 1.0
_SERVICE, _METHOD = "xds_server.rpc.SelfTest", "Talk"
_TALK, _CANCEL = b"talk", b"cancel"
_ANSWERS = (b"first", b"second")
_STATUS = (grpc.StatusCode.ABORTED, "the end of the self-test")

log = structlog.get_logger()


class SelfTestError(Exception):
    """A transport does not do what it should; the text says what differs."""


def choose(setting: TransportSetting, *, calls: int, deadline: float = DEADLINE) -> Transport:
    """Returns the transport that serves calls; logs why if the self-test fails.

    Args:
        setting: ``auto`` decides by a self-test; ``events`` and ``threads`` are used without one.
        calls: How many calls may be open at once.
        deadline: Seconds that the self-test may take.

    Raises:
        ConfigurationError: With ``events``: this grpcio lacks a part that is needed.
    """
    if setting == "auto":
        return _choose_by_self_test(calls, deadline)
    return ThreadTransport(calls) if setting == "threads" else _forced_events()


def _choose_by_self_test(calls: int, deadline: float) -> Transport:
    try:
        with contextlib.ExitStack() as on_error:
            transport = _events()
            on_error.callback(transport.close)
            self_test(transport, deadline)
            on_error.pop_all()
    except Exception as error:  # noqa: BLE001 # whatever grpc raises, calls have to be served
        log.warning(
            "calls are served by two threads each: the self-test of the faster transport failed",
            transport=ThreadTransport.name,
            reason=f"{type(error).__name__}: {error}",
            grpcio=grpc.__version__,
            hint="pin grpcio to a version this release was tested with",
        )
        return ThreadTransport(calls)
    return transport


def _events() -> Transport:
    from xds_server.rpc.events import EventTransport  # noqa: PLC0415 # grpc may lack what it imports

    return EventTransport()


def _forced_events() -> Transport:
    try:
        return _events()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"transport events does not work with grpcio {grpc.__version__} ({error}); set auto or threads, "
            "or pin grpcio to a version this release was tested with"
        ) from error


def self_test(transport: Transport, deadline: float) -> None:
    """Serves two calls of a client in this process over loopback, and leaves nothing behind.

    Args:
        transport: What serves them.
        deadline: Seconds for both.

    Raises:
        SelfTestError: Something differs from what ``Call`` and ``Handler`` promise, or takes too long.
        AddressError: There is no loopback interface to listen on.
    """
    until = time.monotonic() + deadline
    probes: queue.SimpleQueue[_Probe] = queue.SimpleQueue()

    def opened(call: Call) -> None:
        probe = _Probe(call)
        probes.put(probe)
        call.serve(probe)

    # A proxy that the environment names is not for loopback.
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    with (
        _serving(transport, opened) as address,
        grpc.insecure_channel(address, options=options) as channel,
    ):
        answers, code, details = _call(channel, _TALK, until)
        _compare("status", f"{code.name}: {details}", f"{_STATUS[0].name}: {_STATUS[1]}")
        _compare("answers", answers, list(_ANSWERS))
        # Whether the last message is on its way before the client's answer to it arrives is a matter of chance.
        events = _wait_for_end(probes, until)
        _compare("first and last event", [events[0], events[-1]], ["received", "ended"])
        _compare("events", sorted(events[1:-1]), ["finished", "written", "written"])

        answers, code, _ = _call(channel, _CANCEL, until)
        _compare("code after cancel", code, grpc.StatusCode.CANCELLED)
        _compare("answers", answers, [])
        _compare("events", _wait_for_end(probes, until), ["received", "ended"])


class _Probe:
    """Answers a message with two and ends as the client does, or cancels; records the events."""

    def __init__(self, call: Call) -> None:
        self.events: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._call = call
        self._answers = iter(_ANSWERS)
        self._due = {"finished", "all written"}

    def received(self, message: bytes) -> None:
        self.events.put("received")
        if message == _CANCEL:
            self._call.cancel()
        else:
            self._call.write(next(self._answers))

    def written(self) -> None:
        self.events.put("written")
        if answer := next(self._answers, None):
            self._call.write(answer)
        else:
            self._end_after("all written")

    def finished(self) -> None:
        self.events.put("finished")
        self._end_after("finished")

    def ended(self) -> None:
        self.events.put("ended")

    def _end_after(self, event: str) -> None:
        self._due.discard(event)
        if not self._due:
            self._call.end(*_STATUS)


@contextlib.contextmanager
def _serving(transport: Transport, opened: Callable[[Call], None]) -> Iterator[str]:
    """Serves the transport's calls on a free port of loopback; yields its address.

    Raises:
        SelfTestError: The server does not stop.
        AddressError: There is no loopback interface to listen on.
    """
    pool = ThreadPoolExecutor(max(1, transport.server_threads))
    server = grpc.server(pool)
    methods = {_METHOD: transport.method(opened)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    address = listening.bind_loopback(server)
    server.start()
    try:
        yield address
    finally:
        is_stopped = server.stop(0).wait(_STOP_SECONDS)
        pool.shutdown(wait=False)
    if not is_stopped:
        raise SelfTestError("the server does not stop")


def _call(channel: grpc.Channel, message: bytes, until: float) -> tuple[list[bytes], grpc.StatusCode, str]:
    """Sends a message, half-closes once all answers are there, and returns the answers and the status."""
    is_answered = threading.Event()

    def requests() -> Iterator[bytes]:
        yield message
        is_answered.wait(_left(until))

    method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"/{_SERVICE}/{_METHOD}")
    call = method(requests(), timeout=_left(until))
    answers = []
    try:
        for answer in call:
            answers.append(answer)
            if len(answers) == len(_ANSWERS):
                is_answered.set()
    except grpc.RpcError:
        pass  # Its status is returned.
    finally:
        is_answered.set()
    return answers, call.code(), call.details()


def _wait_for_end(probes: "queue.SimpleQueue[_Probe]", until: float) -> list[str]:
    """Returns the events of the oldest call that was opened, once it has ended."""
    events: list[str] = []
    try:
        probe = probes.get(timeout=_left(until))
        while "ended" not in events:
            events.append(probe.events.get(timeout=_left(until)))
    except queue.Empty:
        raise SelfTestError(f"a call is over, and its handler knows only of {events}") from None
    return events


def _compare(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise SelfTestError(f"{what}: {found} instead of {expected}")


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())
