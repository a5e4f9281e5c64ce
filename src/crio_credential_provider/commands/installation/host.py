"""``--host``: the node whose root is mounted in a container."""

from __future__ import annotations

import argparse

from ...node.tree import Tree
from ..output import Parser, there


def add_host(made: Parser) -> None:
    made.add_argument(
        "--host",
        metavar="DIR",
        type=there("directory"),
        default="",
        help="the root of the node's file system, for a container (default: this machine)",
    )


def root_of(given: argparse.Namespace) -> str:
    return Tree(given.host).root
