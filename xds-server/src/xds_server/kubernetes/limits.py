"""How long requests to the API server may take, how large answers may be, and how long to wait in between."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of requests, in seconds unless the name says bytes.

    Attributes:
        connect: To connect to the API server.
        list_silence: How long the server may be silent before and during the answer to a list: an overloaded server
            may queue a request for 15, see
            https://kubernetes.io/docs/concepts/cluster-administration/flow-control/.
        list_request: For one request of a list (a page), from the first byte sent to the last byte read.
        list_total: For all pages of a list. Continue tokens expire after 5 to 15 minutes.
        list_bytes: Of one page.
        write_request: For one write.
        watch_head: To the head of a watch, which the server sends at once.
        watch_seconds: What a watch asks for; the API server's own limit is 5 to 10 minutes.
        watch_grace: How long after its agreed end a watch is cut.
        watch_silence: How long a watch may be silent: bookmarks come every minute.
        watch_healthy: A watch that lasts this long is healthy, even if it delivers nothing.
        watch_gap: Between the starts of two watches, at least.
        watch_backoff: The longest wait between watches that deliver something, but keep ending before `watch_healthy`.
        watch_settled: A version that expires within this time of its first watch makes the next list wait: otherwise a
            server that calls every version expired would be listed in a loop.
        event_bytes: Of one watch event; the API server stores no object larger than a tenth of that.
        first_backoff: The longest wait after a first failure.
        last_backoff: The longest wait after many. With the deadline of a request it bounds how long recovery takes.
        retry_after: The longest wait that the server may ask for.
        remind: Between two log lines about one outage.
    """

    connect: float = 3.0
    list_silence: float = 20.0
    list_request: float = 60.0
    list_total: float = 300.0
    list_bytes: int = 128 * 1024 * 1024
    write_request: float = 30.0
    watch_head: float = 10.0
    watch_seconds: int = 270
    watch_grace: float = 10.0
    watch_silence: float = 75.0
    watch_healthy: float = 1.0
    watch_gap: float = 0.1
    watch_backoff: float = 2.0
    watch_settled: float = 30.0
    event_bytes: int = 16 * 1024 * 1024
    first_backoff: float = 2.0
    last_backoff: float = 5.0
    retry_after: float = 60.0
    remind: float = 60.0


DEFAULT_LIMITS = Limits()
