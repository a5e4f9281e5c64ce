"""The audit of a cluster: which pulls find a credential for their mirrors, from which secret, and if not, why.

Decides each distinct pull once, with the plugin's own ``decision``, from objects that were collected: files of lists, or
the API server. Writes and prints nothing; ``commands.audit`` does. What an audit comes to is in ``result``.
"""
