"""The aggregated discovery service, State of the World: what is said on each stream, and when.

``session`` decides, without I/O; ``wire`` puts responses together; ``servicer`` reads and writes.
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
"""
