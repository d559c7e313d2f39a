"""What is counted, for /metrics. Labels never carry strings that a client supplies: they would grow without bound."""

from prometheus_client import Counter, Gauge, Histogram

streams = Gauge("xds_streams", "Open ADS streams.")
requests = Counter("xds_requests", "Requests, by type and by what they meant.", ["type", "kind"])
responses = Counter("xds_responses", "Responses sent, by type.", ["type"])
rejections = Counter("xds_nacks", "Responses that a client refused, by type.", ["type"])
write_timeouts = Counter("xds_write_timeouts", "Streams that ended because their client did not read.")
subscriptions = Gauge("xds_subscribed_resources", "Resources that somebody subscribes to, by type.", ["type"])
services = Gauge("discovery_services", "Services that clients can ask for.")
publish_seconds = Histogram(
    "xds_publish_seconds",
    "Time to build what changed and to tell the streams that subscribe to it.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1),
)
events = Counter("discovery_events", "Watch events, by kind and type.", ["kind", "type"])
lists = Counter("discovery_lists", "Complete lists, by kind.", ["kind"])
failures = Counter(
    "discovery_failures", "Requests to the source that failed, by kind and reason.", ["kind", "reason"]
)
malformed = Counter("discovery_malformed", "Objects or files that could not be understood.", ["kind"])
synced = Gauge("discovery_synced", "1 once everything has been listed.")
age_seconds = Gauge(
    "discovery_age_seconds", "Seconds since the source last confirmed the state that is served."
)
