"""The plugin brought onto a node, verified there, and taken away again: whatever happens, the node's kubelet can start.

``plan``         facts of the node and what was asked for -> the changes, in the order in which they are safe; pure
``flags``        the kubelet's two flags in the place from which this node's kubelet takes its command line
``changes``      a path before and after: observed, and brought from one state to the other in one step
``store``        what is kept of a rollout below /var/lib, and the lock that keeps two from each other
``transaction``  changes written down before they are made, undone from what was written down
``back``         what was installed -> the changes that take it away; the last rollout -> those that undo it
``preflight``    doctor on the planned node, and what of it stops a rollout
``services``     the node's systemd: what must be told of the changes
``health``       whether the kubelet is up, and its node Ready
``apply``        all of that in a row: done, verified, or undone
``status``       what is installed, and how the kubelet is

Knows nothing of command lines and of how a person is told. Nothing else of the program writes to the node's
configuration, and nothing here is decided while it is written: what is not in the plan is not touched.
"""
