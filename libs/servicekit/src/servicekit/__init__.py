"""What every program here shares: settings, logs, signals, health and listening.

It imports nothing of them: no greeter, no xDS, no Kubernetes.
"""
