"""Container runtimes, a package each: the places that one asks for an image, by its own configuration.

A runtime knows nothing of credentials, of Kubernetes or of another runtime.
"""
