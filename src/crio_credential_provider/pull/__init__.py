"""One pull for the kubelet: standard input, decision, auth file in its turn, standard output, journal, exit status.

Knows which credential a pull gets, and how an auth file is handed over. The rules of the cluster, of images and of the
runtime are asked of `kubernetes`, `images` and `runtimes`; nothing here knows a file format of theirs, a command for
people or a simulation.
"""
