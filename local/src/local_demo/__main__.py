"""The command `local-demo`: up, scale and stop."""
