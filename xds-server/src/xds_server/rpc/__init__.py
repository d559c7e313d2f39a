"""Bidirectional calls of a gRPC server, driven by events. It must not know what is said on them: no xDS.

``call`` is the interface, ``base`` what all calls have in common. ``events`` implements it on grpc's completion queue,
``threads`` on grpc's public API; ``choice`` picks one by a self-test when the program starts.
"""
