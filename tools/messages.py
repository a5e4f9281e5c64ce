"""Prints the messages of the program with their places, or makes the page of those that a pull can end with.

python3 tools/messages.py [WORD...]           file:line: text, for each text in the source with all the words
python3 tools/messages.py --document FILE     writes docs/reference/messages.md: message, and what to do

The page has every message that an error of the pull path is raised with, and what the message itself says to do. What a
message does not say is written here, in ``WHAT_TO_DO``; what is no error, in ``OTHERS``.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parent.parent / "src" / "crio_credential_provider"
PULL_PATH = ("settings.py", "pull", "kubernetes", "images", "runtimes")
ERRORS = ("RequestError", "ConfigError", "ClusterError", "AuthFileError", "UsageError", "Refused", "_Refused")


class Message(NamedTuple):
    """A text of the source. ``error`` is the class that is raised with it, ``hint`` what it says to do; "" for none."""

    file: str
    line: int
    text: str
    error: str = ""
    hint: str = ""


# -- reading the source -----------------------------------------------------------------------------------------------


def messages(below: tuple[str, ...] = ("",)) -> Iterator[Message]:
    """Each text of more than one word; {...} stands for a value. Docstrings are for whoever reads the source."""
    for place in below:
        path = SOURCE / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            raised = dict(_raised(tree))
            for node in _texts(tree):
                if re.search(r"\w\W* \W*\w", text := _text(node)):
                    error, hint = raised.get(id(node), ("", ""))
                    yield Message(str(file.relative_to(SOURCE)), node.lineno, text, error, hint)


def _texts(node: ast.AST) -> Iterator[ast.JoinedStr | ast.Constant]:
    inner = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.JoinedStr):
        yield node
        inner = [part for part in inner if isinstance(part, ast.FormattedValue)]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node
    for child in inner:
        if not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
            yield from _texts(child)


def _raised(tree: ast.Module) -> Iterator[tuple[int, tuple[str, str]]]:
    """The class and the hint of each message that is given to an error."""
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func).rpartition(".")[2]) in ERRORS and node.args:
            # Those of registries.conf have rule and path before what to do.
            at = 3 if name.endswith("Refused") else 1
            keywords = [keyword.value for keyword in node.keywords if keyword.arg in ("hint", "remedy")]
            hint = next(iter([*node.args[at : at + 1], *keywords]), None)
            hint = constants.get(hint.id, hint) if isinstance(hint, ast.Name) else hint
            yield id(node.args[0]), (name, _text(hint))


def _text(node: ast.AST | None) -> str:
    """What is written, with the last name of each value in capitals; the first of two where a condition decides."""
    if isinstance(node, ast.IfExp):
        return _text(node.body) or _text(node.orelse)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_value(part) if isinstance(part, ast.FormattedValue) else _text(part) for part in node.values)
    return ""


def _value(part: ast.FormattedValue) -> str:
    value = part.value
    return _text(value) if isinstance(value, ast.IfExp) and _text(value) else f"{{{_name(value)}}}"


_NAMES = {
    "strerror": "reason",
    "message": "reason",
    "lower": "reason",
    "error": "reason",
    "named": "address",
    "format": "owner",
}
"""Of values whose name in the source says nothing to who does not read it."""


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func).rpartition(".")[2]
        inner = called in ("masked", "cut", "str", "join", "shown_key", "_shown")
        return _name(node.args[0]) if inner else _NAMES.get(called, called)
    if isinstance(node, ast.BoolOp | ast.BinOp):
        return _name(node.values[0] if isinstance(node, ast.BoolOp) else node.left)
    name = ("", *re.findall(r"[A-Za-z_]+", ast.unparse(node)))[-1].strip("_")
    return "limit" if name.startswith("MAX_") else _NAMES.get(name, name)


# -- the page ---------------------------------------------------------------------------------------------------------

INTRO = """\
# Messages of the plugin

<!-- Made by tools/messages.py from the source. -->

On stderr, in the kubelet's log, and (but for wrong usage) in the journal. A message says what failed, then after a
semicolon what to do. Words in capitals stand for a value.
"""

KINDS = {
    "RequestError": "The kubelet's request (`fault-request`)",
    "ConfigError": "The operator's files (`fault-config`)",
    "ClusterError": "The API server (`fault-cluster`)",
    "AuthFileError": "The auth directory (`fault-auth-file`)",
    "UsageError": "Wrong usage (exit status 2)",
}
"""Classes of errors with their headings; what is wrong with registries.conf is a ConfigError."""

NOT_ALONE = ("images/", 'it has "auths" within "auths"')
"""Where messages end as the reason why a secret or the global auth file is not used."""

NOTES = {
    "The operator's files (`fault-config`)": "CRI-O refuses a broken file of registries.conf as well: **every pull on "
    "this node fails with it**. CRI-O's rules: [registries.conf](registries.md).",
}

WHAT_TO_DO = {
    "invalid image in the CredentialProviderRequest": "check the pod's image; otherwise report it",
    "more than any request of a kubelet": "check what runs the program",
    "cannot read standard input": "check what runs the program",
    "cannot write the answer to the kubelet": "nothing: the kubelet was probably restarted, and runs the plugin again",
    "the CredentialProviderRequest has no image": "check what runs the program; from a kubelet, report it",
    "the CredentialProviderRequest's {name} is not": "check what runs the program; from a kubelet, report it",
    "cannot be trusted": "see below, by the reason",
    "does not support TLS 1.2": "check that this is a Kubernetes API server",
    "TLS with the API server": "check that this is a Kubernetes API server",
    "cannot use the CA certificates": "name the cluster's CA with `--certificate-authority`, or correct the file",
    "is not valid YAML": "correct the kubeconfig, or name another one with `--kubeconfig`",
    "cannot read {path}": "check the path, its owner and its mode",
    "{path} is larger than": "check the path: this is not such a file",
    "has more than {limit} pages": "use `--secrets-from=pod`, or remove pull secrets that nothing uses",
    "the version 1 format": "write `[[registry]]` tables instead of `[registries.search]` and the like",
    "must be HOST[:PORT][/PATH]": "remove the scheme",
    "is not a valid key": "write `location` instead",
    "is not a short name": "remove it: an alias is for a name without registry, tag and digest",
    "is not a repository with its registry": "write the alias's target as HOST[:PORT]/PATH, without tag and digest",
    "not valid TOML": "correct the line that is named; often a missing quote",
    "{where} must be {expected}": "correct the value at the line that is named",
    "no such directory": "correct `args` in the CredentialProviderConfig",
    "--root: {root}: {reason}": "correct `args` in the CredentialProviderConfig",
    "{origin}: {text} is not {reason}": "correct `args` or `env` in the CredentialProviderConfig",
    "needs a value": "correct `args` in the CredentialProviderConfig",
    "unknown {what} {word}": "correct `args` in the CredentialProviderConfig",
    "[[registry]] with prefix": "correct the location that is named: CRI-O fails every pull of this image",
    "short-name-mode is": "write one of these three",
    "not all, digest-only or tag-only": "write one of these three",
    "the wildcard prefix": "write *.HOST",
    "is not a registry HOST[:PORT]": "write HOST[:PORT]",
    "has no client certificate": "use --secrets-from namespace or service-account, or correct the file",
}
"""By a part of the message, for those that say nothing themselves."""

OTHERS = {
    "The operator's files (`fault-config`)": {
        "has no {member}": "correct the kubeconfig, or name another one with `--kubeconfig`",
        "has no location, which is optional": "add a location to the table",
        "has neither location nor prefix": "add a location to the table",
    },
    "The API server (`fault-cluster`)": {
        "it does not accept the token, whose audience is": "set serviceAccountTokenAudience to the API server's own; "
        "or check the clocks, if the token has expired; or nothing, if the pod was deleted",
        "its certificate has expired": "renew it, or check this node's clock",
        "its certificate is not valid yet": "check the clocks of this node and of the API server",
        "its certificate is not for the name": "use one of its names, or set tls-server-name in the kubeconfig",
        "its certificate is not for the address": "use one of its names, or set tls-server-name in the kubeconfig",
        "its certificate was not issued by": "give the cluster's CA with `--certificate-authority`",
        "does not answer in HTTP/1.1": "check that this is a Kubernetes API server",
        "closed the connection before the end of its answer": "check that it is running",
        "sent an invalid": "check that this is a Kubernetes API server",
        "sent an answer larger than": "raise `--max-answer-size`, or use `--secrets-from=pod`",
    },
    "Nothing to do (`nothing-to-do`, exit status 0)": {
        "no table of registries.conf sends this image to a mirror or another location; by": "nothing, unless the pod "
        "uses the short name: then the rest of the message is what failed",
        "no table of registries.conf sends this image": "add the mirror; check that the plugin reads the same files as "
        "CRI-O",
        "is covered by --mirror-registry": "check the flag",
        "all its mirrors and other locations are blocked": "nothing: CRI-O does not ask them either",
        "CRI-O reads no auth file": "add containers-auth.json to credential-helpers in registries.conf",
        "the request has no service account token": "nothing for a static pod; otherwise add tokenAttributes",
        "has a credential for any of": "add a key for the mirror, not for the source, to a pull secret; SKIPPED "
        "has the secrets that are not used",
        "Dropped the queued auth file for {who}: no pull": "nothing: the pull has ended before its turn",
        "Wrote no auth file for {who}: the kubelet has ended": "nothing: the kubelet asks again after its start",
    },
    "Other lines of the journal": {
        "Wrote auth file to": "nothing",
        "Queued the auth file": "nothing: it is the turn of another pull of the same repository",
        "the background process was ended by SIGTERM": "nothing, if the node was shut down",
        "Wrote no auth file for {who}: {refusal}": "raise the limits that the message names; the pull goes "
        "without the namespace's credentials",
        "runs do not wait for each other": "make --cache-dir a directory owned by root, on a writable file system",
        "the global auth file {path} is ignored: {reason}": "correct the file; until then its credentials are not used",
        "pulls by {kind} will fail": "correct registries.conf: CRI-O fails one kind of reference to this image",
        "it is used anyway": "correct the secret, if the registry refuses it",
        "unknown environment variable": "correct `env` in the CredentialProviderConfig",
        "the API server's certificate is not verified": "remove `--insecure-skip-tls-verify`",
        "internal error": "report it, with the version; it only has a place in the program, as more could be a secret",
    },
}
"""By a part of the text: what failed in more detail, reasons, and lines that are not errors."""


def page() -> str:
    """ValueError where a message has nothing to do, or a part is found nowhere."""
    found = list(messages(PULL_PATH))
    sections: dict[str, dict[str, str]] = {heading: {} for heading in [*KINDS.values(), *OTHERS]}
    unused = set(WHAT_TO_DO)
    for message in found:
        heading = KINDS.get(message.error or "", KINDS["ConfigError"])
        if not message.error or (message.file + message.text).startswith(NOT_ALONE) or message.text in NOT_ALONE:
            continue
        # Nothing but values: what they can be stands in OTHERS.
        if len(re.findall(r"\w+", re.sub(r"\{\w+\}", "", message.text))) < 2 and message.text not in WHAT_TO_DO:
            continue
        part = next((part for part in WHAT_TO_DO if part in message.text), "")
        unused.discard(part)
        what = "" if sections[heading].get(message.text) else (part and WHAT_TO_DO[part]) or message.hint
        sections[heading][message.text] = sections[heading].get(message.text) or what
    for heading, parts in OTHERS.items():
        for part, what in parts.items():
            text = next((message.text for message in found if part in message.text), "")
            if not text:
                raise ValueError(f"no message has {part!r}")
            sections[heading].setdefault(text, what)
    lacking = [text for rows in sections.values() for text, what in rows.items() if not what]
    if lacking or unused:
        raise ValueError(f"nothing to do: {lacking}; found nowhere: {sorted(unused)}")
    return INTRO + "".join(map(_section, sections, sections.values()))


def _section(heading: str, rows: dict[str, str]) -> str:
    lines = [f"| {_cell(text, '`')} | {_cell(what)} |\n" for text, what in rows.items()]
    note = f"{NOTES[heading]}\n\n" if heading in NOTES else ""
    return f"\n## {heading}\n\n{note}| message | what to do |\n|---|---|\n{''.join(lines)}"


def _cell(text: str, quote: str = "") -> str:
    """Values in capitals; one that continues a word is left open."""
    text = re.sub(r"(?<=[\w}])\{\w+\}", "...", text.strip("; "))
    text = re.sub(r"\{(\w+)\}", lambda value: value[1].strip("_").upper(), text)
    return f"{quote}{text}{quote}".replace("|", "\\|")


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--document"]:
        Path(arguments[1]).write_text(page(), encoding="utf-8")
        return
    for message in messages():
        if all(word in message.text for word in arguments):
            sys.stdout.write(f"{message.file}:{message.line}: {message.text}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
