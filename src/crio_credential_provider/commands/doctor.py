"""``crio-credential-provider doctor``: what is wrong with a node, where, what follows from it, and the remedy.

Knows the command line and what a person is told; ``doctor`` has the facts and the checks. JSON (``--output json``):

    {"subject", "verdict": {"errors", "warnings", "notes"},
     "findings": [{"code", "severity", "title", "file", "line", "evidence": [{"file", "line", "text"}],
                   "consequence", "remedy"}],
     "examined": [text], "notExamined": [{"what", "why"}],
     "correctedFiles": [{"file", "content", "changes", "assumed"}], "noCorrectedFile": why or ""}

``file`` and ``line`` are those of the first evidence, "" and 0 where it is in no file.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .output import (
    FAILED,
    OK,
    Parser,
    add_output,
    make_parser,
    printable,
    printable_lines,
    serve,
    there,
    why_not,
    write,
    write_report,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..doctor.catalogue import Entry
    from ..doctor.finding import Evidence, Finding
    from ..doctor.report import Report

_DESCRIPTION = """\
Checks this node: the kubelet and its CredentialProviderConfig; CRI-O, registries.conf and the auth
directory, or containerd, config.toml and hosts.toml; the mirrors, the API server and RBAC. Reports for
each problem where it is, what it leads to, and what to type or to write. Changes nothing. Run it as
root; what cannot be checked is listed with the reason.
"""
_EPILOG = """\
With --root doctor uses no network and looks at no process: it checks a directory that holds a node's
files. With --config it checks one CredentialProviderConfig, against the registries.conf of this machine
or the one that is named. Tokens, secrets and passwords are never shown.

Examples:
  crio-credential-provider doctor                                        this node
  crio-credential-provider doctor --root /mnt/image --kubernetes 1.34    an unpacked image
  crio-credential-provider doctor --config credential-provider.yaml      one file, on any machine
  crio-credential-provider doctor --explain match-images-mirror          more about one finding
  crio-credential-provider doctor --output json                          for a program

Exit status: 0 no errors or warnings; 1 doctor could not run, reported on stderr; 2 wrong usage;
3 errors or warnings found.
"""
_TAKEN_OUT = ("args: removed", "removed env")
"""Changes that a person should see: what somebody set does not hold any more."""
_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def run(arguments: list[str], root: str = "") -> int:
    """Serves the command.

    Args:
        root: where the node's file system lies, for tests; it is examined as one that runs.

    Returns:
        The exit status.
    """
    return serve("doctor", lambda: _tell(parser().parse(arguments), root))


def _tell(given: argparse.Namespace, root: str) -> int:
    return _explain(given.explain, given.output) if given.explain else _examine(given, root)


def parser() -> Parser:
    """The command line."""
    made = make_parser("doctor", _DESCRIPTION, _EPILOG)
    what = made.add_mutually_exclusive_group()
    what.add_argument(
        "--root",
        metavar="DIR",
        type=there("directory"),
        default="",
        help="check the node whose files are below DIR, offline",
    )
    what.add_argument(
        "--config",
        metavar="FILE",
        type=there("file", "directory"),
        default="",
        help="check this CredentialProviderConfig (a file or a directory)",
    )
    what.add_argument("--explain", metavar="CODE", default="", help="print more about one finding")
    made.add_argument(
        "--registries-conf",
        metavar="FILE",
        default="",
        help="registries.conf to use instead of the plugin's; no drop-ins are read",
    )
    made.add_argument("--kubernetes", metavar="VERSION", default="", help="version of the kubelet, such as 1.34")
    add_output(made)
    return made


def _examine(given: argparse.Namespace, root: str) -> int:
    from ..doctor import Given, examine
    from ..node.tree import Tree

    for flag, file in (("--config", given.config), ("--registries-conf", given.registries_conf)):
        if file == "-" or (file and not given.root and os.path.exists(file) and not _is_kept(file)):
            raise UsageError(f"{flag}: {file}: not a file", "write its content to a file, and name that")
    conf = given.registries_conf if given.root else given.registries_conf and os.path.abspath(given.registries_conf)
    if conf and (why := why_not(Tree(given.root or root).real(conf), ("file",))):
        raise UsageError(f"--registries-conf: {given.registries_conf}: {why}")
    report = examine(
        Given(
            root=given.root or root,
            live=not given.root,
            config=given.config and os.path.abspath(given.config),
            registries_conf=conf,
            kubernetes=_version(given.kubernetes),
        )
    )
    if given.output == "json":
        write_report(_as_json(report))
    else:
        write(*_as_text(report))
    return OK if report.is_well else FAILED


def _is_kept(path: str) -> bool:
    """Whether what lies there can be read as often as it takes, a pipe and a terminal cannot."""
    return os.path.isfile(path) or os.path.isdir(path)


def _version(text: str) -> tuple[int, int] | None:
    """Major and minor; one that is too old is what doctor is asked about."""
    from ..manifests.providerconfig import minor_version

    return minor_version(text) if text else None


# -- text -------------------------------------------------------------------------------------------------------------


def _as_text(report: Report) -> list[RenderableType]:
    from rich.text import Text

    style = "bold green" if report.is_well else _STYLES[report.findings[0].severity]
    parts: list[RenderableType] = [Text(printable(_verdict(report)), style)]
    for number, finding in enumerate(report.findings, 1):
        parts += ["", *_finding_as_text(number, finding)]
    if report.corrected is not None:
        parts += ["", Text(f"The corrected file {printable(report.corrected.file)}", "bold")]
        parts += [_indented(f"assumed: {text}") for text in report.corrected.assumed]
        parts += [_indented(text) for text in report.corrected.changes if text.startswith(_TAKEN_OUT)]
        content = printable_lines(report.corrected.content.rstrip("\n").replace("\r\n", "\n"))
        parts += ["", Text(content, no_wrap=True)]
    elif report.uncorrected:
        parts += ["", Text(f"No corrected file: {printable(report.uncorrected)}")]
    if report.not_examined:
        parts += ["", Text("Not checked", "bold")]
        parts += [_indented(f"{item.what}: {item.why}") for item in report.not_examined]
    if report.examined:
        parts += ["", Text("Examined", "bold")]
        parts += [_indented(text) for text in report.examined]
    return parts


def _verdict(report: Report) -> str:
    counts = [
        f"{number} {severity}{'s' if number > 1 else ''}"
        for severity in ("error", "warning", "note")
        if (number := report.count(severity))
    ]
    if not counts:
        number = len(report.not_examined)
        left = f"; {number} check{'s were' if number > 1 else ' was'} skipped" if number else ""
        return f"no problems found on {report.subject}{left}"
    return f"{', '.join(counts)} on {report.subject}"


def _finding_as_text(number: int, finding: Finding) -> list[RenderableType]:
    from rich.text import Text

    head = Text(f"{number}. {finding.severity.upper()} ", _STYLES[finding.severity])
    head.append(printable(finding.title), "bold")
    head.append(f" ({finding.code})", "dim")
    parts: list[RenderableType] = [head]
    parts += [_indented(_evidence(evidence)) for evidence in finding.evidence]
    parts.append(_indented(finding.consequence))
    first, *lines = finding.remedy.split("\n")
    parts.append(_indented(f"Remedy: {first}"))
    # What is to be pasted is not wrapped.
    parts += [Text(f"     {printable(line)}", no_wrap=True) for line in lines]
    return parts


def _evidence(evidence: Evidence) -> str:
    place = f"{evidence.file}:{evidence.line}" if evidence.line else evidence.file
    return f"{place}: {evidence.text}" if place and evidence.text else place or evidence.text


def _indented(text: str) -> RenderableType:
    from rich.padding import Padding
    from rich.text import Text

    return Padding(Text(printable(text)), (0, 0, 0, 3))


# -- JSON -------------------------------------------------------------------------------------------------------------


def _as_json(report: Report) -> dict[str, Any]:
    corrected = report.corrected
    return {
        "subject": report.subject,
        "verdict": {f"{severity}s": report.count(severity) for severity in ("error", "warning", "note")},
        "findings": [finding_as_json(finding) for finding in report.findings],
        "examined": list(report.examined),
        "notExamined": [item._asdict() for item in report.not_examined],
        "correctedFiles": [
            {
                "file": corrected.file,
                "content": corrected.content,
                "changes": list(corrected.changes),
                "assumed": list(corrected.assumed),
            }
        ]
        if corrected
        else [],
        "noCorrectedFile": report.uncorrected,
    }


def finding_as_json(finding: Finding) -> dict[str, Any]:
    """One member of ``findings``."""
    first = finding.evidence[0]
    return {
        "code": finding.code,
        "severity": finding.severity,
        "title": finding.title,
        "file": first.file,
        "line": first.line,
        "evidence": [evidence._asdict() for evidence in finding.evidence],
        "consequence": finding.consequence,
        "remedy": finding.remedy,
    }


# -- the story behind a finding ---------------------------------------------------------------------------------------


def _explain(code: str, output: str) -> int:
    from ..doctor.catalogue import CATALOGUE

    entry = CATALOGUE.get(code)
    if entry is None:
        import difflib

        close = difflib.get_close_matches(code, CATALOGUE, 3, 0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(CATALOGUE)}"
        raise UsageError(f"--explain: unknown finding {code!r}", hint)
    if output == "json":
        write_report({"code": code, **entry._asdict()})
    else:
        write(*_story(code, entry))
    return OK


def _story(code: str, entry: Entry) -> list[RenderableType]:
    from rich.text import Text

    from ..doctor.catalogue import sentence

    head = Text(f"{code} ", "bold")
    head.append(f"({entry.severity})", _STYLES[entry.severity])
    parts: list[RenderableType] = [head, _indented(sentence(entry.title))]
    for title, text in (
        ("What it leads to", entry.consequence),
        ("What happens, and why it goes unnoticed", entry.story),
        ("How to recognize it", entry.signs),
        ("Remedy", entry.remedy),
    ):
        parts += ["", Text(title, "bold"), _indented(text)]
    return parts
