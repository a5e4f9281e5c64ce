#!/usr/bin/env python3
"""Holds our answers against files of conformance vectors: cases that CRI-O's own library answered, and OpenShift's.

    python tests/conformance.py registries|auth|layers|mirrorsets FILE...

Prints each disagreement (case id, field, ours, expected), then ``registries: 440 of 440 agree``; exits 1 if any case
disagrees, and 2 if a file has no case or cannot be read. A field that this runner does not know is a disagreement: a
case must not pass because it was not understood. Which fields count is said in tests/vectors/README.md.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from crio_credential_provider.audit.openshift.mirrorsets import MirrorSets
from crio_credential_provider.errors import ConfigError
from crio_credential_provider.images import reference
from crio_credential_provider.images.reference import ReferenceSyntaxError
from crio_credential_provider.runtimes.crio import pullsources, registries
from crio_credential_provider.testbed import crio

Disagreement = tuple[str, Any, Any]
"""Field, ours, expected."""

CASE_FIELDS = {"id", "family", "input", "expected", "expected_crio_5_38", "toml", "same"}
TOML_NOTES = {"bom", "toml-1.1", "go-laxer", "go-stricter"}
SOURCE_FIELDS = ("reference", "name", "location", "insecure", "primary", "blocked")


class Unknown(Exception):
    """The case has a field that this runner does not know how to check."""


def only(fields: dict[str, Any], known: set[str], where: str) -> None:
    unknown = set(fields) - known
    if unknown:
        raise Unknown(f"{where}: unknown field {sorted(unknown)}")


# -- registries and layers --------------------------------------------------------------------------------------------

EXPECTED_SOURCES = {
    "error",
    "error_class",
    "registry",
    "match",
    "reference",
    "reference_error",
    "pull_sources",
    "pull_sources_error",
}


def our_registry(config: registries.Configuration, name: str) -> dict[str, Any] | None:
    found = pullsources.find_registry(config, name)
    if found is None:
        return None
    mirrors = [
        {"location": m.location, "insecure": m.insecure, "pull_from_mirror": m.pull_from_mirror} for m in found.mirrors
    ]
    return {
        "prefix": found.prefix,
        "location": found.location,
        "blocked": found.blocked,
        "insecure": found.insecure,
        "mirror_by_digest_only": found.mirror_by_digest_only,
        "mirrors": mirrors,
    }


def our_answer(case: dict[str, Any], search: Callable[[], registries.SearchPath]) -> dict[str, Any]:
    """The fields of ``expected`` that count, as we answer them."""
    answer: dict[str, Any] = dict.fromkeys(("error_class", "registry", "reference", "pull_sources"))
    answer["pull_sources_error"] = False
    image, tag, digest = case["image"], case["tag"], case["digest"]
    parsed = None
    try:
        # A tag beside a digest is dropped, as CRI-O does; one in the image itself the library keeps.
        parsed = reference.parse(image + (f"@{digest}" if digest else f":{tag}" if tag else ""))
        if not parsed.digest:
            parsed = reference.as_pulled(parsed)
        answer["reference"] = str(parsed)
    except ReferenceSyntaxError:
        pass
    try:
        config = registries.load(search())
    except ConfigError as error:
        answer["error_class"] = error.rule
        return answer
    answer["registry"] = our_registry(config, parsed.name if parsed else image)
    if parsed is not None:
        try:
            sources = pullsources.sources_of(config, parsed)
            answer["pull_sources"] = [{name: getattr(s, name) for name in SOURCE_FIELDS} for s in sources]
        except ConfigError:
            answer["pull_sources_error"] = True
    return answer


def compare_sources(case: dict[str, Any], ours: dict[str, Any]) -> Iterator[Disagreement]:
    expected = case.get("expected_crio_5_38") or case["expected"]
    only(expected, EXPECTED_SOURCES, "expected")
    notes = case.get("toml", [])
    if not TOML_NOTES.issuperset(notes):
        raise Unknown(f"toml: unknown note in {notes}")
    if "go-laxer" in notes and ours["error_class"] == "toml-syntax":
        return
    for field in ("error_class", "registry", "reference", "pull_sources"):
        if ours[field] != expected[field]:
            yield field, ours[field], expected[field]
    if ours["pull_sources_error"] != (expected["pull_sources_error"] is not None):
        yield "pull_sources_error", ours["pull_sources_error"], expected["pull_sources_error"]
    if (ours["reference"] is None) != (expected["reference_error"] is not None):
        yield "reference_error", ours["reference"], expected["reference_error"]


def write_files(directory: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = directory / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def check_registries(case: dict[str, Any], scratch: Path) -> Iterator[Disagreement]:
    given = case["input"]
    only(given, {"conf", "conf_b64", "dropins", "dropins_b64", "image", "tag", "digest"}, "input")
    main, drop_ins = scratch / "registries.conf", scratch / "registries.conf.d"
    if given["conf"] is not None:
        main.write_bytes(given["conf"].encode())
    elif "conf_b64" in given:
        main.write_bytes(base64.b64decode(given["conf_b64"]))
    drop_ins.mkdir()
    write_files(drop_ins, {name: text.encode() for name, text in given["dropins"].items()})
    write_files(drop_ins, {name: base64.b64decode(text) for name, text in given.get("dropins_b64", {}).items()})
    yield from compare_sources(case, our_answer(given, lambda: registries.search_files(str(main), str(drop_ins))))


def check_layers(case: dict[str, Any], scratch: Path) -> Iterator[Disagreement]:
    given = case["input"]
    only(given, {"root", "root_main", "image", "tag", "digest"}, "input")
    write_files(scratch, {name: text.encode() for name, text in given["root"].items()})
    main = str(scratch / given["root_main"]) if given["root_main"] else ""
    with patch.dict(os.environ, HOME="/HOME"):
        yield from compare_sources(case, our_answer(given, lambda: registries.search_files(main, "", str(scratch))))


# -- auth -------------------------------------------------------------------------------------------------------------


def our_login(given: dict[str, Any], scratch: Path) -> dict[str, Any]:
    answer: dict[str, Any] = {"error_class": None, "found": False, "creds": None, "picked": None}
    try:
        key = given["key"] if "key" in given else reference.parse(given["ref"]).name
        main = scratch / "registries.conf"
        main.write_bytes(given["conf"].encode())
        try:
            config = registries.load(registries.search_files(str(main), str(scratch / "none.d")), cache=None)
        except ConfigError:
            answer["error_class"] = "registries-conf"
            return answer
        found = crio.find_login(auth_file(given), key, config.credential_helpers)
    except ReferenceSyntaxError:
        answer["error_class"] = "reference"
        return answer
    except ConfigError as error:
        answer["error_class"] = error.rule
        return answer
    if found is not None:
        login = found.credential
        answer.update(found=True, picked=found.key)
        answer["creds"] = {
            "username": login.username.decode(errors="replace"),
            "password": login.password.decode(errors="replace"),
            "identitytoken": login.identity_token,
            "raw": base64.b64encode(login.username + b":" + login.password).decode(),
        }
    return answer


def auth_file(given: dict[str, Any]) -> bytes | None:
    if given.get("authfile_missing"):
        return None
    if "authfile_text" in given:
        text: str = given["authfile_text"]
        return text.encode()
    return json.dumps(given["authfile"]).encode()


def check_auth(case: dict[str, Any], scratch: Path) -> Iterator[Disagreement]:
    given, expected = case["input"], case["expected"]
    only(given, {"authfile", "authfile_text", "authfile_missing", "conf", "key", "ref"}, "input")
    known = {"error", "error_class", "found", "creds", "picked", "nondeterministic", "any_of"}
    only(expected, known, "expected")
    ours = our_login(given, scratch)
    if not expected.get("nondeterministic"):
        yield from compare_login(ours, expected)
    elif ours["error_class"] is not None or ours["creds"] not in expected["any_of"]:
        yield "creds", ours["creds"], expected["any_of"]


def compare_login(ours: dict[str, Any], expected: dict[str, Any]) -> Iterator[Disagreement]:
    for field in ("error_class", "found"):
        if ours[field] != expected[field]:
            yield field, ours[field], expected[field]
    if (ours["creds"] is None) != (expected["creds"] is None):
        yield "creds", ours["creds"], expected["creds"]
    elif ours["creds"] is not None:
        only(expected["creds"], set(ours["creds"]), "creds")
        for field, value in expected["creds"].items():
            if ours["creds"][field] != value:
                yield f"creds.{field}", ours["creds"][field], value
    if expected.get("picked") is not None and ours["picked"] != expected["picked"]:
        yield "picked", ours["picked"], expected["picked"]


# -- mirrorsets -------------------------------------------------------------------------------------------------------

SEARCH_FILE = "01-image-searchRegistries.conf"
UNSET = {"short-name-mode": "", "additional-layer-store-auth-helper": ""}
"""What Go's encoder writes of members that are not set, beside an empty ``prefix``."""


def tables(text: str | bytes | None) -> Any:
    """What a file says; None for no file."""
    if text is None:
        return None
    found = tomllib.loads(text if isinstance(text, str) else text.decode())
    named = {name: value for name, value in found.items() if UNSET.get(name) != value}
    registry = [{name: value for name, value in table.items() if value != ""} for table in found.get("registry", [])]
    return named | {"registry": registry}


def check_mirrorsets(case: dict[str, Any], scratch: Path) -> Iterator[Disagreement]:
    expected = case["expected"]
    only(case["input"], {"objects"}, "input")
    only(expected, {"error", "kept_out", "main", "search"}, "expected")
    sets = MirrorSets()
    for found in case["input"]["objects"]:
        sets.add(found)
    try:
        made, notes = sets.make()
    except ConfigError as error:
        if expected["error"] is None:
            yield "error", str(error), None
        return
    if expected["error"] is not None:
        yield "error", None, expected["error"]
    files = dict(made)
    for field, path in (("main", registries.MAIN_FILE), ("search", f"{registries.DROP_IN_DIRECTORY}/{SEARCH_FILE}")):
        ours, theirs = tables(files.pop(path, None)), tables(expected[field])
        if ours != theirs:
            yield field, ours, theirs
    if files:
        yield "files", sorted(files), []
    is_kept_out = any("does not block" in note for note in notes)
    if is_kept_out != expected["kept_out"]:
        yield "kept_out", is_kept_out, expected["kept_out"]


# -- the runner -------------------------------------------------------------------------------------------------------

CHECKS: dict[str, Callable[[dict[str, Any], Path], Iterator[Disagreement]]] = {
    "registries": check_registries,
    "auth": check_auth,
    "layers": check_layers,
    "mirrorsets": check_mirrorsets,
}


def check(kind: str, case: dict[str, Any]) -> list[Disagreement]:
    """All disagreements of one case."""
    try:
        only(case, CASE_FIELDS, "case")
        with tempfile.TemporaryDirectory() as scratch:
            return list(CHECKS[kind](case, Path(scratch)))
    except (Unknown, KeyError) as error:
        return [("case", f"not understood: {error}", None)]


def load(path: Path) -> list[dict[str, Any]]:
    """The cases of a file; an empty one is an error."""
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not cases:
        raise ValueError(f"{path} has no case")
    return cases


def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or arguments[0] not in CHECKS:
        print(f"usage: {Path(sys.argv[0]).name} {'|'.join(CHECKS)} FILE...", file=sys.stderr)
        return 2
    kind, *files = arguments
    total = agreed = 0
    for file in files:
        try:
            cases = load(Path(file))
        except (OSError, ValueError) as error:
            print(f"cannot use {file}: {error}", file=sys.stderr)
            return 2
        for case in cases:
            disagreements = check(kind, case)
            total += 1
            agreed += not disagreements
            for field, ours, expected in disagreements:
                print(f"{case.get('id')} {field}\n  ours:     {json.dumps(ours)}\n  expected: {json.dumps(expected)}")
    print(f"{kind}: {agreed} of {total} agree")
    return 0 if agreed == total else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
