"""The greeter, written once for hello and howdy: the server program and the client program.

It must not know which of them runs it: their names, greetings, ports and targets are settings. It must not
know the xDS server's code either; what xDS brings is read from gRPC itself.
"""
