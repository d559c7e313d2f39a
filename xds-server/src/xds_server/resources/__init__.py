"""The model as xDS resources. Pure: one module for each type, and all names in one.

``builders`` finds the builder of a resource by its key; a builder reads the model through a ``Lookup``, which records
what it read. This package knows which values gRPC clients reject or silently ignore, and never makes them. It must not
know about streams, subscriptions or Kubernetes.
"""
