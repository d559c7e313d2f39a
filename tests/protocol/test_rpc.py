"""Calls over real gRPC, by events and by threads, and the choice between the two."""

import asyncio
import contextlib
import gc
import sys
import threading
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc._cython
import grpc._server
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]
from structlog.testing import capture_logs

from servicekit.errors import ConfigurationError
from xds_server.rpc.choice import SelfTestError, choose, self_test
from xds_server.rpc.events import EventTransport
from xds_server.rpc.threads import ThreadTransport

SERVICE = "test.Calls"
MANY = 2_000
SECONDS = 30
BIG = b"x" * (64 << 20)
"""More than any buffer on the way to a client that does not read takes."""


class Recorder:
    """Records the events of a call; subclasses do something about them."""

    def __init__(self, call):
        self.call = call
        self.events = []

    def received(self, message):
        self.events.append("received")

    def written(self):
        self.events.append("written")

    def finished(self):
        self.events.append("finished")
        self.call.end(grpc.StatusCode.OK, "")

    def ended(self):
        self.events.append("ended")


class Echo(Recorder):
    """Writes what it received, one message at a time."""

    def __init__(self, call):
        super().__init__(call)
        self._lock = threading.Lock()
        self._waiting = []
        self._is_writing = False

    def received(self, message):
        super().received(message)
        with self._lock:
            self._waiting.append(message)
            self._write()

    def written(self):
        super().written()
        with self._lock:
            self._is_writing = False
            self._write()

    def _write(self):
        if self._waiting and not self._is_writing:
            self._is_writing = True
            self.call.write(self._waiting.pop(0))


class Calls:
    """What a server passes each new call to: makes a handler of it, and keeps that."""

    def __init__(self, make):
        self.make = make
        self.handlers = []

    def __call__(self, call):
        handler = self.make(call)
        self.handlers.append(handler)
        call.serve(handler)


@pytest.fixture(params=[EventTransport, lambda: ThreadTransport(MANY)], ids=["events", "threads"])
def transport(request):
    return request.param()


@contextlib.asynccontextmanager
async def served(transport, opened, *, threads=0, methods=()):
    """Serves calls, and connects a client that reads a message only when it is told to."""
    pool = ThreadPoolExecutor(threads or transport.server_threads or 1)
    server = grpc.server(
        pool,
        options=[
            ("grpc.server.max_pending_requests", MANY),
            ("grpc.server.max_pending_requests_hard_limit", MANY),
        ],
    )
    all_methods = {"Talk": transport.method(opened), **dict(methods)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, all_methods),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    try:
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            yield channel
    finally:
        assert await asyncio.to_thread(server.stop(0).wait, 30), "the server does not stop"
        pool.shutdown(wait=False)


def talk(channel):
    return channel.stream_stream(f"/{SERVICE}/Talk")()


async def until(condition, what):
    try:
        async with asyncio.timeout(SECONDS):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"after {SECONDS} s still not {what}")


async def status(call):
    """Reads what is left, as nothing is heard of the status before, and returns that."""
    async with asyncio.timeout(SECONDS):
        try:
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError:
            pass
        except asyncio.CancelledError:
            # So a call that has the status CANCELLED ends a read.
            if not call.done():
                raise
        return await call.code(), await call.details()


async def check_echo(channel, message=b"hello"):
    """Makes a call of its own that is answered."""
    call = talk(channel)
    await call.write(message)
    assert await call.read() == message
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert (await status(call))[0] is grpc.StatusCode.OK


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name == "reads a call"]


async def test_messages_are_answered_in_order(transport):
    calls = Calls(Echo)
    async with served(transport, calls) as channel:
        call = talk(channel)
        messages = [b"", *(str(number).encode() for number in range(100))]
        for message in messages:
            await call.write(message)
        assert [await call.read() for _ in messages] == messages
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert (await status(call))[0] is grpc.StatusCode.OK
        [handler] = calls.handlers
        await until(lambda: "ended" in handler.events, "ended")
    assert handler.events[0] == "received"
    assert handler.events[-1] == "ended"
    assert {event: handler.events.count(event) for event in handler.events} == {
        "received": 101,
        "written": 101,
        "finished": 1,
        "ended": 1,
    }


async def test_no_two_events_of_a_call_at_once(transport):
    class Careful(Echo):
        def __init__(self, call):
            super().__init__(call)
            self.turn = threading.Lock()
            self.overlaps = 0

        @contextlib.contextmanager
        def alone(self):
            if not self.turn.acquire(blocking=False):
                self.overlaps += 1
            yield
            with contextlib.suppress(RuntimeError):
                self.turn.release()

        def received(self, message):
            with self.alone():
                super().received(message)

        def written(self):
            with self.alone():
                super().written()

        def ended(self):
            with self.alone():
                super().ended()

    calls = Calls(Careful)
    async with served(transport, calls) as channel:
        call = talk(channel)

        async def write():
            for _ in range(500):
                await call.write(b"x")

        writing = asyncio.create_task(write())
        for _ in range(500):
            assert await call.read() == b"x"
        await writing
        call.cancel()
        await until(lambda: "ended" in calls.handlers[0].events, "ended")
    assert calls.handlers[0].overlaps == 0


async def test_the_first_end_counts(transport):
    class Ends(Recorder):
        def received(self, message):
            super().received(message)
            assert not self.call.is_ending
            self.call.end(grpc.StatusCode.ABORTED, "the first")
            assert self.call.is_ending
            self.call.end(grpc.StatusCode.INTERNAL, "the second")

    calls = Calls(Ends)
    async with served(transport, calls) as channel:
        call = talk(channel)
        await call.write(b"")
        assert await status(call) == (grpc.StatusCode.ABORTED, "the first")
        await until(lambda: "ended" in calls.handlers[0].events, "ended")
    assert calls.handlers[0].events == ["received", "ended"]


async def test_the_end_comes_after_what_was_written(transport):
    class Ends(Recorder):
        def received(self, message):
            super().received(message)
            self.call.write(BIG)
            self.call.end(grpc.StatusCode.ABORTED, "after it")

    calls = Calls(Ends)
    async with served(transport, calls) as channel:
        call = talk(channel)
        await call.write(b"")
        assert len(await call.read()) == len(BIG)
        assert await status(call) == (grpc.StatusCode.ABORTED, "after it")
        await until(lambda: "ended" in calls.handlers[0].events, "ended")
    assert [event for event in calls.handlers[0].events if event != "written"] == ["received", "ended"]


async def test_a_call_may_end_when_it_is_opened(transport):
    peers = []

    def opened(call):
        peers.append(call.peer)
        call.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many")

    async with served(transport, opened) as channel:
        assert await status(talk(channel)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many")
    assert peers[0].startswith("ipv4:127.0.0.1:")


async def test_a_client_that_half_closes_is_still_written_to(transport):
    class Answers(Recorder):
        def finished(self):
            self.events.append("finished")
            self.call.write(b"the last")

        def written(self):
            super().written()
            self.call.end(grpc.StatusCode.OK, "")

    calls = Calls(Answers)
    async with served(transport, calls) as channel:
        call = talk(channel)
        await call.write(b"")
        await call.done_writing()
        assert await call.read() == b"the last"
        assert (await status(call))[0] is grpc.StatusCode.OK
        await until(lambda: "ended" in calls.handlers[0].events, "ended")
    assert calls.handlers[0].events == ["received", "finished", "written", "ended"]


async def test_a_client_that_cancels_ends_the_call(transport):
    calls = Calls(Recorder)
    async with served(transport, calls) as channel:
        call = talk(channel)
        await call.write(b"")
        await until(lambda: calls.handlers and calls.handlers[0].events, "received")
        call.cancel()
        [handler] = calls.handlers
        await until(lambda: "ended" in handler.events, "ended")
        # What comes too late does nothing.
        handler.call.write(b"")
        handler.call.end(grpc.StatusCode.OK, "")
        handler.call.cancel()
    assert [event for event in handler.events if event != "finished"] == ["received", "ended"]


@pytest.mark.parametrize("is_ending", [False, True], ids=["open", "ending"])
async def test_cancel_drops_what_the_client_does_not_read(transport, is_ending):
    class Stuck(Recorder):
        def received(self, message):
            super().received(message)
            self.call.write(BIG)
            if is_ending:
                self.call.end(grpc.StatusCode.UNAVAILABLE, "")

    calls = Calls(Stuck)
    async with served(transport, calls) as channel:
        call = talk(channel)
        await call.write(b"")
        await until(lambda: calls.handlers and calls.handlers[0].events, "received")
        [handler] = calls.handlers
        handler.call.cancel()
        assert handler.call.is_ending
        await until(lambda: "ended" in handler.events, "ended")
        assert (await status(call))[0] is grpc.StatusCode.CANCELLED
    assert handler.events == ["received", "ended"]


async def test_the_next_message_is_asked_for_when_the_last_is_on_its_way(transport):
    class Stuck(Recorder):
        def received(self, message):
            super().received(message)
            self.call.write(BIG)

    calls: Calls = Calls(lambda call: Echo(call) if calls.handlers else Stuck(call))
    async with served(transport, calls) as channel:
        stuck = talk(channel)
        await stuck.write(b"")
        await until(lambda: calls.handlers and calls.handlers[0].events, "received")
        await check_echo(channel)
        assert calls.handlers[0].events == ["received"]
        assert len(await stuck.read()) == len(BIG)
        await until(lambda: calls.handlers[0].events == ["received", "written"], "written")
        # From a thread that is none of grpc's, as changes are.
        calls.handlers[0].call.write(b"next")
        assert await stuck.read() == b"next"
        await until(lambda: calls.handlers[0].events == ["received", "written", "written"], "written")
        stuck.cancel()


@pytest.mark.parametrize("where", ["opened", "received", "written", "finished", "ended"])
async def test_an_error_ends_its_call_alone(transport, where):
    class Bad(Echo):
        def fail(self):
            raise ZeroDivisionError

        def finished(self):
            self.events.append("finished")
            if where == "ended":
                self.call.end(grpc.StatusCode.INTERNAL, "")

    def make(call):
        if not calls.handlers:
            return Echo(call)
        if where == "opened" and len(calls.handlers) == 1:
            calls.handlers.append(None)
            raise ZeroDivisionError
        handler = Bad(call) if len(calls.handlers) == 1 else Echo(call)
        if isinstance(handler, Bad):
            setattr(handler, where, lambda *_: handler.fail())
        return handler

    calls = Calls(make)
    async with served(transport, calls) as channel:
        good = talk(channel)
        await good.write(b"before")
        assert await good.read() == b"before"
        with capture_logs() as logs:
            bad = talk(channel)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await bad.write(b"")
                await bad.done_writing()
            assert (await status(bad))[0] is grpc.StatusCode.INTERNAL
            await until(lambda: logs, "logged")
        await good.write(b"after")
        assert await good.read() == b"after"
        await check_echo(channel)
        good.cancel()
    [line] = logs
    assert (line["log_level"], line["event"]) == ("error", "an error in the server ends a call")
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert line["exc_info"]


async def test_thousands_of_calls_at_once(transport):
    calls = Calls(Echo)
    async with served(transport, calls) as channel:
        talks = [talk(channel) for _ in range(MANY)]

        async def ask(call):
            await call.write(b"hello")
            return await call.read()

        assert set(await asyncio.gather(*map(ask, talks))) == {b"hello"}
        for handler in list(calls.handlers):
            handler.call.end(grpc.StatusCode.UNAVAILABLE, "shutting down")
        found = await asyncio.gather(*map(status, talks))
        assert set(found) == {(grpc.StatusCode.UNAVAILABLE, "shutting down")}
        await until(lambda: all("ended" in handler.events for handler in calls.handlers), "ended")
        await until(lambda: not reading_threads(), "without threads that read")


@pytest.mark.parametrize("how", ["client cancels", "client half-closes", "server ends", "server cancels"])
async def test_what_has_ended_waits_for_no_garbage_collector(transport, how):
    calls = Calls(Echo)
    async with served(transport, calls) as channel:
        gc.collect()
        gc.disable()
        try:
            call = talk(channel)
            await call.write(b"hello")
            assert await call.read() == b"hello"
            handler = calls.handlers.pop()
            left = [weakref.ref(handler), weakref.ref(handler.call)]
            if how == "client cancels":
                call.cancel()
            elif how == "client half-closes":
                await call.done_writing()
            elif how == "server ends":
                handler.call.end(grpc.StatusCode.UNAVAILABLE, "")
            else:
                handler.call.cancel()
            del handler
            await status(call)
            await until(lambda: [ref() for ref in left] == [None, None], "freed")
            await until(lambda: not reading_threads(), "without threads that read")
        finally:
            gc.enable()


async def test_a_call_that_nobody_serves_keeps_no_thread(transport):
    calls = Calls(Echo)
    is_serving = False

    def opened(call):
        if is_serving:
            calls(call)

    async with served(transport, opened, threads=1) as channel:
        ignored = talk(channel)
        await ignored.write(b"")
        ignored.cancel()
        is_serving = True
        await check_echo(channel)


async def test_a_call_that_is_over_when_it_is_served_ends_once(transport):
    calls = Calls(Recorder)
    arrived, is_over = threading.Event(), threading.Event()

    def opened(call):
        arrived.set()
        assert is_over.wait(30)
        calls(call)

    async with served(transport, opened) as channel:
        call = talk(channel)
        await until(arrived.is_set, "arrived")
        call.cancel()
        is_over.set()
        await until(lambda: calls.handlers and "ended" in calls.handlers[0].events, "ended")
    assert [event for event in calls.handlers[0].events if event != "finished"] == ["ended"]


async def test_calls_are_opened_one_at_a_time(transport):
    calls = Calls(Echo)
    turn = threading.Lock()

    def opened(call):
        assert turn.acquire(blocking=False)
        calls(call)
        turn.release()

    async with served(transport, opened) as channel:
        await asyncio.gather(*(check_echo(channel) for _ in range(200)))


async def test_events_need_no_thread_of_the_servers_pool():
    is_asked, is_over = threading.Event(), threading.Event()

    def block(*_):
        is_asked.set()
        is_over.wait(30)
        return b""

    methods: dict[str, Any] = {"Block": grpc.unary_unary_rpc_method_handler(block)}
    async with served(EventTransport(), Calls(Echo), threads=1, methods=methods) as channel:
        blocked = channel.unary_unary(f"/{SERVICE}/Block")(b"")
        await until(is_asked.is_set, "blocked")
        await check_echo(channel)
        is_over.set()
        assert await blocked == b""


async def test_threads_suffice_to_refuse_a_call_over_the_bound():
    calls = Calls(Echo)

    def opened(call):
        if len(calls.handlers) == 2:
            call.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "2 calls are open")
        else:
            calls(call)

    async with served(ThreadTransport(2), opened) as channel:
        open_calls = [talk(channel) for _ in range(2)]
        for call in open_calls:
            await call.write(b"hello")
            assert await call.read() == b"hello"
        assert (await status(talk(channel)))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in open_calls:
            call.cancel()


async def test_a_write_that_does_not_start_ends_the_call():
    class Hasty(Recorder):
        def received(self, message):
            super().received(message)
            self.call.write(BIG)
            self.call.write(b"C-core takes one message at a time")

    calls: Calls = Calls(lambda call: Hasty(call) if not calls.handlers else Echo(call))
    async with served(EventTransport(), calls) as channel:
        call = talk(channel)
        with capture_logs() as logs:
            await call.write(b"")
            assert len(await call.read()) == len(BIG)
            assert (await status(call))[0] is grpc.StatusCode.INTERNAL
            await until(lambda: "ended" in calls.handlers[0].events, "ended")
        await check_echo(channel)
    assert [line["log_level"] for line in logs] == ["error"]


async def test_a_read_that_does_not_start_ends_the_call(monkeypatch):
    """With flags that C-core refuses."""
    right = cygrpc.ReceiveMessageOperation
    calls = Calls(Recorder)
    opening = threading.Event()

    def opened(call):
        assert opening.wait(30)
        with monkeypatch.context() as patch:
            patch.setattr(cygrpc, "ReceiveMessageOperation", lambda _: right(0xFFFF))
            calls(call)

    async with served(EventTransport(), opened) as channel:
        with capture_logs() as logs:
            call = talk(channel)
            opening.set()
            assert (await status(call))[0] is grpc.StatusCode.INTERNAL
            await until(lambda: calls.handlers and "ended" in calls.handlers[0].events, "ended")
    assert calls.handlers[0].events == ["ended"]
    assert [line["log_level"] for line in logs] == ["error"]


# ---- the choice ----


class InnerChanged:
    """grpc's context of a call in which all is as it was but ``_rpc_event``, the part that is not public."""

    replacement: Any = None
    """What is there instead; None: nothing."""

    def __init__(self, *args):
        self._inner = RIGHT_CONTEXT(*args)

    def __getattr__(self, name):
        if name != "_rpc_event":
            return getattr(self._inner, name)
        if self.replacement is None:
            raise AttributeError(name)
        return self.replacement


RIGHT_CONTEXT = grpc._server._Context


class InnerSilent(InnerChanged):
    """Operations start, and nothing is ever heard of them."""

    replacement = types.SimpleNamespace(call=types.SimpleNamespace(start_server_batch=lambda *_: 0))


def lacking(*names):
    """Makes grpc's inner module without some of its names."""
    found = {name: value for name, value in vars(cygrpc).items() if name not in names}
    return types.SimpleNamespace(**found)


@pytest.fixture
def fresh(monkeypatch):
    """Has ``events`` imported anew by whoever needs it next."""
    monkeypatch.delitem(sys.modules, "xds_server.rpc.events")
    # Importing sets this attribute of the package too.
    monkeypatch.setattr("xds_server.rpc.events", sys.modules.get("xds_server.rpc.events"), raising=False)


async def check_fallback(deadline=10.0):
    before = set(threading.enumerate())
    with capture_logs() as logs:
        transport = await asyncio.to_thread(choose, "auto", calls=10, deadline=deadline)
    assert transport.name == "threads"
    [line] = [line for line in logs if line["log_level"] == "warning"]
    assert line["transport"] == "threads"
    assert line["grpcio"] == grpc.__version__
    assert "pin grpcio" in line["hint"]
    await until(lambda: not left_since(before), "without threads of the self-test")
    async with served(transport, Calls(Echo)) as channel:
        await check_echo(channel)
    return line["reason"]


def left_since(before):
    # asyncio.to_thread has its own pool.
    return [t for t in threading.enumerate() if t not in before and not t.name.startswith("asyncio")]


async def test_events_are_chosen_when_the_self_test_passes(monkeypatch):
    # Whatever is set for the outside does not apply to loopback.
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    before = set(threading.enumerate())
    with capture_logs() as logs:
        transport = await asyncio.to_thread(choose, "auto", calls=10)
    assert transport.name == "events"
    assert transport.server_threads == 0
    assert logs == []
    await until(lambda: len(left_since(before)) <= 1, "without threads of the self-test")
    [opening] = left_since(before)
    async with served(transport, Calls(Echo)) as channel:
        await check_echo(channel)
    transport.close()
    await until(lambda: not opening.is_alive(), "without the thread that opens calls")


async def test_threads_are_chosen_when_a_call_cannot_be_made(monkeypatch):
    monkeypatch.setattr(grpc._server, "_Context", InnerChanged)
    assert "_rpc_event" in await check_fallback()


async def test_threads_are_chosen_when_nothing_is_heard_of_a_call(monkeypatch):
    monkeypatch.setattr(grpc._server, "_Context", InnerSilent)
    assert "DEADLINE_EXCEEDED" in await check_fallback(deadline=0.3)


@pytest.mark.parametrize("name", ["SendMessageOperation", "ReceiveMessageOperation", "CallError"])
@pytest.mark.usefixtures("fresh")
async def test_threads_are_chosen_when_the_inner_module_lacks_a_name(monkeypatch, name):
    monkeypatch.setattr(grpc._cython, "cygrpc", lacking(name))
    assert "INTERNAL" in await check_fallback()


@pytest.mark.usefixtures("fresh")
async def test_threads_are_chosen_when_there_is_no_inner_module(monkeypatch):
    monkeypatch.delattr(grpc._cython, "cygrpc")
    monkeypatch.setitem(sys.modules, "grpc._cython.cygrpc", None)
    assert "grpc._cython.cygrpc" in await check_fallback()


@pytest.mark.usefixtures("fresh")
def test_events_that_cannot_be_had_are_refused_with_what_to_do(monkeypatch):
    monkeypatch.delattr(grpc._cython, "cygrpc")
    monkeypatch.setitem(sys.modules, "grpc._cython.cygrpc", None)
    with pytest.raises(ConfigurationError, match="pin grpcio"):
        choose("events", calls=10)


@pytest.mark.parametrize(("setting", "threads"), [("events", False), ("threads", True)])
def test_the_setting_decides_without_a_self_test(monkeypatch, setting, threads):
    monkeypatch.setattr(grpc._server, "_Context", InnerChanged)
    with capture_logs() as logs:
        transport = choose(setting, calls=10)
    assert transport.name == setting
    assert (transport.server_threads >= 10) is threads
    assert logs == []


async def test_the_self_test_is_passed_by_every_transport(transport):
    await asyncio.to_thread(self_test, transport, 10.0)
    await until(lambda: not reading_threads(), "without threads that read")


@pytest.mark.parametrize("missing", ["received", "written", "finished", "ended"])
def test_the_self_test_fails_if_an_event_is_missing(missing):
    class Deaf:
        """A transport of whose events one kind is lost."""

        name = "deaf"
        server_threads = 10

        def close(self):
            pass

        def method(self, opened):
            def opened_deaf(call):
                def serve(handler):
                    setattr(handler, missing, lambda *_: None)
                    call.serve(handler)

                opened(types.SimpleNamespace(serve=serve, write=call.write, end=call.end, cancel=call.cancel))

            return ThreadTransport(10).method(opened_deaf)

    with pytest.raises(SelfTestError):
        self_test(Deaf(), 0.3)
