"""What a program is by its bytes: this one, cri-o's Go provider of the same name, or neither. None is ever run.

A Go program tells the package that it was made of, and the version of its module where the build knew it: the build
information that ``go version -m`` prints. This one has ``crio_credential_provider.MARK``.
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from .. import MARK
from ..kubernetes.credentialproviderconfig import NAME
from .facts import Node
from .providerconfig import Provider
from .tree import Tree, Unreadable

OURS, GO, OTHER = NAME, "cri-o's Go provider", "a program that is neither crio-credential-provider nor cri-o's"

_GO = re.compile(
    rb"path\t[\w./-]{1,200}/crio-credential-provider/cmd/crio-credential-provider\nmod\t[\w./-]{1,200}\t([^\t\n]{1,100})"
)
_VERSION = re.compile(re.escape(MARK.rpartition(" ")[0]).encode() + rb" (\d[\w.+-]{0,30})")
_PACKAGE = MARK.partition(" ")[0].encode()
_MAX_SIZE = 256 * 1024 * 1024
"""Bytes; those of the clouds' providers have up to 100 MB."""


class Program(NamedTuple):
    """A program: ``OURS``, ``GO`` or ``OTHER``, and its version, "" where it does not tell."""

    kind: str
    version: str = ""

    def __str__(self) -> str:
        if self.kind == OTHER:
            return self.kind
        return f"{self.kind}, {f'version {self.version}' if self.version else 'of unknown version'}"


def identify(content: bytes) -> Program:
    """What a program is."""
    if found := _GO.search(content):
        version = found[1].decode("ascii", "replace")
        return Program(GO, "" if version == "(devel)" else version)
    if found := _VERSION.search(content):
        return Program(OURS, found[1].decode())
    return Program(OURS if _PACKAGE in content else OTHER)


def find(tree: Tree, path: str) -> Program | None:
    """What the program at a path of the node is, links followed; None where there is none, or it cannot be read."""
    try:
        return identify(tree.read(path, _MAX_SIZE))
    except (Unreadable, OSError):
        return None


def find_doubles(node: Node, bin_dir: str) -> list[tuple[Provider, Program]]:
    """Entries under other names than ours that run the Go provider or this program, and which of them."""
    found = []
    for provider in node.config.providers if node.config else ():
        if provider.name not in ("", NAME) and "/" not in provider.name:
            program = find(node.tree, posixpath.join(bin_dir, provider.name))
            if program is not None and program.kind != OTHER:
                found.append((provider, program))
    return found
