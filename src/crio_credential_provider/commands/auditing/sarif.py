"""An audit as SARIF 2.1.0, for pipelines: a rule for each reason, a result for each pull that somebody has to look at.

A result is the one of an earlier run that has the same ``partialFingerprints``: these are made of
its reason, namespace, service account, image and class of nodes, and of nothing that changes between runs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from ... import __version__
from ...audit.result import FAILS, NODE_CREDENTIALS, REASONS, Audit, Pull
from ..output import as_json_line, ended, sentence
from .rows import holders, problems_of, verdict

_LEVELS = {FAILS: "error", NODE_CREDENTIALS: "warning"}
_NUMBERS = {code: number for number, code in enumerate(REASONS)}


def lines(found: Audit) -> Iterator[str]:
    """The document, a line for each result."""
    rules = [
        {
            "id": reason.code,
            "shortDescription": {"text": reason.title},
            "fullDescription": {"text": reason.title},
            "help": {"text": sentence(reason.remedy)},
        }
        for reason in REASONS.values()
    ]
    notes = [{"level": "note", "message": {"text": _escaped(note)}} for note in found.notes]
    head = {
        "tool": {"driver": {"name": "crio-credential-provider audit", "version": __version__, "rules": rules}},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
        "properties": {"verdict": verdict(found)},
    }
    schema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
    yield f'{{"$schema": "{schema}", "version": "2.1.0", "runs": [{as_json_line(head)[:-1]}, "results": ['
    comma = ""
    for pull in problems_of(found):
        yield comma + as_json_line(_result(pull))
        comma = ","
    yield "]}]}"


def _escaped(text: str) -> str:
    """Without links: ``[text](address)`` in a message is one, and names may hold it."""
    return re.sub(r"[\\\[\]]", r"\\\g<0>", text)


def _result(pull: Pull) -> dict[str, Any]:
    told = f"{pull.outcome}: {pull.image} in namespace {pull.namespace}. {sentence(pull.text)}"
    told += f" {ended(f'To do: {pull.remedy}')}" if pull.remedy else ""
    names = [f"{pull.namespace}/{holder.kind}/{holder.name}" for holder in pull.holders]
    digest = hashlib.sha256(json.dumps([pull.reason, *pull.key]).encode()).hexdigest()
    # Code scanning of GitHub demands a file and a line, and knows a result again by this fingerprint alone.
    place = {
        "artifactLocation": {"uri": quote(f"{pull.namespace}/{pull.image}", errors="replace")},
        "region": {"startLine": 1},
    }
    return {
        "ruleId": pull.reason,
        "ruleIndex": _NUMBERS[pull.reason],
        "level": _LEVELS.get(pull.outcome, "note"),
        "message": {"text": _escaped(told)},
        "locations": [
            {
                "physicalLocation": place,
                "logicalLocations": [
                    {"name": holder.name, "fullyQualifiedName": name, "kind": "resource"}
                    for holder, name in zip(pull.holders, names, strict=True)
                ],
            }
        ],
        "partialFingerprints": {"primaryLocationLineHash": digest[:32], "pull/v1": digest},
        "properties": {
            "namespace": pull.namespace,
            "serviceAccount": pull.service_account,
            "image": pull.image,
            "nodeClass": pull.node_class,
            "outcome": pull.outcome,
            "pullers": holders(pull),
        },
    }
