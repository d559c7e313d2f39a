"""A small xDS control plane: proxyless gRPC load balancing on Kubernetes.

One way through: ``discovery`` (I/O) -> ``model`` (frozen values) -> ``resources`` (pure) -> ``cache`` -> ``ads``
(a sans-I/O session per stream) -> gRPC. ``admin`` shows what is going on; ``app`` puts the parts together.
"""
