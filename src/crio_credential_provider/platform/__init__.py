"""The machine below: the journal, bounded reads, kept parsed forms, JSON.

Knows nothing of images, pulls or clusters.
"""
