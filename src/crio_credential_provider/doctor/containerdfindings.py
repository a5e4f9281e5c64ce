"""The findings of nodes with containerd, a table as ``catalogue``, of which they are a part."""

from __future__ import annotations

from .entry import ERROR, NOTE, WARNING, Entry

_NOT_ASKED = "containerd does not ask these mirrors: it pulls from the registries themselves."
_NO_LOG = "None: containerd pulls from the registry itself without a warning."
_NO_CREDENTIAL = (
    "The plugin's journal: \"containerd would show the credential of secret ... as well\". The pod's event only has "
    "the "
    'registry\'s answer: "401 Unauthorized", or "pull access denied".'
)

CONTAINERD = {
    "containerd-config-mismatch": Entry(
        ERROR,
        "the plugin reads a different config.toml from containerd",
        "The plugin finds none of containerd's mirrors, or others, and pulls go without the namespace's credentials.",
        "containerd reads the file that its --config names. The plugin reads /etc/containerd/config.toml unless "
        "--containerd-config names another one. The containerd of k3s and RKE2 has its own below /var/lib/rancher.",
        'The plugin\'s journal: "containerd has no mirror for" the registry.',
        "Set --containerd-config to containerd's file.",
    ),
    "containerd-config-refused": Entry(
        ERROR,
        "containerd refuses config.toml",
        "containerd does not start with it, and no pod of this node does; a running containerd keeps what it has read.",
        "containerd reads config.toml and the files in its imports once, when it starts.",
        'containerd\'s log at its start: "failed to load TOML", or "invalid plugin config". The plugin\'s journal has '
        "the "
        "same reason at each pull.",
        "Correct the file, and restart containerd.",
    ),
    "containerd-without-cri": Entry(
        ERROR,
        "containerd's CRI plugin is disabled in config.toml",
        "The kubelet cannot use containerd, and the node is NotReady.",
        "Docker's package containerd.io brings a config.toml that disables it, as Docker does not need it.",
        'The kubelet\'s log: "unknown service runtime.v1.RuntimeService".',
        "Remove cri from disabled_plugins, and restart containerd.",
    ),
    "mirrors-and-config-path": Entry(
        ERROR,
        "registry.mirrors and registry.config_path are both set",
        "containerd does not start its CRI plugin with both, and the node is NotReady after the next restart.",
        "registry.mirrors in config.toml is the older form, config_path with a hosts.toml for each registry replaces "
        "it. This happens when config_path is added to a file that already has mirrors.",
        'containerd\'s log: "`mirrors` cannot be set when `config_path` is provided".',
        "Move the mirrors to hosts.toml files below config_path, and remove registry.mirrors.",
    ),
    "containerd-needs-restart": Entry(
        WARNING,
        "containerd was started before its configuration was changed",
        "containerd uses what it read at its start, while the plugin reads the present files.",
        "containerd reads config.toml and its imports once. hosts.toml files are read at each pull, and need no "
        "restart.",
        "None: the files look right, but have no effect.",
        "systemctl restart containerd",
    ),
    "registry-auth-node-wide": Entry(
        WARNING,
        "config.toml has a credential for a mirror, which every namespace uses",
        "Pods of every namespace pull from this mirror, also those whose namespace has no credential for it.",
        "containerd uses registry.configs.*.auth for each pull that comes without a credential. When the plugin "
        "answers with one of the namespace, that one is used instead.",
        "None: pulls that should be refused work.",
        "Remove the credential from config.toml once the namespaces have secrets of their own, and restart containerd.",
    ),
    "registry-tls-ignored": Entry(
        WARNING,
        "registry.configs.*.tls in config.toml is not used by containerd 2",
        "containerd 2 ignores these CAs, client certificates and insecure_skip_verify, and does not trust the mirror; "
        "containerd 1 does not start with both this and config_path.",
        "It is deprecated since containerd 1.5 in favour of hosts.toml. An update to containerd 2 only logs a warning.",
        '"x509: certificate signed by unknown authority" in the pod\'s event if no other host has the image.',
        "Write ca, client and skip_verify in hosts.toml files below config_path, and remove registry.configs.*.tls.",
    ),
}

HOSTS = {
    "config-path-not-set": Entry(
        ERROR,
        "config_path is not set in config.toml",
        _NOT_ASKED,
        "hosts.toml files are only read below the directories in registry.config_path, which is empty by default until "
        "containerd 2.1. From 2.2 on the default names two directories, which the transfer service takes for the name "
        "of one.",
        _NO_LOG,
        "Set config_path, and restart containerd.",
    ),
    "config-path-several": Entry(
        ERROR,
        "config_path names several directories",
        _NOT_ASKED,
        "Until containerd 2.0 several directories can be given, separated by colons. From 2.1 on images are pulled by "
        "the transfer service, which takes the whole value for the name of one directory.",
        _NO_LOG,
        "Put all hosts.toml files below one directory, and set config_path to that.",
    ),
    "registry-table-misplaced": Entry(
        ERROR,
        "the registry settings are in a table of config.toml that not every release of containerd reads",
        "Releases that do not read it ask the registries themselves and no mirror.",
        'With version = 2 the table is [plugins."io.containerd.grpc.v1.cri".registry], with version = 3, for '
        'containerd 2, [plugins."io.containerd.cri.v1.images".registry]. containerd ignores a table of the other '
        "version without "
        "an error.",
        _NO_LOG,
        "Write the table of the file's version.",
    ),
    "hosts-file-refused": Entry(
        ERROR,
        "containerd cannot use the mirrors of a registry",
        "containerd fails every pull of images of this registry.",
        "Where hosts.toml is there and cannot be read, or an endpoint of registry.mirrors is not a URL, containerd "
        "does not continue with the registry itself.",
        "The pod's event has containerd's reason. The plugin's journal has the same.",
        "Correct the file.",
    ),
    "hosts-file-ignored": Entry(
        ERROR,
        "containerd ignores a hosts.toml",
        "containerd asks the registry itself and not the mirrors of this file.",
        "containerd reads the file at each pull. If it is not valid TOML, or a value has the wrong type or an unknown "
        "capability, the whole file is ignored. Releases differ in what they accept.",
        'containerd\'s log: "failed to decode hosts.toml". Pulls from the registry itself go on.',
        "Correct the file; containerd needs no restart for it.",
    ),
    "hosts-key-ignored": Entry(
        WARNING,
        "containerd ignores a key of a hosts.toml",
        "The setting has no effect.",
        "containerd ignores unknown keys, including misspelled ones. A key belongs to the last table header above it: "
        "server and capabilities of the registry itself must be above the first [host]. capabilities at the top "
        "only counts together with server.",
        "None: containerd accepts the file without a warning.",
        "Move the key to where it belongs, or correct its spelling.",
    ),
    "hosts-file-name": Entry(
        ERROR,
        "a file below config_path has a name that containerd does not look for",
        _NOT_ASKED,
        "containerd only reads hosts.toml, in the directory that is named like the registry.",
        _NO_LOG,
        "Rename the file.",
    ),
    "hosts-directory-name": Entry(
        ERROR,
        "a directory below config_path has a name that containerd does not look for",
        _NOT_ASKED,
        "The directory must be named exactly like the registry in the images' names: docker.io for Docker Hub, and not "
        "registry-1.docker.io; HOST_PORT_ or HOST:PORT for a registry with a port; _default for all that have none. "
        "Wildcards and URLs are not known.",
        _NO_LOG,
        "Rename the directory.",
    ),
    "mirror-credential-exposed": Entry(
        ERROR,
        "containerd would show the credential for a mirror to other hosts",
        "Pulls of images of this registry get no credential of the namespace, unless its secrets have the same one for "
        "each of these hosts.",
        "A pull has one user name and password, which containerd shows in turn to each host of hosts.toml that answers "
        "401, the server last. The plugin only answers if its key names all of them; otherwise the mirror's password "
        "would be sent to the upstream registry whenever the mirror does not have an image, or is down. capabilities "
        "do not keep a host out: for manifest and layers containerd asks every host.",
        _NO_CREDENTIAL,
        "Make the mirror the server of hosts.toml as well, so that containerd asks no other host; or allow it with "
        "--allow-fallback-exposure.",
    ),
    "hosts-without-tls": Entry(
        WARNING,
        "a mirror in hosts.toml is used without verified TLS",
        "Any server at its address gets the namespace's credentials for this mirror, in clear text over the network if "
        "it uses plain HTTP.",
        "skip_verify = true accepts any certificate, and http:// uses no TLS. Pulls work, so it goes unnoticed.",
        "None.",
        "Give the mirror a certificate, name its CA with ca, and remove skip_verify.",
    ),
    "hosts-authorization-header": Entry(
        WARNING,
        "containerd sends a credential of the node to a mirror, for every namespace",
        "Pods of every namespace pull with it; a credential of the namespace is only asked for when it is refused.",
        "A header in hosts.toml or config.toml is sent with each request, whichever pod needs the image.",
        "None: pulls that should be refused work.",
        "Remove the Authorization header once the namespaces have secrets of their own.",
    ),
    "hosts-no-mirrors": Entry(
        NOTE,
        "containerd has no mirror for any registry",
        "The plugin has nothing to do at any pull.",
        "Without a mirror containerd asks the image's own registry, for which the kubelet passes the pod's "
        "imagePullSecrets itself.",
        'The plugin\'s journal: "containerd has no mirror for" the registry.',
        "Write a hosts.toml with [host] tables for each registry; without mirrors this node does not need the plugin.",
    ),
}
