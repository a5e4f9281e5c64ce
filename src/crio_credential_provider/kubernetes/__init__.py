"""What the kubelet and the API server say: request and answer, token, kubeconfig, pull secrets, pull intents.

Opens the only network connection of a pull. Knows no mirror, no container runtime and no auth file.
"""
