"""One node of many: what its pod tells the cluster, and when it may begin.

``state``    how the work stands, for the pod's readiness probe
``cluster``  the same as annotations of the Node object; the turns of the nodes of a DaemonSet

Speaks with the API server as the pod's service account. Knows nothing of what is done on the node.
"""
