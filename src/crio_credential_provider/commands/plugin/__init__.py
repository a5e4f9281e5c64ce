"""The commands as a plugin of kubectl, for people without access to a node."""
