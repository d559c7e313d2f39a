"""What routes and policies ask of clients, as protobuf: one module for each gRFC. Pure.

What one implementation of gRPC would reject is sent in the form that all accept: a client that rejects a resource and has
no earlier one is left with nothing.
"""
