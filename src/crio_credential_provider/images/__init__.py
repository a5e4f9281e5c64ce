"""Images and the credentials for them, by the formats that every runtime shares: references, docker config files.

Only computes: opens no file and no connection, and knows neither Kubernetes nor where a runtime looks for an image.
"""
