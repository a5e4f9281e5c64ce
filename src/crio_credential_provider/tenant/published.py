"""How the nodes are configured, as far as the cluster tells: registries.conf and the plugin's settings, as files.

The platform team publishes them in a ConfigMap that every user may read. Its key ``registries.conf`` is that file,
``credential-provider-config.yaml`` the kubelet's CredentialProviderConfig, any other ``*.conf`` a drop-in of
registries.conf.d. On OpenShift administrators may read the MachineConfig of a pool instead; the mirror sets, which hold
no credentials, anybody who was given that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from ..audit.openshift import ENFORCING, machineconfigs, mirrorsets
from ..audit.openshift.machineconfigs import MachineConfigs
from ..audit.openshift.mirrorsets import MirrorSets
from ..audit.workloads import items, member, text
from ..errors import ClusterError, ConfigError, UsageError
from ..kubernetes import names
from ..manifests.objects import CONFIG_KEY, MAIN_KEY, PUBLISHED, PUBLISHED_NAMESPACE
from ..runtimes.crio import registries
from .visible import Api

_DROP_INS = "registries.conf.d"
_OPENSHIFT = "/apis/machineconfiguration.openshift.io/v1"


class Published(NamedTuple):
    """What the cluster tells.

    Attributes:
        main, drop_ins: paths of registries.conf and of its drop-ins' directory, which begin with the object's name.
        config: of the CredentialProviderConfig, "" for none.
        origin: the object.
        notes: what else a person should know of it.
        enforcing: whether CRI-O refuses a short name that may mean several images, as its default is.
        is_partial: whether some of the mirror sets may not be listed.
    """

    main: str
    drop_ins: str
    config: str
    origin: str
    notes: tuple[str, ...] = ()
    enforcing: bool = True
    is_partial: bool = False


def write(api: Api, directory: str) -> Published | str:
    """Writes what the ConfigMap holds below a directory; returns where, or why there is nothing.

    Raises:
        ClusterError: the API server does not answer.
    """
    try:
        found = api.get(f"/api/v1/namespaces/{PUBLISHED_NAMESPACE}/configmaps/{PUBLISHED}")
    except ClusterError as error:
        if error.status not in (403, 404):
            raise
        # Of what is not there RBAC says the same to whom nobody has let read it.
        return "not found" if error.status == 404 else "not found, or forbidden for this user"
    data = {
        key: value.encode(errors="replace")
        for key, value in member(found, "data").items()
        if isinstance(value, str) and key.isprintable() and "/" not in key
    }
    if MAIN_KEY not in data:
        return f"it has no key {MAIN_KEY}"
    place = f"{PUBLISHED_NAMESPACE}/{PUBLISHED}"
    drop_ins = {key: value for key, value in data.items() if key.endswith(".conf") and key != MAIN_KEY}
    main, others = _write(directory, place, data[MAIN_KEY], drop_ins.items())
    if CONFIG_KEY in data:
        _write_file(directory, f"{place}/{CONFIG_KEY}", data[CONFIG_KEY])
    return Published(main, others, f"{place}/{CONFIG_KEY}" if CONFIG_KEY in data else "", f"ConfigMap {place}")


def write_machine_config(api: Api, directory: str, pool: str) -> Published:
    """The same of the configuration of a MachineConfigPool, of which nothing but registries.conf is kept.

    Raises:
        ClusterError: it may not be read.
        ConfigError, UsageError: it cannot be used.
    """
    if not names.is_subdomain(pool):
        raise UsageError(f"--machine-config-pool: {pool!r} is not a valid Kubernetes name")
    of_pool = member(member(api.get(f"{_OPENSHIFT}/machineconfigpools/{pool}"), "status"), "configuration")
    rendered = text(of_pool, "name")
    read = MachineConfigs()
    if names.is_subdomain(rendered):
        read.add({**api.get(f"{_OPENSHIFT}/machineconfigs/{rendered}"), "kind": machineconfigs.CONFIG})
    contents: dict[str, bytes] = {}
    for path, content in read.files(pool, rendered).items():
        if isinstance(content, str):
            raise ConfigError(f"{path} in MachineConfig {rendered}: {content}")
        contents[path] = content
    drop_ins = [
        (os.path.basename(p), c) for p, c in contents.items() if os.path.dirname(p) == registries.DROP_IN_DIRECTORY
    ]
    main, others = _write(directory, rendered, contents.get(registries.MAIN_FILE, b""), drop_ins)
    return Published(main, others, "", f"MachineConfig {rendered}", enforcing=ENFORCING)


def write_mirror_sets(api: Api, directory: str) -> Published | str:
    """The same of what the mirror sets of OpenShift come to; "" where this is not OpenShift.

    Raises:
        ClusterError: the API server does not answer.
        ConfigError: the Machine Config Operator refuses them.
    """
    try:
        api.get(mirrorsets.DISCOVERY)
    except ClusterError as error:
        if error.status not in (403, 404):
            raise
        return ""
    read, refused = MirrorSets(), []
    for kind, group, resource in mirrorsets.LISTS:
        try:
            found = items(api.get(f"{group}/{resource}"), "items")
        except ClusterError as error:
            if error.status not in (403, 404):
                raise
            # Releases without the kind have none of it.
            refused += [resource] if error.status == 403 else []
            continue
        for one in found:
            read.add({**one, "kind": kind})
    forbidden = f"{', '.join(refused)} may not be listed by this user" if refused else ""
    if not read.has(*mirrorsets.SETS) and (refused or not read.has("Image")):
        return forbidden or "there are no mirror sets"
    files, notes = read.make()
    drop_ins = [(os.path.basename(path), content) for path, content in files[1:]]
    main, others = _write(directory, "mirror-sets", files[0][1], drop_ins)
    notes = [forbidden, *notes] if refused else notes
    return Published(main, others, "", read.origin(), tuple(notes), ENFORCING, bool(refused))


def _write(directory: str, place: str, main: bytes, drop_ins: Iterable[tuple[str, bytes]]) -> tuple[str, str]:
    _write_file(directory, f"{place}/{MAIN_KEY}", main)
    for name, content in drop_ins:
        _write_file(directory, f"{place}/{_DROP_INS}/{name}", content)
    return f"{place}/{MAIN_KEY}", no_drop_ins(directory, place)


def _write_file(directory: str, path: str, content: bytes) -> None:
    whole = os.path.join(directory, path)
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    with open(whole, "wb") as file:
        file.write(content)


def no_drop_ins(directory: str, place: str = "") -> str:
    """A directory for drop-ins that there need not be: without one those of this machine would count."""
    path = os.path.join(place, _DROP_INS)
    os.makedirs(os.path.join(directory, path), exist_ok=True)
    return path


def write_pool(api: Api, directory: str, pool: str) -> Published:
    """As ``write_machine_config``; where the MachineConfig may not be read, as ``write_mirror_sets``.

    Raises:
        ClusterError, ConfigError, UsageError: as there.
    """
    try:
        return write_machine_config(api, directory, pool)
    except ClusterError as error:
        found = write_mirror_sets(api, directory) if error.status == 403 else ""
        if isinstance(found, str):
            raise
    return found._replace(notes=(f"the MachineConfig of pool {pool} may not be read by this user", *found.notes))


def write_instead(api: Api, directory: str, why: str) -> Published:
    """As ``write_mirror_sets``, where the ConfigMap does not tell, and why not.

    Raises:
        ConfigError: nobody told the nodes' registries.conf.
    """
    found = write_mirror_sets(api, directory)
    if isinstance(found, Published):
        return found
    raise ConfigError(
        f"the nodes' registries.conf is not known: --registries-conf is not given{found and f', {found}'}, and "
        f"ConfigMap {PUBLISHED_NAMESPACE}/{PUBLISHED}: {why}",
        "ask the platform team for /etc/containers/registries.conf of a node and give it with --registries-conf FILE, "
        "or ask them to publish it: crio-credential-provider manifests registries, on a node, prints the objects",
    )
