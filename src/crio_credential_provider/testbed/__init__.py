"""What the demo and the tests stand on: an API server, a registry, a kubelet and CRI-O, simulated on 127.0.0.1.

Held against recordings of the real ones (tests/recordings). Nothing but the demo and the tests imports it.
"""
