"""What a tenant may see of a cluster from anywhere, with a kubeconfig alone: a workload, what its pull asks for, how
the nodes are configured. Decides nothing about pulls; prints nothing.
"""
