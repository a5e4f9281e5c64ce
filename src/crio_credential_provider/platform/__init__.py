"""The machine below: the journal, bounded reads, kept parsed forms, and the shortest way to json, socket and ssl.

Knows nothing of images, pulls or clusters.
"""
