"""Files of Kubernetes objects, read once: for commands that need no server and no cluster."""
