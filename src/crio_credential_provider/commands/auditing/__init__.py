"""The command ``audit``: its command line, and what a person is shown of an ``Audit``."""
