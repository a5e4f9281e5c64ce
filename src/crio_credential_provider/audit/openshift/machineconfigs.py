"""registries.conf of the nodes of an OpenShift cluster: out of the rendered MachineConfig of each MachineConfigPool.

That is the very file that the Machine Config Operator writes. Of a MachineConfig nothing else is kept: it also holds
the node's credentials.
"""

from __future__ import annotations

import base64
import binascii
import os
import urllib.parse
import zlib

from ...errors import ConfigError, UsageError
from ...runtimes.crio import registries
from ..nodes import NodeClass
from ..workloads import Object, items, labels, member, text
from . import ENFORCING

POOL, CONFIG = "MachineConfigPool", "MachineConfig"
KINDS = (POOL, CONFIG)

_RENDERED = "rendered-"
_MAX_SIZE = 16 << 20
"""Bytes of a file, unpacked."""


class MachineConfigs:
    """The pools and configurations of a cluster."""

    def __init__(self) -> None:
        self._pools: dict[str, tuple[str, dict[str, str | None]]] = {}
        self._files: dict[str, dict[str, str | bytes]] = {}

    def add(self, found: Object) -> None:
        """Takes an object of one of ``KINDS``."""
        name, spec = text(member(found, "metadata"), "name"), member(found, "spec")
        if found["kind"] == POOL:
            chosen: dict[str, str | None] = {**labels(member(spec, "nodeSelector"), "matchLabels")}
            for term in items(member(spec, "nodeSelector"), "matchExpressions"):
                if term.get("operator") != "Exists":
                    raise UsageError(
                        f"MachineConfigPool {name} selects its nodes by an expression other than Exists",
                        "give its nodes' file with --registries-conf instead of --machine-configs",
                    )
                chosen[text(term, "key")] = None
            self._pools[name] = text(member(member(found, "status"), "configuration"), "name"), chosen
        elif name.startswith(_RENDERED):
            files = items(member(member(spec, "config"), "storage"), "files")
            ours = {path: file for file in files if (path := text(file, "path")).startswith(registries.MAIN_FILE)}
            self._files[name] = {path: _content(member(file, "contents")) for path, file in ours.items()}

    @property
    def is_whole(self) -> bool:
        """Whether there are pools, each with its configuration."""
        return bool(self._pools) and all(rendered in self._files for rendered, _ in self._pools.values())

    def classes(self) -> list[NodeClass]:
        """A class for each pool. A node of several is of ``master``, else of one of its own, else of ``worker``.

        Raises:
            UsageError: there is no pool, or one without its configuration.
        """
        if not self._pools:
            raise UsageError(
                "neither MachineConfigPools nor mirror sets found",
                "kubectl get machineconfigpools,machineconfigs -o json has the former, and for the latter: kubectl get "
                "imagedigestmirrorsets,imagetagmirrorsets,imagecontentsourcepolicies,images.config.openshift.io,"
                "clusterversions -o json",
            )
        rank = {"master": 0, "worker": 2}
        ordered = sorted(self._pools.items(), key=lambda pool: (rank.get(pool[0], 1), pool[0]))
        return [NodeClass(name, self._load(name, rendered), chosen, ENFORCING) for name, (rendered, chosen) in ordered]

    def files(self, pool: str, rendered: str) -> dict[str, str | bytes]:
        """Path -> what is in the files of registries.conf, or why that cannot be read, as a text.

        Raises:
            UsageError: the pool's configuration is not there.
        """
        files = self._files.get(rendered)
        if files is None:
            raise UsageError(f"MachineConfig {rendered or '(without a name)'} of pool {pool} was not found")
        return files

    def _load(self, pool: str, rendered: str) -> registries.Configuration | ConfigError:
        files = self.files(pool, rendered)
        contents = {path: content for path, content in files.items() if isinstance(content, bytes)}
        for path, content in files.items():
            if isinstance(content, str):
                return ConfigError(f"{path} in MachineConfig {rendered}: {content}")
        drop_ins = sorted((path for path in contents if _is_drop_in(path)), key=os.fsencode)
        read = [(path, contents[path]) for path in (registries.MAIN_FILE, *drop_ins) if path in contents]
        try:
            return registries.loads(read, registries.MAIN_FILE)
        except ConfigError as error:
            return error


def _is_drop_in(path: str) -> bool:
    directory, _, name = path.rpartition("/")
    return directory == registries.DROP_IN_DIRECTORY and name.endswith(".conf")


def _content(contents: Object) -> str | bytes:
    """What a file's data URL (RFC 2397) holds, or why it cannot be read, as a text."""
    head, comma, data = text(contents, "source").partition(",")
    if not comma or not head.startswith("data:"):
        return "is not a data URL"
    content = urllib.parse.unquote_to_bytes(data.encode(errors="replace"))
    try:
        if head.endswith(";base64"):
            content = base64.b64decode(content, validate=True)
        if contents.get("compression") == "gzip":
            content = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(content, _MAX_SIZE)
    except (binascii.Error, zlib.error):
        return "is damaged"
    return content
