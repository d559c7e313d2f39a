"""The commands beside ``serve``: each reads its arguments, calls pure code, and prints. They never import grpc."""
