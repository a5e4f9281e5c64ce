"""Pulls on a real node: a control plane, a private registry, CRI-O and a kubelet as plain processes.

``make node-test NODE_BIN=DIR`` runs these tests. In the order in which they come up:

    binaries      the programs of Kubernetes and CRI-O, from NODE_BIN
    sandbox       namespaces, mounts and cgroups around the whole run; all of it ends with the run
    processes     one process with its log; waiting with a deadline
    pki           the cluster's certificates and kubeconfigs
    controlplane  etcd, API server, controller manager
    registry      the private mirror behind a delaying proxy, and the images in it
    journal       journald
    units         what systemd would run and mount
    runtimes      CRI-O, and containerd
    kubelet       the kubelet
    providers     the program as it is installed by its own commands, and its peer
    tenants       namespaces with a credential, and their pods
    canary        passwords that no log may have
    node          all of these together
    systemd       what `install` asks: restarts of the kubelet and CRI-O, mounts, last words
    bare          the node without the plugin, for `install`
    fleet         Helm, and what the chart's DaemonSet takes beside the control plane
    table         held or not held, in a column for each provider
"""
