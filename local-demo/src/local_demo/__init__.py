"""The five programs of the demo as processes of this machine, without a cluster: behind `task local`.

A supervisor plays the parts that Kubernetes plays elsewhere: it starts the programs and keeps them running as
kubelet does, and describes the replicas to xds-server in files of the same objects that the EndpointSlice
controller keeps in a cluster.
Of xDS it knows only the bootstrap that it gives to the clients.
"""
