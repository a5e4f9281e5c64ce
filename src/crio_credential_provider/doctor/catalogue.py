"""Every finding by its code: how bad it is, what a person sees of it, and the story behind it.

The text is for people: ``doctor --explain CODE`` prints it, docs/reference/findings.md is made of it. What is told here of
the kubelet, CRI-O and the API server has its sources in docs/reference/contracts.md and docs/reference/registries.md.

>>> CATALOGUE["cache-type-missing"].severity
'error'
"""

from __future__ import annotations

from typing import NamedTuple

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


class Entry(NamedTuple):
    """A kind of finding.

    Attributes:
        severity: unless the check says otherwise.
        title: what is wrong, in a few words.
        consequence: what follows for pulls.
        story: what happens, and why nobody sees it.
        signs: how it looks in logs and events.
        remedy: what to do, in general; a finding has its own, with the node's files and names.
    """

    severity: str
    title: str
    consequence: str
    story: str
    signs: str
    remedy: str


def sentence(text: str) -> str:
    """The text as a sentence; a name such as matchImages stays as it is."""
    word = text.split(" ", 1)[0]
    return f"{text if word != word.lower() else text[0].upper() + text[1:]}."


_KUBELET_DOWN = "The kubelet does not start (it ends with an error as soon as it reads this), and the node is NotReady."
_REGISTER = (
    'The kubelet\'s log: "Failed to register CRI auth plugins", and the reason. No event: no kubelet, no events.'
)
_SILENT = "The plugin is not run for such pulls; CRI-O asks the mirror without the namespace's credential."
_NO_AUTH = (
    'The pod\'s event has the registry\'s answer alone: "authentication required" or "unauthorized". '
    "The journal has no entry of the plugin for this pull."
)
_PLUGIN_FAILS = "The plugin fails for every pull, and the kubelet pulls on with no credentials."
_PLUGIN_SIGNS = (
    "The kubelet's log has \"Failed getting credential from external registry credential provider\" with the plugin's "
    "line on stderr; the metric kubelet_credential_provider_plugin_errors counts up. The pod's event says "
    '"authentication required", and nothing of the plugin.'
)

_BINARY = {
    "plugin-missing": Entry(
        ERROR,
        "the plugin's program is not there",
        "The kubelet does not start with this configuration; one that runs already cannot run the plugin.",
        "The kubelet runs <bin dir>/<name of the provider>, and looks for it once, when it starts. A program that goes "
        "missing later (an update that stopped half-way, a link to a version that was removed) is noticed at pulls "
        "only: the kubelet tells its log, and pulls on with no credentials.",
        'At start: "Failed to register CRI auth plugins" ... "plugin binary executable ... did not exist". Later: '
        '"error execing credential provider plugin" in the kubelet\'s log; the pod sees "authentication required".',
        "Install the program under that name in the kubelet's --image-credential-provider-bin-dir.",
    ),
    "plugin-not-executable": Entry(
        ERROR,
        "the plugin's program cannot be executed",
        "The kubelet does not start with this configuration; one that runs already cannot run the plugin.",
        "A copy through a tool that drops modes (a ConfigMap, an archive without modes, a copy from another system) "
        "leaves the program without its execute permission. The kubelet checks it when it starts.",
        'At start: "Failed to register CRI auth plugins" ... "permission denied". Later: "permission denied" in the '
        "kubelet's log at each pull.",
        "chmod 0755 the program.",
    ),
    "plugin-other-name": Entry(
        ERROR,
        "the plugin's program lies there under another name than in the configuration",
        "The kubelet does not start with this configuration; one that runs already cannot run the plugin.",
        "The name of a provider in the CredentialProviderConfig is the name of the file in the bin directory, letter "
        "for letter: no suffix, no version, no architecture. Release files often have one.",
        '"plugin binary executable ... did not exist" in the kubelet\'s log.',
        "Rename the program, or link it under the provider's name.",
    ),
    "plugin-cannot-run": Entry(
        ERROR,
        "the system cannot start the plugin's program",
        _PLUGIN_FAILS,
        "The kubelet checks at its start that the program is there and may be executed, and no more. A copy that was "
        "broken off, a download for another processor, a script whose interpreter went with an update of the system: "
        "each is noticed at pulls only.",
        '"exec format error" or "no such file or directory" in the kubelet\'s log at each pull; the pod sees '
        '"authentication required".',
        "Install the program for this node's system and processor; try it with --version.",
    ),
    "plugin-not-fips": Entry(
        WARNING,
        "the node is in FIPS mode, and the plugin's cryptography is not the node's validated one",
        "Pulls work. The plugin's TLS with the API server is done by a cryptographic module that is not validated.",
        "The self-contained bundle brings an OpenSSL of its own. It neither reads the node's OpenSSL configuration nor "
        "loads the node's FIPS provider, so that FIPS mode, which the kernel and the node's libraries follow, does not "
        "reach it. Whether that matters is for whoever has to keep to FIPS 140.",
        "None.",
        "Use the wheel, or what make build leaves, on the node's own python3: it uses the node's OpenSSL in its FIPS "
        "configuration.",
    ),
    "plugin-world-writable": Entry(
        ERROR,
        "others than root can replace the plugin's program",
        "Whoever can write there can run anything as root on this node, and read every token that the kubelet "
        "hands out.",
        "The kubelet runs the program as root and asks nobody who wrote it. It checks neither mode nor owner, so that "
        "nothing fails until somebody makes use of it.",
        "None.",
        "chown root:root and chmod 0755 the program and its directory.",
    ),
}

_KUBELET = {
    "kubelet-not-found": Entry(
        WARNING,
        "no kubelet was found",
        "What the kubelet is told could not be examined; doctor may have been run on the wrong machine.",
        "doctor looks for a running kubelet, k3s or RKE2, and for their units. A kubelet that is started by a "
        "script or "
        "inside a container under another name is not found.",
        "None.",
        "Run doctor on the node, as root; or examine one file with --config FILE.",
    ),
    "kubelet-flag-unknown": Entry(
        ERROR,
        "the kubelet does not know a flag that it is given",
        _KUBELET_DOWN,
        "The kubelet ends with an error at a flag that it does not know: a misspelled one, or a long one with a single "
        "dash, of which it takes each letter for a flag. One that runs already goes on with the flags that it has.",
        'The kubelet\'s log at its start: "failed to parse kubelet flag: unknown flag", or "unknown shorthand flag".',
        "Spell the flag right, with two dashes, and restart the kubelet.",
    ),
    "kubelet-without-provider-config": Entry(
        ERROR,
        "the kubelet is not told of any CredentialProviderConfig",
        "The plugin is never run: every pull goes without the namespace's credentials.",
        "Credential providers are switched on by two flags alone, --image-credential-provider-config and "
        "--image-credential-provider-bin-dir. A configuration file in the right place without the flags does nothing, "
        "and nothing says so. On k3s and RKE2 the flags are dropped where the directory or the file is missing.",
        _NO_AUTH,
        "Give the kubelet both flags and restart it.",
    ),
    "kubelet-without-bin-dir": Entry(
        ERROR,
        "the kubelet is not told where the plugin's program lies",
        _KUBELET_DOWN,
        "The two flags belong together; without the directory the kubelet looks for the empty path.",
        _REGISTER,
        "Give the kubelet --image-credential-provider-bin-dir and restart it.",
    ),
    "kubelet-too-old": Entry(
        ERROR,
        "the kubelet cannot hand over service account tokens",
        "The plugin gets no token, so that it cannot ask for the namespace's secrets; with tokenAttributes in the "
        "configuration the kubelet does not start.",
        "Tokens for credential providers came with Kubernetes 1.33 (behind a feature gate) and are on from 1.34.",
        '"unknown field tokenAttributes" in the kubelet\'s log at its start.',
        "Update the node to Kubernetes 1.34 or newer.",
    ),
    "feature-gate-off": Entry(
        ERROR,
        "the feature gate KubeletServiceAccountTokenForCredentialProviders is off",
        "With tokenAttributes in the configuration the kubelet does not start; without them the plugin gets no token.",
        "In Kubernetes 1.33 the gate is off unless somebody sets it; from 1.34 on it is on unless somebody takes it "
        "back. A flag goes before the drop-ins of --config-dir, and these before the configuration file.",
        '"tokenAttributes is not supported when KubeletServiceAccountTokenForCredentialProviders feature gate is '
        "disabled\" in the kubelet's log at its start.",
        "Set the gate to true in the KubeletConfiguration, or update to Kubernetes 1.34.",
    ),
    "kubelet-needs-restart": Entry(
        WARNING,
        "the running kubelet does not know its present configuration",
        "The kubelet works by what it read at its start; what is in the files now comes into effect with its restart.",
        "The kubelet reads the CredentialProviderConfig and its flags once. A change is neither noticed nor reported.",
        "None: everything looks right in the files, and nothing happens.",
        "systemctl restart kubelet",
    ),
    "runtime-not-crio": Entry(
        ERROR,
        "the kubelet's container runtime is not CRI-O",
        "The auth files that the plugin leaves are read by nobody; they stay until they are swept.",
        "Auth files for a namespace are a feature of CRI-O alone. Another runtime pulls with what the kubelet hands "
        "over, and this plugin hands over nothing.",
        'The plugin\'s journal says "Wrote auth file to", and the pull fails all the same.',
        "Use this plugin on nodes with CRI-O only.",
    ),
}

_CONFIG = {
    "config-missing": Entry(
        ERROR,
        "the CredentialProviderConfig is not there",
        _KUBELET_DOWN,
        "The path in the kubelet's flag leads nowhere.",
        _REGISTER,
        "Write the file, or correct the flag.",
    ),
    "config-refused": Entry(
        ERROR,
        "the kubelet refuses the CredentialProviderConfig",
        _KUBELET_DOWN,
        "The kubelet decodes the file strictly: a key that it does not know, or one that is there twice, is an "
        "error; so "
        "is a required key that is missing, in any provider's entry. A kubelet that runs already goes on with what it "
        "read, so that the fault shows at its next restart: often weeks later, at an update, on all nodes at once.",
        _REGISTER,
        "Correct the file; doctor prints it where it can.",
    ),
    "provider-missing": Entry(
        ERROR,
        "the CredentialProviderConfig has no entry for this plugin",
        "The plugin is never run.",
        "The kubelet runs the providers that are listed, and no other program of the directory.",
        _NO_AUTH,
        "Add the entry: crio-credential-provider manifests --merge FILE prints the file with it.",
    ),
    "provider-name-doubtful": Entry(
        WARNING,
        "the provider's name is nearly that of this plugin's program",
        "The kubelet looks for a program of that name, letter for letter; without one it does not start.",
        "The kubelet runs <bin dir>/<name of the provider>. A file alone does not tell whether the program lies there "
        "by that name; on a node doctor looks, and tells a name that leads nowhere for itself.",
        _REGISTER,
        "Set name: crio-credential-provider, or install the program by the name that the file has.",
    ),
    "token-attributes-missing": Entry(
        ERROR,
        "the entry has no tokenAttributes: the plugin gets no token",
        "Every request comes without a token. The plugin cannot tell the namespace, leaves no auth file, and the pull "
        "goes without the namespace's credentials.",
        "The kubelet hands a token of the pod's service account to a provider only if its entry has tokenAttributes. "
        "Without them the plugin is run all the same, which looks like it works.",
        'The plugin\'s journal: "the request carries no service account token". The pod\'s event: "authentication '
        'required".',
        "Add tokenAttributes with serviceAccountTokenAudience, cacheType and requireServiceAccount.",
    ),
    "cache-type-missing": Entry(
        ERROR,
        "tokenAttributes has no cacheType, which Kubernetes 1.34 and newer require",
        _KUBELET_DOWN,
        "The key came with 1.34 and is required from then on. A configuration written for 1.33 stops the kubelet after "
        "the update of the node.",
        'The kubelet\'s log: "Failed to register CRI auth plugins" ... "cacheType is required to be set".',
        "Add cacheType: Token.",
    ),
    "cache-type-unknown": Entry(
        ERROR,
        "tokenAttributes has cacheType, which Kubernetes 1.33 refuses",
        _KUBELET_DOWN,
        "The key came with 1.34; the kubelet of 1.33 decodes strictly and knows no such key.",
        'The kubelet\'s log: "Failed to register CRI auth plugins" ... "unknown field".',
        "Remove cacheType, or update the node.",
    ),
    "cache-type-service-account": Entry(
        NOTE,
        "cacheType is ServiceAccount, which does not say what this plugin's answers are",
        "None that we know of with this plugin, whose answers are never cached.",
        "The answer holds for one pod and one pull, which is what Token says. ServiceAccount says that it holds "
        "for all "
        "pods of the service account. In the kubelet's source that we read it decides what a cached answer is filed "
        "under, and nothing else; a later version may merge concurrent calls by it, and then pods would share a file.",
        "None.",
        "Set cacheType: Token.",
    ),
    "require-service-account": Entry(
        NOTE,
        "requireServiceAccount is false",
        "The plugin is also run for pods without a service account, static pods above all, for which it can do "
        "nothing.",
        "A static pod's request carries no token. The plugin answers that there is nothing to do; the pull goes on as "
        "it would without it, after the time that a run takes.",
        'The plugin\'s journal: "the request carries no service account token", for each pull of a static pod.',
        "Set requireServiceAccount: true.",
    ),
    "audience-rejected": Entry(
        ERROR,
        "the API server does not accept tokens of the configured audience",
        "The plugin asks for secrets with a token that the API server answers with 401; no auth file is left.",
        "A token is good for the audience it was made for, and the API server accepts its own alone. The kubelet "
        "gets a "
        "token for any audience that it is told, so that nothing fails before the plugin asks. Letters count, a "
        "slash at "
        "the end included. kubeadm's own is https://kubernetes.default.svc.cluster.local, OpenShift's and many others' "
        "https://kubernetes.default.svc.",
        'The plugin\'s journal and the kubelet\'s log: "answered 401". The pod\'s event: "authentication required".',
        "Set serviceAccountTokenAudience to the API server's own audience, and the node's ClusterRole as well.",
    ),
    "default-cache-duration": Entry(
        WARNING,
        "defaultCacheDuration is not 0s",
        "None with this plugin, which always answers 0s. The Go provider of the same name gives no duration of "
        "its own: "
        "with it the second pull of an image finds no auth file, and fails.",
        "The kubelet keeps an answer without a duration for this long, also one that holds nothing. While it does, the "
        "plugin is not run, and CRI-O finds no file: the first container of a pod starts, the second one does not.",
        "The plugin's journal has one entry for the first pull and none for those after it.",
        "Set defaultCacheDuration: 0s.",
    ),
    "match-images-mirror": Entry(
        ERROR,
        "matchImages names a mirror, where it must name the registry that pods name",
        "The pattern matches no pull that goes through the mirror: " + _SILENT[0].lower() + _SILENT[1:],
        "The kubelet holds matchImages against the image as the pod names it. It knows nothing of mirrors: these are "
        "CRI-O's affair, which comes later. So the mirror is the one name that never comes up. It only makes sense "
        "where pods name the mirror themselves, and then with --mirror-registry.",
        _NO_AUTH,
        "Name the source registry (docker.io, quay.io), not the mirror.",
    ),
    "match-images-glob-path": Entry(
        ERROR,
        "matchImages has a glob in a path, where it is taken literally",
        "The pattern matches nothing at all. " + _SILENT,
        "Globs count in the host alone, one * for one label. The path is a beginning of the image's path, letter by "
        "letter: docker.io/* asks for a repository that begins with a star. Without any path all of the registry is "
        "matched.",
        _NO_AUTH,
        "Remove the glob: docker.io, or docker.io/team.",
    ),
    "match-images-incomplete": Entry(
        ERROR,
        "a registry that has mirrors is matched by no pattern of matchImages",
        "Pulls of images of that registry: " + _SILENT[0].lower() + _SILENT[1:],
        "registries.conf and matchImages are kept by different people in different files, and have to agree. A * in "
        "matchImages stands for exactly one label of a host, where a *. in registries.conf stands for any number.",
        _NO_AUTH,
        "Add the registry to matchImages.",
    ),
    "match-images-overlap": Entry(
        WARNING,
        "another provider's matchImages match the same images",
        "The kubelet runs both for such a pull and hands the other one's credentials to CRI-O, which prefers them for "
        "sources on the image's own host.",
        "All providers that match are run, and their answers are put together. Credentials with a user name go "
        "to CRI-O "
        "with the pull; for mirrors on other hosts they are dropped, and the auth file counts. A provider of a "
        "cloud that "
        "fails or hangs delays each such pull.",
        "Two entries of providers in the kubelet's log for one pull.",
        "Narrow one of the two, unless it is meant so.",
    ),
    "plugin-root": Entry(
        ERROR,
        "the plugin is told to look for the node's files below another directory",
        "The plugin writes auth files where CRI-O does not look for them, and finds none of the node's own files: "
        "every pull goes without the namespace's credentials.",
        "--root is for trying the plugin on a directory that holds a node's files. Every default path lies below it "
        "then: registries.conf, the kubeconfig, the auth directory.",
        "The plugin's journal names paths below that directory.",
        "Remove --root from args, or its variable from env.",
    ),
    "plugin-arguments-refused": Entry(
        ERROR,
        "the plugin refuses its arguments or variables",
        _PLUGIN_FAILS,
        "The kubelet passes args and env on unread. The plugin ends with exit status 2 at each run; with 1 where it "
        "comes to the one that it cannot use.",
        _PLUGIN_SIGNS,
        "Correct args or env in the entry; crio-credential-provider --help lists them.",
    ),
    "plugin-variable-unknown": Entry(
        WARNING,
        "a variable has the plugin's prefix, and the plugin has no such variable",
        "The variable has no effect: what it is meant to set keeps its default.",
        "The plugin takes each of its flags from the environment as well, as CRIO_CREDENTIAL_PROVIDER_ and the flag's "
        "name. Other variables are none of its business, so that a misspelled one is no error.",
        "The plugin's journal has a warning at each run.",
        "Correct the variable's name, or remove it; crio-credential-provider --help lists the flags.",
    ),
    "plugin-times-too-long": Entry(
        WARNING,
        "--deadline and --hand-off-timeout add up to more than the kubelet waits",
        "When the API server is slow, a run waits less for its turn than it is told: it answers after 50 s at the "
        "latest, and a keeper stays in line for the auth file.",
        "The kubelet kills a plugin after 60 s, and pulls on with no credentials. The plugin keeps clear of that, "
        "whatever its flags say, by cutting the wait for the file of an earlier run.",
        'The plugin\'s journal: "Left a keeper in line for the auth file", earlier than --hand-off-timeout says.',
        "Make the two add up to less than 60s.",
    ),
}

_CRIO = {
    "crio-too-old": Entry(
        ERROR,
        "CRI-O is too old to read auth files of a namespace",
        "The plugin leaves auth files that nobody takes, and every pull goes without the namespace's credentials.",
        "CRI-O looks for <namespaced_auth_dir>/<namespace>-<sha256>.json from 1.34.3 on. An older one knows no such "
        "directory, and says nothing.",
        'The plugin\'s journal says "Wrote auth file to"; CRI-O never says "Using auth file for namespace". Files pile '
        "up until they are swept.",
        "Update CRI-O to 1.34.3 or newer.",
    ),
    "crio-conf-refused": Entry(
        ERROR,
        "a configuration file of CRI-O cannot be parsed",
        "CRI-O does not start again, and the node is NotReady then; what it is told of auth files is not known.",
        "CRI-O reads crio.conf and every file of crio.conf.d at its start. One that runs already goes on as it is.",
        'CRI-O\'s log at its start: "unable to decode configuration".',
        "Correct the file.",
    ),
    "crio-key-ignored": Entry(
        WARNING,
        "CRI-O ignores a key where it stands, or as it is spelled",
        "What it says does not hold: CRI-O keeps its default.",
        "namespaced_auth_dir and global_auth_file are options of [crio.image]. CRI-O takes no notice of a key that it "
        "does not know, or of one in another table.",
        "None: CRI-O takes the file without a word.",
        "Write the option below [crio.image], spelled as CRI-O does.",
    ),
    "auth-dir-mismatch": Entry(
        ERROR,
        "the plugin writes auth files where CRI-O does not look for them",
        "Every pull goes without the namespace's credentials, and files pile up in a directory that nobody empties.",
        "CRI-O's namespaced_auth_dir (a hidden option of [crio.image]) and the plugin's --auth-dir are two "
        "settings for "
        "one directory. CRI-O reads every file of crio.conf.d; the last one wins.",
        "The plugin's journal says \"Wrote auth file to <its directory>\"; CRI-O's debug log says "
        '"Looking for namespaced auth JSON file in: <the other>".',
        "Set both to the same directory, and restart CRI-O if its setting changed.",
    ),
    "registries-conf-mismatch": Entry(
        ERROR,
        "the plugin reads another registries.conf than CRI-O",
        "The plugin finds other sources than CRI-O asks: credentials for the wrong places, or none.",
        "CRI-O can be started with --registries-conf and --registries-conf-dir, which the plugin does not see. It has "
        "flags of the same names for that.",
        "\"Trying to access\" in CRI-O's log names sources that the plugin's journal does not.",
        "Give the plugin the same --registries-conf and --registries-conf-dir.",
    ),
}

_AUTH_DIR = {
    "auth-dir-owner": Entry(
        ERROR,
        "the auth directory does not belong to root",
        _PLUGIN_FAILS,
        "Its owner could swap the files in it, and so choose the credentials of other people's pulls. The plugin "
        "writes "
        "nothing there.",
        _PLUGIN_SIGNS,
        "chown root:root the directory.",
    ),
    "auth-dir-mode": Entry(
        ERROR,
        "others than root can write to the auth directory",
        _PLUGIN_FAILS,
        "Whoever can write there could swap the files, and so choose the credentials of other people's pulls. "
        "The plugin "
        "writes nothing there. Others may list it: CRI-O makes it so, and the files are for root alone.",
        _PLUGIN_SIGNS,
        "chmod 0700 the directory.",
    ),
    "auth-dir-unusable": Entry(
        ERROR,
        "the plugin cannot write to the auth directory",
        _PLUGIN_FAILS,
        "The plugin makes the directory where it is missing. It cannot where a file or a link that leads nowhere has "
        "its name, or where the file system is read-only or full.",
        _PLUGIN_SIGNS,
        "Make it a directory of root's with the mode 0700, on a file system that can be written to.",
    ),
    "auth-dir-on-disk": Entry(
        WARNING,
        "the auth directory lies on a disk",
        "Credentials are written to a disk at each pull, and can be read from it later: from a backup, a snapshot, or "
        "the disk itself after it was taken out.",
        "CRI-O removes each file after its pull. What was removed is not gone from a disk.",
        "None.",
        "Mount a tmpfs there before CRI-O and the kubelet start.",
    ),
    "auth-dir-stale-files": Entry(
        WARNING,
        "auth files lie around that nobody comes for",
        "Each holds credentials of a namespace that a pull of the same repository may still take, also after the "
        "secret "
        "was changed.",
        "CRI-O takes a file at its pull and removes it. The plugin sweeps what was left at the end of each of "
        "its runs; "
        "so old ones mean that it runs no more, or that it was run by one that does not sweep.",
        "Files of some age in the directory.",
        "crio-credential-provider gc",
    ),
    "cache-dir-unusable": Entry(
        WARNING,
        "the plugin cannot write to its cache directory",
        "Pulls of one image by several pods at once may come to one auth file, and all but one of them fail; each run "
        "parses its configuration anew.",
        "Runs for one image take turns at a lock in --cache-dir. Without it they do not wait for each other.",
        'The plugin\'s journal: "runs cannot wait in line".',
        "Make it a directory of root's, or name another one with --cache-dir.",
    ),
    "global-auth-file-mismatch": Entry(
        WARNING,
        "CRI-O has another global auth file than the plugin",
        "In pulls for which the plugin leaves an auth file, sources that no secret of the namespace serves get no "
        "credential, though CRI-O's file has one for them.",
        "CRI-O does not read its global_auth_file when it has one of the plugin. So the plugin copies from that file "
        "what a pull needs, and looks for it at --global-auth-file, which is /var/lib/kubelet/config.json where nobody "
        "says otherwise.",
        "A pull from the image's own registry, or from a mirror that only the node has credentials for, fails with "
        '"authentication required" once the namespace has a secret for another source.',
        "Give the plugin --global-auth-file with CRI-O's path.",
    ),
    "global-auth-file-refused": Entry(
        WARNING,
        "the node's global auth file cannot be used",
        "Sources that no secret of the namespace serves get no credential, though the node has one for them.",
        "CRI-O does not read the global file when it has one of the plugin. So the plugin copies from it what a pull "
        "needs; a broken one is left out.",
        'The plugin\'s journal: "the global auth file ... is left out".',
        "Correct the file: it is JSON of the form that podman login writes.",
    ),
}

_REGISTRIES = {
    "registries-conf-refused": Entry(
        ERROR,
        "CRI-O refuses registries.conf",
        "Every pull on this node fails, of every image; CRI-O that runs goes on with what it read before.",
        "One broken file, drop-ins included, makes the whole configuration invalid. CRI-O reads it at its start "
        "and when "
        "it is told to reload, so that the fault shows late.",
        "The pod's event and CRI-O's log have the same reason; the plugin's journal has it as well.",
        "Correct the file.",
    ),
    "registries-drop-ins-ignored": Entry(
        WARNING,
        "the directory of registries.conf's drop-ins is a link, which CRI-O does not follow",
        "What stands in its files does not count: their mirrors are not asked, and their blocks do not hold.",
        "CRI-O walks the directory, and such a walk does not follow a link that it begins with. Links to files in the "
        "directory are followed; so are links above it. Newer releases of the library that reads these files do "
        "follow it: another tool on the node may see mirrors that CRI-O does not.",
        'CRI-O\'s log has no error. Its "Trying to access" does not name the mirrors of these files.',
        "Make it a directory, with the files in it.",
    ),
    "registries-table-swapped": Entry(
        WARNING,
        "a table of registries.conf sends a registry of one's own to a public one",
        "Pulls of the public registry's images ask no mirror: the table is for images that pods name by the other one.",
        "prefix is what pods name, location what CRI-O asks in its place. Written the other way round, nothing fails.",
        "None: CRI-O asks the image's own registry.",
        "Swap prefix and location, unless pods name the registry of one's own and it is gone.",
    ),
    "registries-drop-in-name": Entry(
        WARNING,
        "a file beside registries.conf's drop-ins is not read, as its name does not end in .conf",
        "What stands in it does not count: its mirrors are not asked, and its blocks do not hold.",
        "CRI-O's library reads the files of registries.conf.d whose names end in .conf, and no others. An update of a "
        "package leaves .rpmsave or .rpmnew behind; an editor a copy.",
        "None: CRI-O asks the image's own registry.",
        "Rename the file, or remove it.",
    ),
    "registries-key-ignored": Entry(
        WARNING,
        "registries.conf has a key that CRI-O ignores where it stands",
        "What it says does not hold: a mirror is not asked, a block does not block, a short name is not completed.",
        "In TOML a key belongs to the table whose header stands last above it. What is written or appended below a "
        "[[registry.mirror]] is a key of that mirror, also where it is meant for the whole file. CRI-O's library takes "
        "no notice of keys that it does not know, misspelled ones and those of other programs included.",
        "None: CRI-O takes the file without a word, and goes on as if the key were not there.",
        "Move the key to where it belongs, or spell it as CRI-O does.",
    ),
    "registries-table-ignored": Entry(
        WARNING,
        "a file of registries.conf has two tables for one prefix",
        "CRI-O takes the first, and nothing of the second: its mirrors are not asked.",
        "Two files that were joined, or a block that was appended twice (cat >>), leave a table twice. Within one file "
        "the first stays; between files the later one replaces the earlier whole.",
        "None: CRI-O takes the file without a word.",
        "Join the two tables into one.",
    ),
    "registries-table-unmatched": Entry(
        WARNING,
        "no image's name begins with the prefix of a table in registries.conf",
        "CRI-O never uses the table: its mirrors are not asked, and its block does not hold.",
        "CRI-O spells each image out before it looks for a table: docker.io for index.docker.io and for a name without "
        "a registry, library/ for the official images there, and no tag or digest. It compares the prefix letter by "
        "letter with that. *. at the beginning is the only wildcard, and a prefix of * matches nothing.",
        "None: CRI-O takes the file without a word, and asks the image's own registry.",
        "Write the prefix as images are named: docker.io, docker.io/library/nginx, quay.io/team.",
    ),
    "credential-helpers-without-auth-file": Entry(
        ERROR,
        "credential-helpers in registries.conf leaves out containers-auth.json",
        "CRI-O reads no auth file at all, the plugin's included.",
        "The list says where credentials are looked for. The word containers-auth.json in it stands for auth files; a "
        "list without it shuts them out.",
        "The plugin's journal: \"credential-helpers in registries.conf lacks containers-auth.json: CRI-O reads no auth "
        'file".',
        "Add containers-auth.json to the list.",
    ),
    "no-mirrors": Entry(
        NOTE,
        "registries.conf sends no image to a mirror or another location",
        "The plugin has nothing to do: it answers so at each run.",
        "Without a mirror CRI-O asks the image's own registry, for which the kubelet hands over the pod's "
        "imagePullSecrets itself.",
        'The plugin\'s journal: "no table of registries.conf sends this image to a mirror or another location".',
        "Add [[registry]] tables with mirrors; or does this node need the plugin at all?",
    ),
    "mirror-location-unusable": Entry(
        ERROR,
        "a mirror's location makes no valid image reference",
        "CRI-O fails every pull of that table's images, from the other sources as well.",
        "CRI-O takes the file as it is, and puts the location in place of the prefix at each pull. Upper case in "
        "a path, a "
        "blank, a host without a dot or a port: what comes out is no reference, or means another one, and the "
        "pull ends.",
        "The pod's event and CRI-O's log: \"rewriting reference\", and why. The plugin's journal says the same.",
        "Correct the location: HOST[:PORT][/PATH], with a dot or a port in its host, its path in lower case.",
    ),
    "mirror-host-underscore": Entry(
        WARNING,
        "a mirror's host has an underscore",
        "CRI-O never asks that mirror: it goes on to the next source.",
        "No host name has an underscore, by the grammar of image references and by that of certificates. CRI-O's "
        "library takes such a location for a repository without a host, so that nothing is left to connect to.",
        'CRI-O\'s log: "Trying to access" with that name, and an error about its host; then the next source.',
        "Give the mirror a name without an underscore, and write it as its location.",
    ),
    "mirror-blocked": Entry(
        WARNING,
        "a mirror is blocked by another table",
        "CRI-O never asks that mirror.",
        "Each source is looked up in registries.conf once more before it is asked; blocked = true of a table "
        "that matches "
        "the mirror's own name counts there.",
        '"is blocked in" in CRI-O\'s log.',
        "Remove the block, or the mirror.",
    ),
    "mirror-registry-unmatched": Entry(
        ERROR,
        "--mirror-registry names a place at which no mirror lies",
        "The plugin gives the namespace's credentials to no mirror, and says that there is nothing to do.",
        "With --mirror-registry only sources at or below one of the named places get credentials of the namespace. One "
        "that was renamed in registries.conf alone shuts all of them out, without an error.",
        'The plugin\'s journal: "none of its pull sources lies at or below --mirror-registry".',
        "Name the mirror as registries.conf does, or remove the argument.",
    ),
    "mirror-unreachable": Entry(
        ERROR,
        "a mirror does not answer",
        "CRI-O waits for it at each pull and goes on to the next source; where there is none, the pull fails.",
        "A mirror that is away is skipped silently while another source has the image. The day that one needs a "
        "credential, or is away too, pulls fail.",
        'CRI-O\'s log: "Trying to access" and then the next one; each pull takes longer.',
        "See to the name, the route and the server.",
    ),
    "mirror-certificate": Entry(
        ERROR,
        "a mirror's certificate is not accepted",
        "CRI-O does not talk to the mirror: it goes on to the next source, or the pull fails.",
        "CRI-O trusts the system's CAs and those in /etc/containers/certs.d/<host:port>/ and /etc/docker/certs.d. No "
        "credential is sent to a server that it does not trust.",
        '"x509: certificate signed by unknown authority", or the like, in the pod\'s event if no other source answers.',
        "Put the CA of the mirror below certs.d; renew a certificate that expired.",
    ),
    "mirror-without-tls": Entry(
        WARNING,
        "a mirror is talked to without verified TLS",
        "The namespace's credentials for this mirror go to whoever answers, and over the network in clear text "
        "where it "
        "speaks plain HTTP.",
        "insecure = true takes every certificate, and plain HTTP where there is no TLS. Pulls work, so that it stays.",
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
        "The plugin takes the only context; a kubelet that is started with this file has no API server.",
        "The plugin verifies the API server whatever insecure-skip-tls-verify says: it sends tokens of pods. A "
        "kubelet needs current-context, where the plugin takes a context that is the only one.",
        'The kubelet\'s log: "no configuration has been provided". The plugin\'s journal: "cannot be trusted".',
        "Name the cluster's CA, and current-context.",
    ),
    "apiserver-unreachable": Entry(
        ERROR,
        "the API server does not answer, or not as one",
        _PLUGIN_FAILS,
        "The plugin asks the API server at each pull that has a mirror. The kubelet has connections of its own, "
        "and may "
        "still work.",
        _PLUGIN_SIGNS,
        "See to the address, the route and the server.",
    ),
    "apiserver-certificate": Entry(
        ERROR,
        "the API server's certificate is not accepted",
        _PLUGIN_FAILS + " No token was sent.",
        "The plugin sends the pod's token over verified TLS alone: the CA of the kubeconfig, and the name or "
        "address that "
        "it names.",
        _PLUGIN_SIGNS,
        "Correct the CA or the server's name in the kubeconfig.",
    ),
    "apiserver-not-verified": Entry(
        WARNING,
        "the API server's certificate is not verified",
        "The pods' tokens go to whoever answers at the address.",
        "--insecure-skip-tls-verify is for a laboratory. Everything works with it, so that it stays.",
        "The plugin's journal has a warning at each run.",
        "Remove the argument; --certificate-authority names the cluster's CA.",
    ),
    "apiserver-localhost": Entry(
        ERROR,
        "the API server is looked for on this node itself",
        "The plugin fails on every node without an API server or a load balancer of its own.",
        "https://localhost:6443 answers on control-plane nodes, so that a test there goes well, and on workers "
        "every pull "
        "fails. It is also what the plugin falls back to where it finds neither a kubeconfig nor apiserver-url.env.",
        _PLUGIN_SIGNS,
        "Name the cluster's own address in the kubeconfig, or with --apiserver or --kubeconfig in args.",
    ),
    "clock-skew": Entry(
        WARNING,
        "the clocks of this node and of the API server differ",
        "Tokens count as expired or as not valid yet, and so do certificates.",
        "A token lives for an hour. Small differences do no harm; large ones look like a wrong audience or a wrong CA.",
        '"answered 401" in the plugin\'s journal, now and then; "certificate is not yet valid".',
        "See to the time service (chronyc tracking, timedatectl).",
    ),
    "node-lacks-audience": Entry(
        ERROR,
        "the node may not ask for tokens of the configured audience",
        "The kubelet fails before it runs the plugin, and pulls on with no credentials.",
        "From Kubernetes 1.33 on a node needs the verb request-serviceaccounts-token-audience on a resource that "
        "is named "
        "like the audience, letter for letter. An audience that was changed in the CredentialProviderConfig alone has "
        "this effect too.",
        "\"Error getting service account token\" in the kubelet's log alone. The plugin's journal has no entry.",
        "Grant it to the group system:nodes.",
    ),
    "node-lacks-serviceaccounts": Entry(
        ERROR,
        "the node may not read service accounts",
        "The kubelet fails before it runs the plugin, and pulls on with no credentials.",
        "With tokenAttributes the kubelet reads the pod's service account before it asks for a token.",
        "\"Failed to get service account\" in the kubelet's log alone. The plugin's journal has no entry.",
        "Grant get on serviceaccounts to the group system:nodes.",
    ),
    "secrets-role-missing": Entry(
        ERROR,
        "service accounts may not read the pull secrets that the plugin asks for",
        "The plugin gets a 403 for pods of these service accounts, leaves no auth file, and the pull goes on with no "
        "credentials of the namespace.",
        "In the modes namespace and service-account the plugin asks as the pod's service account, which needs a "
        "Role in "
        "its namespace. Each new namespace needs one of its own. The mode pod asks as the node and needs none.",
        "The plugin's journal and the kubelet's log: \"answered 403\", with the commands that grant it.",
        "Grant it with a Role and a RoleBinding, or use --secrets-from=pod.",
    ),
    "pod-mode-without-client-certificate": Entry(
        ERROR,
        "the mode pod needs the kubelet's client certificate, and there is none to be found",
        _PLUGIN_FAILS,
        "With --secrets-from=pod the plugin asks the API server as the node, by the client certificate of the "
        "kubelet's "
        "kubeconfig. A kubelet that authenticates by a token or a program has none.",
        _PLUGIN_SIGNS,
        "Name a kubeconfig with a client certificate, or use another --secrets-from.",
    ),
}

AREAS: dict[str, dict[str, Entry]] = {
    "The plugin's program": _BINARY,
    "The kubelet": _KUBELET,
    "The CredentialProviderConfig": _CONFIG,
    "CRI-O": _CRIO,
    "The auth directory and the global auth file": _AUTH_DIR,
    "registries.conf and the mirrors": _REGISTRIES,
    "The API server and what it allows": _CLUSTER,
}
"""The findings by what they are about, in the order in which they are told."""

CATALOGUE: dict[str, Entry] = {code: entry for area in AREAS.values() for code, entry in area.items()}
