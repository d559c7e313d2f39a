"""Load reports: how many requests each client sends to each service, and how many fail.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/load_stats/v3/lrs.proto, gRFC A27
"""
