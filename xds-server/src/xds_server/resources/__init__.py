"""The model as xDS resources: pure functions, one module per type, names in one place.

Knows which values gRPC clients refuse or silently ignore, and never makes them. Must not know about streams,
subscriptions or Kubernetes.
"""
