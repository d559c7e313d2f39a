"""Kubernetes objects from an API server, kept up to date in a store: lists, polls and watches.

The threads here only read and decode; what they find is applied in the event loop. This package must not know what the
objects mean, nor which kinds there are: ``objects.kinds`` has the table.
"""
