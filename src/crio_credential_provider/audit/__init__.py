"""The audit of a cluster: which pulls find a credential for their mirrors, from which secret, and if not, why.

Decides each distinct pull once, with the plugin's own ``decision``, from objects that were collected: out of files with
lists, or from the API server. Prints nothing; ``commands.auditing`` does. What an audit comes to is in ``result``.
"""
