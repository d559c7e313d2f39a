"""The metrics of /metrics. Labels never carry strings that a client supplies: they would grow without bound."""

from prometheus_client import Counter, Gauge, Histogram

streams = Gauge("xds_streams", "Open ADS streams.")
requests = Counter("xds_requests", "Requests, by type and kind.", ["type", "kind"])
responses = Counter("xds_responses", "Responses sent, by type.", ["type"])
rejections = Counter("xds_nacks", "Responses that a client rejected (NACK), by type.", ["type"])
write_timeouts = Counter(
    "xds_write_timeouts", "Streams that were closed because their client stopped reading."
)
subscriptions = Gauge(
    "xds_subscribed_resources", "Resources with at least one subscriber, by type.", ["type"]
)
build_failures = Counter(
    "xds_build_failures",
    "Resources that could not be built and kept their last good form, by type.",
    ["type"],
)
services = Gauge("discovery_services", "Services that clients can ask for.")
publish_seconds = Histogram(
    "xds_publish_seconds",
    "Time to build what changed and to notify its subscribers.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1),
)
events = Counter("discovery_events", "Watch events, by kind and type.", ["kind", "type"])
lists = Counter("discovery_lists", "Complete lists, by kind.", ["kind"])
failures = Counter(
    "discovery_failures", "Requests to the source that failed, by kind and reason.", ["kind", "reason"]
)
malformed = Counter("discovery_malformed", "Objects or files that could not be decoded, by kind.", ["kind"])
status_writes = Counter(
    "kubernetes_status_writes",
    "Statuses: written, refused because the object had changed (conflict), or failed; by kind.",
    ["kind", "result"],
)
kubernetes_events = Counter(
    "kubernetes_events", "Events: written, failed, or dropped because there were too many.", ["result"]
)
load_streams = Gauge("xds_load_streams", "Open streams of load reports.")
load_reports = Counter("xds_load_reports", "Load reports that were read.")
certificate_expiry = Gauge(
    "tls_certificate_expiry_seconds",
    "When the certificate in use expires, in seconds since 1970; 0 without TLS.",
)
transport = Gauge("xds_transport", "1 for the transport that serves the streams.", ["transport"])
problems = Gauge(
    "xds_problems",
    "Objects that can't be used as they are, and resources that can't be built, by kind.",
    ["kind"],
)
conditions = Gauge(
    "xds_conditions",
    "Conditions that the statuses of routes and policies have, by kind, type, status and reason.",
    ["kind", "type", "status", "reason"],
)
synced = Gauge("discovery_synced", "1 once everything has been listed.")
age_seconds = Gauge(
    "discovery_age_seconds", "Seconds since the source last confirmed the state that is served."
)
