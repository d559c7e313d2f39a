"""The client status discovery service: what every connected client was sent, and whether it accepted it."""
