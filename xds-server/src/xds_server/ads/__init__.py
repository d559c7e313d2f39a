"""The aggregated discovery service, State of the World: which responses each stream gets, and when.

``session`` and ``subscription`` decide, without I/O; ``wire`` assembles responses; ``limits`` bounds what clients may
hold; ``servicer`` and ``stream`` read and write. https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
"""
