"""What the control plane knows, free of Kubernetes and of xDS: frozen values, compared by content.

Two equal values give byte-equal resources on every replica. This package must not know where values come from, nor
what is made of them.
"""
