"""Every finding by its code: how bad it is, what a person sees of it, and the story behind it.

A table, one entry per finding, and so longer than other files. The text is for people: ``doctor --explain CODE``
prints it, docs/reference/findings.md is made of it. What is told here of the kubelet, CRI-O and the API server is in
docs/reference/contracts.md and docs/reference/registries.md.

>>> CATALOGUE["cache-type-missing"].severity
'error'
"""

from __future__ import annotations

from .containerdfindings import CONTAINERD, HOSTS
from .entry import ERROR, NOTE, SEVERITIES, WARNING, Entry

__all__ = ("AREAS", "CATALOGUE", "ERROR", "NOTE", "SEVERITIES", "WARNING", "Entry", "sentence")


def sentence(text: str) -> str:
    """The text as a sentence; a name such as matchImages or config_path stays as it is."""
    word = text.split(" ", 1)[0]
    is_name = word != word.lower() or "_" in word or "." in word or word.startswith("containerd")
    return f"{text if is_name else text[0].upper() + text[1:]}."


_KUBELET_DOWN = "The kubelet exits with an error when it reads this file, and the node is NotReady."
_REGISTER = (
    'The kubelet\'s log: "Failed to register CRI auth plugins", and the reason. No event, as the kubelet does not run.'
)
_SILENT = "The plugin is not run for such pulls; the mirror is asked without the namespace's credential."
_NO_AUTH = (
    'The pod\'s event only has the registry\'s answer: "authentication required" or "unauthorized". '
    "The journal has no entry of the plugin for this pull."
)
_PLUGIN_FAILS = "The plugin fails for every pull, and the kubelet continues the pull without credentials."
_PLUGIN_SIGNS = (
    "The kubelet's log has \"credential from external registry credential provider\" with the plugin's line on "
    "stderr; the metric kubelet_credential_provider_plugin_errors goes up. The pod's event says "
    '"authentication required", and nothing about the plugin.'
)

_BINARY = {
    "plugin-missing": Entry(
        ERROR,
        "the plugin's program is not found",
        "The kubelet does not start with this configuration; a running kubelet cannot run the plugin.",
        "The kubelet runs <bin dir>/<name of the provider>, and only checks for it when it starts. A program "
        "that goes missing later (an update that stopped half-way, a link to a version that was removed) is only "
        "noticed at pulls: the kubelet logs it, and continues without credentials.",
        'At start: "Failed to register CRI auth plugins" ... "plugin binary executable ... did not exist". Later: '
        '"error execing credential provider plugin" in the kubelet\'s log; the pod sees "authentication required".',
        "Install the program under that name in the kubelet's --image-credential-provider-bin-dir.",
    ),
    "plugin-not-executable": Entry(
        ERROR,
        "the plugin's program is not executable",
        "The kubelet does not start with this configuration; a running kubelet cannot run the plugin.",
        "Copying the program with a tool that drops modes (a ConfigMap, an archive without modes, "
        "another system) removes its execute permission. The kubelet checks it when it starts.",
        'At start: "Failed to register CRI auth plugins" ... "permission denied". Later: "permission denied" in the '
        "kubelet's log at each pull.",
        "Run chmod 0755 on the program.",
    ),
    "plugin-other-name": Entry(
        ERROR,
        "the plugin's program has a different name from the one in the configuration",
        "The kubelet does not start with this configuration; a running kubelet cannot run the plugin.",
        "The name of a provider in the CredentialProviderConfig must be exactly the name of the file in the "
        "bin directory: no suffix, no version, no architecture. Release files often have one.",
        '"plugin binary executable ... did not exist" in the kubelet\'s log.',
        "Rename the program, or link it under the provider's name.",
    ),
    "plugin-cannot-run": Entry(
        ERROR,
        "the system cannot start the plugin's program",
        _PLUGIN_FAILS,
        "At its start the kubelet only checks that the program exists and is executable. An incomplete "
        "copy, a download for another architecture, a script whose interpreter was removed by a system update: each "
        "is only noticed at pulls.",
        '"exec format error" or "no such file or directory" in the kubelet\'s log at each pull; the pod sees '
        '"authentication required".',
        "Install the program for this node's system and architecture; try it with --version.",
    ),
    "plugin-not-fips": Entry(
        WARNING,
        "the node is in FIPS mode, and the plugin's cryptography is not the node's validated one",
        "Pulls work. The plugin's TLS with the API server is done by a cryptographic module that is not validated.",
        "The executable has its own OpenSSL, without a FIPS provider. It neither reads the node's OpenSSL "
        "configuration nor loads the node's FIPS provider, so FIPS mode, which the kernel and the node's libraries "
        "follow, has no effect on it. It matters if the node must comply with FIPS 140.",
        "None.",
        "Use the wheel, or the result of make build, on the node's own python3: it uses the node's OpenSSL in its FIPS "
        "configuration.",
    ),
    "plugin-world-writable": Entry(
        ERROR,
        "users other than root can replace the plugin's program",
        "These users can run anything as root on this node, and read every token that the kubelet "
        "passes to the plugin.",
        "The kubelet runs the program as root and checks neither its mode nor its owner. Nothing "
        "fails, so it goes unnoticed until it is exploited.",
        "None.",
        "Run chown root:root and chmod 0755 on the program and its directory.",
    ),
}

_KUBELET = {
    "kubelet-not-found": Entry(
        WARNING,
        "no kubelet was found",
        "The kubelet's configuration could not be checked; this may be the wrong machine.",
        "doctor looks for a running kubelet, k3s or RKE2, and for their units; with --root for units alone. A kubelet "
        "that is started by a script, or inside a container under another name, is not found.",
        "None.",
        "Run doctor on the node, as root; with --root give the root of a node's file system; or check one file with "
        "--config FILE.",
    ),
    "kubelet-flag-unknown": Entry(
        ERROR,
        "the kubelet is started with an unknown flag",
        _KUBELET_DOWN,
        "The kubelet exits with an error at an unknown flag: a misspelled one, or a long one with a single "
        "dash, which it reads as one flag per letter. A running kubelet keeps the flags that it was started with.",
        'The kubelet\'s log at its start: "failed to parse kubelet flag: unknown flag", or "unknown shorthand flag".',
        "Correct the flag, with two dashes, and restart the kubelet.",
    ),
    "kubelet-without-provider-config": Entry(
        ERROR,
        "the kubelet has no CredentialProviderConfig",
        "The plugin is never run: all pulls go without the namespace's credentials.",
        "Credential providers are only enabled by two flags, --image-credential-provider-config "
        "and --image-credential-provider-bin-dir. A configuration file in the right place without the flags has no "
        "effect, and nothing reports it. On k3s and RKE2 the flags are not set if the directory or the file is "
        "missing.",
        _NO_AUTH,
        "Give the kubelet both flags and restart it.",
    ),
    "kubelet-without-bin-dir": Entry(
        ERROR,
        "the kubelet has no directory for the plugin's program",
        _KUBELET_DOWN,
        "Both flags are needed; without the directory the kubelet looks in the empty path.",
        _REGISTER,
        "Give the kubelet --image-credential-provider-bin-dir and restart it.",
    ),
    "kubelet-too-old": Entry(
        ERROR,
        "the kubelet cannot pass service account tokens",
        "The plugin gets no token and cannot read the namespace's secrets; with tokenAttributes in "
        "the configuration the kubelet does not start.",
        "Tokens for credential providers were added in Kubernetes 1.33, behind a feature gate that is enabled by "
        "default since 1.34.",
        '"unknown field tokenAttributes" in the kubelet\'s log at its start.',
        "Update the node to Kubernetes 1.34 or newer.",
    ),
    "feature-gate-off": Entry(
        ERROR,
        "the feature gate KubeletServiceAccountTokenForCredentialProviders is off",
        "With tokenAttributes in the configuration the kubelet does not start; without them the plugin gets no token.",
        "In Kubernetes 1.33 the gate is off by default; from 1.34 it is on by default. A flag takes "
        "precedence over the drop-ins of --config-dir, and these over the configuration file.",
        '"tokenAttributes is not supported when KubeletServiceAccountTokenForCredentialProviders feature gate is '
        "disabled\" in the kubelet's log at its start.",
        "Set the gate to true in the KubeletConfiguration, or update to Kubernetes 1.34.",
    ),
    "pull-intents-off": Entry(
        WARNING,
        "the feature gate KubeletEnsureSecretPulledImages is off",
        "When several pods of a namespace pull one image at the same time, some first pulls fail and are repeated; and "
        "every pod of the node may use an image that was pulled with the credentials of one namespace.",
        "With this gate the kubelet keeps a pull intent for each pull that is to come, by which the plugin knows "
        "whether a file still waits for its pull, and a pull record, which ties an image to the credentials that it "
        "was pulled with. It is on by default from Kubernetes 1.35.",
        'Some of many pods that start at the same time have the event "Failed to pull image", and run half a minute '
        "later.",
        "Remove the gate from the KubeletConfiguration and the kubelet's flags, and restart the kubelet.",
    ),
    "kubelet-needs-restart": Entry(
        WARNING,
        "the kubelet was started before its configuration was changed",
        "The kubelet uses what it read at its start; the files' present content takes effect after a restart.",
        "The kubelet reads the CredentialProviderConfig and its flags once, and does not notice or report a change.",
        "None: the files look right, but have no effect.",
        "systemctl restart kubelet",
    ),
    "runtime-not-crio": Entry(
        ERROR,
        "the kubelet's container runtime is neither CRI-O nor containerd",
        "No runtime reads the auth files that the plugin writes; they stay until they are removed as stale.",
        "CRI-O reads auth files per namespace, and containerd's mirrors are known to the plugin. Another runtime "
        "(cri-dockerd) pulls with the credentials that the kubelet passes, and the plugin returns none for it.",
        'The plugin\'s journal says "Wrote auth file to", and the pull still fails.',
        "Use this plugin on nodes with CRI-O or containerd only.",
    ),
    "runtime-mismatch": Entry(
        ERROR,
        "the plugin works for a runtime that this node does not pull with",
        "The plugin reads the mirrors of the other runtime, and every pull goes without the namespace's credentials.",
        "With --runtime=auto, the default, the plugin takes the runtime that the kubelet's container runtime endpoint "
        "names, and CRI-O where it cannot know that: with k3s, and without a directory /etc/containerd. A "
        "configuration that was made for nodes with another runtime may name that one.",
        "The plugin's journal says that there is no mirror for the image, or that it wrote an auth file, which no "
        "runtime takes.",
        "Remove --runtime from the arguments, or set it to the node's runtime.",
    ),
    "flags-without-effect": Entry(
        NOTE,
        "arguments of the plugin are for another runtime",
        "They have no effect on this node.",
        "CRI-O gets an auth file for each pull, which is what --auth-dir, --hand-off-timeout and the like are for. "
        "With containerd the kubelet passes the credential, and no file is written. --containerd-config and "
        "--allow-fallback-exposure are for containerd alone.",
        "None.",
        "Remove the arguments, unless nodes with the other runtime share this file.",
    ),
}

_CONFIG = {
    "config-missing": Entry(
        ERROR,
        "the CredentialProviderConfig is not found",
        _KUBELET_DOWN,
        "The path in the kubelet's flag does not exist.",
        _REGISTER,
        "Create the file, or correct the flag.",
    ),
    "config-refused": Entry(
        ERROR,
        "the kubelet refuses the CredentialProviderConfig",
        _KUBELET_DOWN,
        "The kubelet decodes the file strictly: an unknown key, a duplicate key or a missing "
        "required key is an error, in any provider's entry. A running kubelet keeps the configuration that it has "
        "read, so the error only shows at its next restart: often weeks later, at an update, on all nodes at once.",
        _REGISTER,
        "Correct the file; doctor prints the corrected file if it can.",
    ),
    "provider-missing": Entry(
        ERROR,
        "the CredentialProviderConfig has no entry for this plugin",
        "The plugin is never run.",
        "The kubelet only runs the providers that are listed, and no other program in the directory.",
        _NO_AUTH,
        "Add the entry: crio-credential-provider manifests --merge FILE prints the file with it.",
    ),
    "provider-name-doubtful": Entry(
        WARNING,
        "the provider's name is similar to the name of this plugin's program",
        "The kubelet looks for a program of exactly that name, and does not start without it.",
        "The kubelet runs <bin dir>/<name of the provider>. The file alone does not show whether such a program "
        "exists; on a node doctor checks it, and reports a missing program as plugin-missing.",
        _REGISTER,
        "Set name: crio-credential-provider, or install the program under the name in the file.",
    ),
    "token-attributes-missing": Entry(
        ERROR,
        "the entry has no tokenAttributes: the plugin gets no token",
        "Every request comes without a token. The plugin does not know the namespace and provides no credential, and "
        "the pull goes without the namespace's credentials.",
        "The kubelet passes a token of the pod's service account only to a provider whose entry has "
        "tokenAttributes. Without them the plugin is still run, so that it seems to work.",
        'The plugin\'s journal: "the request has no service account token". The pod\'s event: "authentication '
        'required".',
        "Add tokenAttributes with serviceAccountTokenAudience, cacheType and requireServiceAccount.",
    ),
    "cache-type-missing": Entry(
        ERROR,
        "tokenAttributes has no cacheType, which Kubernetes 1.34 and newer require",
        _KUBELET_DOWN,
        "The key was added in 1.34 and is required since then. With a configuration written for 1.33 the kubelet does "
        "not start after the node's update.",
        'The kubelet\'s log: "Failed to register CRI auth plugins" ... "cacheType is required to be set".',
        "Add cacheType: Token.",
    ),
    "cache-type-unknown": Entry(
        ERROR,
        "tokenAttributes has cacheType, which Kubernetes 1.33 refuses",
        _KUBELET_DOWN,
        "The key was added in 1.34; the kubelet of 1.33 rejects unknown keys.",
        'The kubelet\'s log: "Failed to register CRI auth plugins" ... "unknown field".',
        "Remove cacheType, or update the node.",
    ),
    "cache-type-service-account": Entry(
        NOTE,
        "cacheType is ServiceAccount, but this plugin's answers are for one pod",
        "No known effect with this plugin, whose answers are never cached.",
        "An answer is valid for one pod and one pull, which is what Token means. ServiceAccount "
        "means that it is valid for all pods of the service account. In current kubelets it only selects the key of a "
        "cached answer; a later version may merge concurrent calls by it, and then pods would share a file.",
        "None.",
        "Set cacheType: Token.",
    ),
    "require-service-account": Entry(
        NOTE,
        "requireServiceAccount is false",
        "The plugin is also run for pods without a service account, static pods above all, for which it "
        "can do nothing.",
        "A static pod's request has no token. The plugin answers that there is nothing to do, and "
        "the pull continues as without it, a little later.",
        'The plugin\'s journal: "the request has no service account token", for each pull of a static pod.',
        "Set requireServiceAccount: true.",
    ),
    "audience-rejected": Entry(
        ERROR,
        "the API server does not accept tokens of the configured audience",
        "The API server answers the plugin's request for secrets with 401; no credential is provided.",
        "A token is only valid for its audience, and the API server only accepts its own audiences. "
        "The kubelet gets a token for any configured audience, so nothing fails before the plugin uses it. The text "
        "must match exactly, including a slash at the end. kubeadm's own is "
        "https://kubernetes.default.svc.cluster.local, OpenShift's and many others' https://kubernetes.default.svc.",
        'The plugin\'s journal and the kubelet\'s log: "answered 401". The pod\'s event: "authentication required".',
        "Set serviceAccountTokenAudience to the API server's own audience, in the node's ClusterRole as well.",
    ),
    "default-cache-duration": Entry(
        WARNING,
        "defaultCacheDuration is not 0s",
        "No effect with this plugin, which always answers 0s. The Go provider of the same name sends "
        "no duration: with it the second pull of an image finds no auth file, and fails.",
        "The kubelet caches an answer without a duration for this long, even an empty one. Meanwhile "
        "the plugin is not run, and CRI-O finds no file: the first container of a pod starts, the second one does not.",
        "The plugin's journal has an entry for the first pull only.",
        "Set defaultCacheDuration: 0s.",
    ),
    "match-images-mirror": Entry(
        ERROR,
        "matchImages has a mirror instead of the registry in the pods' image names",
        "The pattern matches no pull that goes through the mirror: " + _SILENT[0].lower() + _SILENT[1:],
        "The kubelet compares matchImages with the image name in the pod. It does not know mirrors, "
        "which CRI-O applies later, so a mirror's name never matches. It only makes sense if pods use the mirror's "
        "name themselves, and then with --mirror-registry.",
        _NO_AUTH,
        "Write the source registry (docker.io, quay.io), not the mirror.",
    ),
    "match-images-glob-path": Entry(
        ERROR,
        "matchImages has a glob in a path, where it is taken literally",
        "The pattern matches nothing. " + _SILENT,
        "Globs only work in the host, one * for one label. The path is a literal prefix of the image's "
        "path: docker.io/* only matches a repository that begins with a star. Without a path the pattern matches the "
        "whole registry.",
        _NO_AUTH,
        "Remove the glob: docker.io, or docker.io/team.",
    ),
    "match-images-incomplete": Entry(
        ERROR,
        "a registry with mirrors is not matched by matchImages",
        "Pulls of images of that registry: " + _SILENT[0].lower() + _SILENT[1:],
        "registries.conf and matchImages are separate files, often written by different people, and must agree. A * in "
        "matchImages matches exactly one label of a host, where a *. in registries.conf matches any number.",
        _NO_AUTH,
        "Add the registry to matchImages.",
    ),
    "match-images-overlap": Entry(
        WARNING,
        "another provider's matchImages match the same images",
        "The kubelet runs both for such a pull and passes the other one's credentials to CRI-O, which prefers "
        "them for sources on the image's own host.",
        "All providers that match are run, and their answers are merged. Credentials with a user "
        "name are passed to CRI-O with the pull; for mirrors on other hosts CRI-O ignores them and uses the auth "
        "file. A cloud provider that fails or hangs delays each such pull.",
        "Two entries of providers in the kubelet's log for one pull.",
        "Narrow one of the two, unless this is intended.",
    ),
    "plugin-root": Entry(
        ERROR,
        "the plugin is configured with --root and looks for the node's files below another directory",
        "The plugin writes auth files where CRI-O does not look for them, and finds none of the node's own files: "
        "every pull goes without the namespace's credentials.",
        "--root is for trying the plugin on a directory that holds a node's files. Every default path is "
        "below it then: registries.conf, the kubeconfig, the auth directory.",
        "The plugin's journal names paths below that directory.",
        "Remove --root from args, or its variable from env.",
    ),
    "plugin-arguments-refused": Entry(
        ERROR,
        "the plugin refuses its arguments or variables",
        _PLUGIN_FAILS,
        "The kubelet passes args and env on unchecked. The plugin exits with status 2 at each run, "
        "or with 1 when it uses the wrong value.",
        _PLUGIN_SIGNS,
        "Correct args or env in the entry; crio-credential-provider --help lists them.",
    ),
    "plugin-variable-unknown": Entry(
        WARNING,
        "a variable with the plugin's prefix in env is unknown",
        "The variable has no effect: the setting keeps its default.",
        "Each flag of the plugin can also be set by an environment variable, CRIO_CREDENTIAL_PROVIDER_ and the "
        "flag's name. The plugin ignores unknown ones, so a misspelled variable is not an error.",
        "The plugin's journal has a warning at each run.",
        "Correct the variable's name, or remove it; crio-credential-provider --help lists the flags.",
    ),
    "plugin-times-too-long": Entry(
        WARNING,
        "--deadline and --hand-off-timeout add up to more than the kubelet waits",
        "When the API server is slow, a run waits for its turn for less than --hand-off-timeout: it answers after "
        "at most 50 s, and a background process writes the auth file.",
        "The kubelet kills a plugin after 60 s and continues without credentials. To avoid that, the "
        "plugin shortens its wait for the file of an earlier run, regardless of its flags.",
        'The plugin\'s journal: "Queued the auth file", earlier than --hand-off-timeout.',
        "Set the two to less than 60s together.",
    ),
}

_CRIO = {
    "crio-too-old": Entry(
        ERROR,
        "CRI-O is too old to read auth files of namespaces",
        "CRI-O does not read the auth files that the plugin writes, and every pull goes without the namespace's "
        "credentials.",
        "CRI-O looks for <namespaced_auth_dir>/<namespace>-<sha256>.json since 1.34.3. An older "
        "one does not, and logs nothing.",
        'The plugin\'s journal says "Wrote auth file to"; CRI-O never says "Using auth file for namespace". Files pile '
        "up until they are removed as stale.",
        "Update CRI-O to 1.34.3 or newer.",
    ),
    "crio-conf-refused": Entry(
        ERROR,
        "a configuration file of CRI-O cannot be parsed",
        "CRI-O will not start again, and the node will be NotReady; its settings for auth files are not known.",
        "CRI-O reads crio.conf and every file of crio.conf.d at its start. A running CRI-O keeps what it has read.",
        'CRI-O\'s log at its start: "unable to decode configuration".',
        "Correct the file.",
    ),
    "crio-key-ignored": Entry(
        WARNING,
        "CRI-O ignores a key that is in the wrong table or misspelled",
        "The setting has no effect: CRI-O uses its default.",
        "namespaced_auth_dir and global_auth_file are options of [crio.image]. CRI-O ignores unknown keys, "
        "and known ones in another table.",
        "None: CRI-O accepts the file without a warning.",
        "Write the option below [crio.image], with CRI-O's spelling.",
    ),
    "auth-dir-mismatch": Entry(
        ERROR,
        "the plugin writes auth files where CRI-O does not look for them",
        "Every pull goes without the namespace's credentials, and files pile up in a directory that CRI-O does not "
        "empty.",
        "CRI-O's namespaced_auth_dir (a hidden option of [crio.image]) and the plugin's --auth-dir must "
        "be the same directory. CRI-O reads every file of crio.conf.d; the last one wins.",
        "The plugin's journal says \"Wrote auth file to <its directory>\"; CRI-O's debug log says "
        '"Looking for namespaced auth JSON file in: <the other>".',
        "Set both to the same directory, and restart CRI-O if its setting changed.",
    ),
    "registries-conf-mismatch": Entry(
        ERROR,
        "the plugin reads a different registries.conf from CRI-O",
        "The plugin may find other sources than CRI-O asks, and provide credentials for the wrong ones, or none.",
        "CRI-O can be started with --registries-conf and --registries-conf-dir, which the plugin does not see. It "
        "has flags of the same names.",
        "\"Trying to access\" in CRI-O's log names sources that the plugin's journal does not.",
        "Give the plugin the same --registries-conf and --registries-conf-dir.",
    ),
}

_AUTH_DIR = {
    "auth-dir-owner": Entry(
        ERROR,
        "the auth directory is not owned by root",
        _PLUGIN_FAILS,
        "Its owner could replace the files in it, and so choose the credentials of other users' pulls. "
        "The plugin refuses to write there.",
        _PLUGIN_SIGNS,
        "Run chown root:root on the directory.",
    ),
    "auth-dir-mode": Entry(
        ERROR,
        "users other than root can write to the auth directory",
        _PLUGIN_FAILS,
        "These users could replace the files, and so choose the credentials of other users' pulls. The plugin "
        "refuses to write there. Read permission for others is harmless: CRI-O creates the directory that way, and "
        "the files are for root only.",
        _PLUGIN_SIGNS,
        "Run chmod 0700 on the directory.",
    ),
    "auth-dir-unusable": Entry(
        ERROR,
        "the plugin cannot write to the auth directory",
        _PLUGIN_FAILS,
        "The plugin creates the directory if it is missing. It cannot if a file or a broken link "
        "has its name, or if the file system is read-only or full.",
        _PLUGIN_SIGNS,
        "Make it a directory owned by root with mode 0700, on a writable file system.",
    ),
    "auth-dir-on-disk": Entry(
        WARNING,
        "the auth directory is on a disk",
        "Credentials are written to a disk at each pull, and can be read from it later: from a backup, a snapshot, or "
        "the disk itself after it was removed.",
        "CRI-O removes each file after its pull, but removed data can remain on a disk.",
        "None.",
        "Mount a tmpfs there before CRI-O and the kubelet start.",
    ),
    "auth-dir-stale-files": Entry(
        WARNING,
        "there are stale auth files",
        "Each has credentials of a namespace that a later pull of the same repository may use, "
        "even after the secret was changed.",
        "CRI-O takes a file at its pull and removes it. The plugin removes stale files at the end "
        "of each run, so old ones mean that it no longer runs, or that another provider wrote them.",
        "Old files in the directory.",
        "crio-credential-provider gc",
    ),
    "auth-dir-files-left-in-use": Entry(
        WARNING,
        "a CRI-O that was killed left auth files in in-use",
        "Each has credentials of a namespace, which no pull uses any more and nothing removes until the next boot.",
        "CRI-O moves an auth file to in-use for the time of its pull and removes it afterwards. One that is killed, or "
        "crashes, during pulls does not, and the next one does not look there.",
        "Files in in-use that are older than the running CRI-O.",
        "crio-credential-provider gc --in-use",
    ),
    "cache-dir-unusable": Entry(
        WARNING,
        "the plugin cannot write to its cache directory",
        "Pulls of one image by several pods at the same time may share one auth file, and all but one of them fail; "
        "each run parses its configuration again.",
        "Runs for one image take turns with a lock in --cache-dir. Without it they do not wait for each other.",
        'The plugin\'s journal: "runs do not wait for each other".',
        "Make it a directory owned by root, or set another one with --cache-dir.",
    ),
    "global-auth-file-mismatch": Entry(
        WARNING,
        "CRI-O has a different global auth file from the plugin",
        "In pulls with an auth file of the plugin, sources without a credential in the namespace's "
        "secrets get none, though CRI-O's file has one for them.",
        "CRI-O does not read its global_auth_file when it has an auth file from the plugin. So the plugin copies "
        "what a pull needs from --global-auth-file, by default /var/lib/kubelet/config.json.",
        "A pull from the image's own registry, or from a mirror that only the node has credentials for, fails with "
        '"authentication required" once the namespace has a secret for another source.',
        "Set the plugin's --global-auth-file to CRI-O's path.",
    ),
    "global-auth-file-refused": Entry(
        WARNING,
        "the node's global auth file cannot be used",
        "Sources without a credential in the namespace's secrets get none, though the node may have one for them.",
        "CRI-O does not read the global file when it has an auth file from the plugin. So the plugin copies what a "
        "pull needs from it; a broken file is ignored.",
        'The plugin\'s journal: "the global auth file ... is ignored".',
        "Correct the file: it is JSON as written by podman login.",
    ),
}

_REGISTRIES = {
    "registries-conf-refused": Entry(
        ERROR,
        "CRI-O refuses registries.conf",
        "Every pull on this node fails, of every image; a running CRI-O keeps what it has read.",
        "One broken file, drop-ins included, makes the whole configuration invalid. CRI-O reads it at "
        "its start and on reload, so the error shows late.",
        "The pod's event and CRI-O's log have the same reason; the plugin's journal has it as well.",
        "Correct the file.",
    ),
    "registries-drop-ins-ignored": Entry(
        WARNING,
        "the drop-in directory of registries.conf is a link, which CRI-O does not follow",
        "Its files are ignored: their mirrors are not asked, and what they block is not blocked.",
        "CRI-O walks the directory, and does not follow a link at its start. Links to files in the "
        "directory are followed; so are links above it. Newer releases of the library that reads these files do "
        "follow it: another tool on the node may see mirrors that CRI-O does not.",
        'CRI-O\'s log has no error. Its "Trying to access" does not name the mirrors of these files.',
        "Make it a directory, with the files in it.",
    ),
    "registries-table-swapped": Entry(
        WARNING,
        "a table of registries.conf sends a private registry to a public one",
        "Pulls of the public registry's images ask no mirror: the table is for images that pods name by the private "
        "one.",
        "prefix is what pods name, location is what CRI-O asks instead. Swapping them causes no error.",
        "None: CRI-O asks the image's own registry.",
        "Swap prefix and location, unless pods name the private registry and it no longer exists.",
    ),
    "registries-drop-in-name": Entry(
        WARNING,
        "a file among registries.conf's drop-ins is ignored, as its name does not end in .conf",
        "It is ignored: its mirrors are not asked, and what it blocks is not blocked.",
        "CRI-O's library only reads files of registries.conf.d whose names end in .conf. A package "
        "update leaves .rpmsave or .rpmnew files, an editor a copy.",
        "None: CRI-O asks the image's own registry.",
        "Rename the file, or remove it.",
    ),
    "registries-key-ignored": Entry(
        WARNING,
        "a key of registries.conf is ignored by CRI-O",
        "The setting has no effect: a mirror is not asked, a registry is not blocked, a short name is not resolved.",
        "In TOML a key belongs to the last table header above it. What is written or appended "
        "below a [[registry.mirror]] is a key of that mirror, even if it is meant for the whole file. CRI-O's library "
        "ignores unknown keys, including misspelled ones and those of other programs.",
        "None: CRI-O accepts the file without a warning.",
        "Move the key to where it belongs, or correct its spelling.",
    ),
    "registries-table-ignored": Entry(
        WARNING,
        "a file of registries.conf has two tables for one prefix",
        "CRI-O uses the first and ignores the second: its mirrors are not asked.",
        "This happens when two files are joined, or a block is appended twice (cat >>). Within one file the first "
        "table is used; between files the later one replaces the earlier one as a whole.",
        "None: CRI-O accepts the file without a warning.",
        "Join the two tables into one.",
    ),
    "registries-table-unmatched": Entry(
        WARNING,
        "no image name begins with the prefix of a table in registries.conf",
        "CRI-O never uses the table: its mirrors are not asked, and what it blocks is not blocked.",
        "CRI-O normalizes each image name before it looks for a table: docker.io for index.docker.io and for a "
        "name without a registry, library/ for the official images there, and no tag or digest. It compares the "
        "prefix literally with that. *. at the beginning is the only wildcard, and a prefix of * matches nothing.",
        "None: CRI-O accepts the file without a warning, and asks the image's own registry.",
        "Write the prefix like image names: docker.io, docker.io/library/nginx, quay.io/team.",
    ),
    "credential-helpers-without-auth-file": Entry(
        ERROR,
        "the list credential-helpers in registries.conf lacks containers-auth.json",
        "CRI-O reads no auth file, the plugin's included.",
        "The list says where CRI-O looks for credentials. containers-auth.json means auth "
        "files; without it they are not read.",
        "The plugin's journal: \"credential-helpers in registries.conf lacks containers-auth.json: CRI-O reads no auth "
        'file".',
        "Add containers-auth.json to the list.",
    ),
    "no-mirrors": Entry(
        NOTE,
        "no table of registries.conf sends images to a mirror or another location",
        "The plugin has nothing to do at any pull.",
        "Without a mirror CRI-O asks the image's own registry, for which the kubelet passes the "
        "pod's imagePullSecrets itself.",
        'The plugin\'s journal: "no table of registries.conf sends this image to a mirror or another location".',
        "Add [[registry]] tables with mirrors; without mirrors this node does not need the plugin.",
    ),
    "mirror-location-unusable": Entry(
        ERROR,
        "a mirror's location gives an invalid image reference",
        "CRI-O fails every pull of that table's images, from the other sources as well.",
        "CRI-O accepts the file, and replaces the prefix with the location at each pull. With upper "
        "case in a path, a space, or a host without a dot or a port the result is not a reference, or means another "
        "one, and the pull fails.",
        "The pod's event and CRI-O's log: \"rewriting reference\", and the reason. The plugin's journal has the same.",
        "Correct the location: HOST[:PORT][/PATH], with a dot or a port in its host, its path in lower case.",
    ),
    "mirror-host-underscore": Entry(
        WARNING,
        "a mirror's host has an underscore",
        "CRI-O never asks that mirror: it continues with the next source.",
        "Host names in image references and certificates cannot have an underscore. CRI-O's "
        "library reads such a location as a repository without a host, and cannot connect.",
        'CRI-O\'s log: "Trying to access" with that name, and an error about its host; then the next source.',
        "Give the mirror a name without an underscore, and write it as its location.",
    ),
    "mirror-blocked": Entry(
        WARNING,
        "a mirror is blocked by another table",
        "CRI-O never asks that mirror.",
        "CRI-O looks up each source in registries.conf again before it asks it; blocked = true "
        "in a table that matches the mirror's own name applies to it.",
        '"is blocked in" in CRI-O\'s log.',
        "Remove the block, or the mirror.",
    ),
    "mirror-registry-unmatched": Entry(
        ERROR,
        "--mirror-registry matches no mirror",
        "The plugin uses the namespace's credentials for no mirror, and reports that there is nothing to do.",
        "With --mirror-registry only sources at or below one of its values get credentials of the namespace. "
        "If a mirror is renamed in registries.conf only, it gets none, without an error.",
        'The plugin\'s journal: "none of its pull sources is covered by --mirror-registry".',
        "Write the mirror as in registries.conf, or remove the argument.",
    ),
    "mirror-unreachable": Entry(
        ERROR,
        "a mirror does not answer",
        "CRI-O waits for it at each pull and continues with the next source; without another source the pull fails.",
        "CRI-O silently skips a mirror that is down while another source has the image. When that source "
        "requires a credential, or is down too, pulls fail.",
        'CRI-O\'s log: "Trying to access" and then the next one; each pull takes longer.',
        "Check DNS, the route and the server.",
    ),
    "mirror-certificate": Entry(
        ERROR,
        "a mirror's certificate is not trusted",
        "CRI-O does not use the mirror: it continues with the next source, or the pull fails.",
        "CRI-O trusts the system's CAs and those in /etc/containers/certs.d/<host:port>/ and /etc/docker/certs.d. No "
        "credential is sent to a server that it does not trust.",
        '"x509: certificate signed by unknown authority", or similar, in the pod\'s event if no other source answers.',
        "Put the mirror's CA below certs.d; renew an expired certificate.",
    ),
    "mirror-without-tls": Entry(
        WARNING,
        "a mirror is used without verified TLS",
        "Any server at its address gets the namespace's credentials for this mirror, in clear "
        "text over the network if it uses plain HTTP.",
        "insecure = true accepts any certificate, and plain HTTP if there is no TLS. Pulls work, so it goes unnoticed.",
        "None.",
        "Give the mirror a certificate, put its CA below /etc/containers/certs.d, and remove insecure.",
    ),
}

_CLUSTER = {
    "kubeconfig-broken": Entry(
        ERROR,
        "the file that names the API server cannot be used",
        _PLUGIN_FAILS,
        "The plugin finds the API server by the kubelet's own kubeconfig, or by the one that --kubeconfig names.",
        _PLUGIN_SIGNS,
        "Correct the file, or name another one with --kubeconfig.",
    ),
    "kubeconfig-doubtful": Entry(
        WARNING,
        "the plugin and the kubelet read the kubeconfig differently",
        "The plugin uses the only context; a kubelet that is started with this file has no API server.",
        "The plugin verifies the API server even with insecure-skip-tls-verify in the kubeconfig, as it "
        "sends tokens of pods. A kubelet needs current-context, while the plugin uses the only context.",
        'The kubelet\'s log: "no configuration has been provided". The plugin\'s journal: "cannot be trusted".',
        "Set the cluster's CA, and current-context.",
    ),
    "apiserver-unreachable": Entry(
        ERROR,
        "the API server does not answer, or the server is not an API server",
        _PLUGIN_FAILS,
        "The plugin asks the API server at each pull that has a mirror. The kubelet has its own "
        "connections, and may still work.",
        _PLUGIN_SIGNS + ' If the kubelet gets no answer either, its log has "failed to get service account", and the '
        "plugin is not run.",
        "Check the address, the route and the server.",
    ),
    "apiserver-certificate": Entry(
        ERROR,
        "the API server's certificate is not trusted",
        _PLUGIN_FAILS + " No token was sent.",
        "The plugin only sends the pod's token over verified TLS, with the CA and the server "
        "name or address in the kubeconfig.",
        _PLUGIN_SIGNS,
        "Correct the CA or the server's name in the kubeconfig.",
    ),
    "apiserver-not-verified": Entry(
        WARNING,
        "the API server's certificate is not verified",
        "Any server at its address gets the pods' tokens.",
        "--insecure-skip-tls-verify is for tests only. Pulls work with it, so it goes unnoticed.",
        "The plugin's journal has a warning at each run.",
        "Remove the argument; --certificate-authority names the cluster's CA.",
    ),
    "apiserver-localhost": Entry(
        ERROR,
        "the API server's address is localhost",
        "The plugin fails on every node without an API server or a load balancer of its own.",
        "https://localhost:6443 answers on control-plane nodes, so a test there succeeds, and "
        "on workers every pull fails. It is also the plugin's default if it finds no kubeconfig and no "
        "apiserver-url.env.",
        _PLUGIN_SIGNS,
        "Set the cluster's address in the kubeconfig, or with --apiserver or --kubeconfig in args.",
    ),
    "clock-skew": Entry(
        WARNING,
        "the clocks of this node and of the API server differ",
        "Tokens and certificates are rejected as expired or not valid yet.",
        "A token is valid for an hour. Small differences do not matter; large ones look like a wrong audience or a "
        "wrong CA.",
        '"answered 401" in the plugin\'s journal from time to time; "certificate is not yet valid".',
        "Check the time service (chronyc tracking, timedatectl).",
    ),
    "node-lacks-audience": Entry(
        ERROR,
        "the node may not request tokens for the configured audience",
        "The kubelet fails before it runs the plugin, and continues the pull without credentials.",
        "From Kubernetes 1.33 on a node needs the verb request-serviceaccounts-token-audience on a resource "
        "with exactly the audience as its name. This also happens if the audience was only changed in the "
        "CredentialProviderConfig.",
        '"Error getting service account token" (1.36: "failed to get service account token") in the kubelet\'s log '
        "only. The plugin's journal has no entry.",
        "Grant it to the group system:nodes.",
    ),
    "node-lacks-serviceaccounts": Entry(
        ERROR,
        "the node may not read service accounts",
        "The kubelet fails before it runs the plugin, and continues the pull without credentials.",
        "With tokenAttributes the kubelet reads the pod's service account before it requests a token.",
        "\"Failed to get service account\" in the kubelet's log only. The plugin's journal has no entry.",
        "Grant get on serviceaccounts to the group system:nodes.",
    ),
    "secrets-role-missing": Entry(
        ERROR,
        "service accounts may not read the pull secrets",
        "The plugin gets a 403 for pods of these service accounts, provides no credential, and the pull continues "
        "without credentials of the namespace.",
        "With --secrets-from=namespace and service-account the plugin reads secrets as the pod's service account, "
        "which needs a Role in its namespace. Each new namespace needs its own. --secrets-from=pod reads them as the "
        "node and needs none.",
        "The plugin's journal and the kubelet's log: \"answered 403\", with the commands that grant it.",
        "Grant it with a Role and a RoleBinding, or use --secrets-from=pod.",
    ),
    "pod-mode-without-client-certificate": Entry(
        ERROR,
        "--secrets-from=pod needs the kubelet's client certificate, which is not found",
        _PLUGIN_FAILS,
        "With --secrets-from=pod the plugin asks the API server as the node, with the client certificate "
        "of the kubelet's kubeconfig. A kubelet that authenticates with a token or a program has none.",
        _PLUGIN_SIGNS,
        "Set a kubeconfig with a client certificate, or use another --secrets-from.",
    ),
    "pod-events-without-client-certificate": Entry(
        WARNING,
        "--pod-events needs the kubelet's client certificate, which is not found",
        "Pulls go on as without the flag, and no Event is written.",
        "With --pod-events the plugin writes Events as the node, with the client certificate of the kubelet's "
        "kubeconfig. A kubelet that authenticates with a token or a program has none.",
        'The plugin\'s journal: "cannot write an Event on pod".',
        "Set a kubeconfig with a client certificate, or remove --pod-events.",
    ),
}

AREAS: dict[str, dict[str, Entry]] = {
    "The plugin's program": _BINARY,
    "The kubelet": _KUBELET,
    "The CredentialProviderConfig": _CONFIG,
    "CRI-O": _CRIO,
    "containerd": CONTAINERD,
    "hosts.toml and the mirrors of containerd": HOSTS,
    "The auth directory and the global auth file": _AUTH_DIR,
    "registries.conf and the mirrors": _REGISTRIES,
    "The API server and what it allows": _CLUSTER,
}
"""The findings by what they are about, in the order in which they are told."""

CATALOGUE: dict[str, Entry] = {code: entry for area in AREAS.values() for code, entry in area.items()}
