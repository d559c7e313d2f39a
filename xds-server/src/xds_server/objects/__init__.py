"""Kubernetes objects as small typed structs, decoded strictly from bytes or documents. Pure.

``kinds`` is the table of the kinds that are read: a new kind is a struct and a row. This package must not know what
the fields mean (``mesh`` does), nor how objects are fetched (``kubernetes`` and ``files`` do).
"""
