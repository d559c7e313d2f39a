"""What every program here shares: settings, logs, signals, health and listening.

It must not know what the programs do: no greeter, no xDS, no Kubernetes.
"""
