"""Where the state of the mesh comes from: a Kubernetes API server, or files with the same objects.

``objects`` (typed Kubernetes objects) -> ``assembly`` (one service from its objects) -> ``registry`` (all of
them, and what changed); ``kubernetes`` with ``reflector``, and ``files``, feed the registry.
"""
