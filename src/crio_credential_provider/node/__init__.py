"""A node as it is found: what runs, how it was started, what is configured, each with its file and line.

Only reads files and asks versions of programs; judges nothing (`doctor`), and no pull runs through it.
"""
