"""crio-credential-provider: mirror credentials from the pod's own namespace for CRI-O and containerd, pull by pull.

What a run does, in the order of the data (``pull.plugin`` calls it):

1. ``kubernetes.credentialprovider`` reads the kubelet's request, ``kubernetes.serviceaccount`` the claims of its token.
2. ``runtimes.crio.pullsources`` finds the places that CRI-O will ask for the image: mirrors, other locations, itself.
3. ``kubernetes.pullsecrets`` fetches the pull secrets of the pod's namespace from the API server.
4. ``pull.keyring`` selects the credential for each of these places, as CRI-O's own look-up would.
5. ``pull.delivery`` leaves them, in their turn, in one file that CRI-O uses for exactly this pull, and removes.
6. ``kubernetes.credentialprovider`` answers the kubelet; ``pull.audit`` tells the journal who got what from where.

With containerd 2 is ``runtimes.containerd.pullsources``, there is no 5, and the answer of 6 has the credential:
``pull.offer`` says whether it may.

``pull.decision`` is steps 2 to 4, without any effect: what ``explain`` shows is the same call. Each package says what
it knows, and what it must not; which may import which: tests/test_layers.py.
"""

__version__ = "0.1.0"
MARK = f"crio_credential_provider {__version__}"
"""By which ``node.programs`` tells this program and its version: the executable has these bytes."""
