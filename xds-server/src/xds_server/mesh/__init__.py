"""Kubernetes objects to the tables of the model. Pure: no I/O, no clock, no threads.

``store`` keeps the objects and works out which entries of which tables a change of them touches; ``services`` makes the
entries of one service. This package must not know where objects come from, nor what is made of the tables.
"""
