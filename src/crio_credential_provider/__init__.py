"""crio-credential-provider: mirror credentials from the pod's own namespace, for CRI-O, one pull at a time.

What a run does, in six steps (each is a module of that name, in the order of the data):

1. ``credentialprovider`` reads the kubelet's CredentialProviderRequest, ``serviceaccount`` the claims of its token.
2. ``registries`` finds the pull sources that CRI-O will ask for the image: mirrors, rewritten locations, the primary.
3. ``pullsecrets`` fetches the pull secrets of the pod's namespace from the API server.
4. ``keyring`` selects the credential for each pull source, as CRI-O's own look-up would.
5. ``authfile`` leaves them in one file that CRI-O uses for exactly this pull, and removes.
6. ``credentialprovider`` answers the kubelet; ``journal`` tells who got what from where, and why others did not.
"""

__version__ = "0.1.0"
