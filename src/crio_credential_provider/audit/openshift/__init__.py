"""registries.conf of OpenShift's nodes, out of the objects of the cluster: the files of the Machine Config Operator
themselves, else what it makes of the mirror sets.
"""

ENFORCING = False
"""The operator's crio.conf has ``short_name_mode = "disabled"``."""
