"""doctor on healthy and on broken nodes: each fault is named, and nothing else (gallery.py lays the nodes)."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from crio_credential_provider.doctor import catalogue

from gallery import (
    GALLERY,
    KINDS,
    Expected,
    Fault,
    Laid,
    Object,
    Seen,
    World,
    below,
    combine,
    load_fault,
    load_node,
    load_variant,
    look,
    merge_patch,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a node's files belong to root")

FAULTS = sorted(path.name for path in (GALLERY / "faults").iterdir())
VARIANTS = sorted(path.name for path in (GALLERY / "variants").iterdir())

NOT_SHOWN: dict[str, str] = {}
"""Codes of severity error without a fault, each with the reason."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as made:
        yield made


def codes(seen: Seen) -> list[str]:
    return [f"{found['code']} {found['severity']} {found['file']}:{found['line']}" for found in seen.findings]


def examined(world: World, fault: Fault, directory: Path, *, offline: bool) -> Seen:
    with world.node(fault, directory) as laid:
        return look(laid, offline=offline)


def check(expected: Expected, found: Object) -> None:
    assert (found["code"], found["severity"]) == (expected.finding, expected.severity)
    if expected.file is not None:
        assert found["file"] == expected.file
    if expected.line is not None:
        assert found["line"] == expected.line
    told = json.dumps(found, ensure_ascii=False)
    for text in expected.says:
        assert json.dumps(text)[1:-1] in told, f"nothing of {text!r} in {told}"
    assert found["title"] and found["consequence"] and found["remedy"]


def status_for(seen: Seen) -> int:
    return 3 if any(found["severity"] != "note" for found in seen.findings) else 0


# -- one fault each ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_named_and_no_other(name: str, world: World, tmp_path: Path) -> None:
    fault = load_fault(name)
    seen = examined(world, fault, tmp_path, offline=False)
    assert len(seen.findings) == 1, codes(seen)
    check(fault.expected[0], seen.findings[0])
    assert seen.status == status_for(seen)


@pytest.mark.parametrize("name", FAULTS)
def test_what_an_image_shows_of_it(name: str, world: World, tmp_path: Path) -> None:
    fault = load_fault(name)
    seen = examined(world, fault, tmp_path, offline=True)
    if fault.offline == "nothing" or (fault.offline == "either" and not seen.findings):
        assert codes(seen) == []
    else:
        assert len(seen.findings) == 1, codes(seen)
        expected = fault.expected[0]
        severity = seen.findings[0]["severity"] if fault.offline == "either" else expected.severity
        check(expected._replace(severity=severity), seen.findings[0])
    assert seen.status == status_for(seen)


@pytest.mark.parametrize("name", FAULTS)
def test_the_corrected_files_heal_the_node(name: str, world: World, tmp_path: Path) -> None:
    with world.node(load_fault(name), tmp_path) as laid:
        seen = look(laid, offline=False)
        corrected = seen.report["correctedFiles"]
        if not corrected:
            return
        for file in corrected:
            write_over(laid, file["file"], file["content"])
        assert codes(look(laid, offline=False)) == []


def write_over(laid: Laid, path: str, content: str) -> None:
    """The file's content, its time left as it was: what is new is read by a kubelet that is restarted."""
    file = below(laid.root, path)
    before = file.stat()
    file.write_text(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


# -- healthy nodes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offline", (False, True), ids=("live", "image"))
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_wrong_with_a_healthy_node(kind: str, offline: bool, world: World, tmp_path: Path) -> None:
    seen = examined(world, load_node(kind), tmp_path, offline=offline)
    assert codes(seen) == []
    assert seen.status == 0
    if not offline:
        assert seen.report["examined"] and seen.report["notExamined"] == []
    else:
        assert seen.report["notExamined"]


@pytest.mark.parametrize("offline", (False, True), ids=("live", "image"))
@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_is_wrong_with_a_healthy_variant(name: str, offline: bool, world: World, tmp_path: Path) -> None:
    seen = examined(world, load_variant(name), tmp_path, offline=offline)
    assert codes(seen) == []
    assert seen.status == 0


def test_a_live_look_asks_the_cluster_and_an_image_nobody(world: World, tmp_path: Path) -> None:
    for offline in (False, True):
        (tmp_path / str(offline)).mkdir()
        with world.node(load_node("kubeadm"), tmp_path / str(offline)) as laid:
            look(laid, offline=offline)
            assert bool(laid.asked) is not offline


# -- several faults at once -------------------------------------------------------------------------------------------

COMBINATIONS = (
    ("plugin-not-executable", "match-images-slash-star"),
    ("cache-of-ten-minutes", "mirror-of-unknown-ca"),
)


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_all_faults_are_named_and_no_other(names: tuple[str, ...], world: World, tmp_path: Path) -> None:
    fault = combine(*map(load_fault, names))
    seen = examined(world, fault, tmp_path, offline=False)
    found = {entry["code"]: entry for entry in seen.findings}
    assert len(found) == len(seen.findings), codes(seen)
    assert set(found) == {expected.finding for expected in fault.expected}, codes(seen)
    for expected in fault.expected:
        check(expected._replace(line=None), found[expected.finding])
    assert seen.status == 3


# -- the gallery itself -----------------------------------------------------------------------------------------------


def test_the_gallery_is_large_enough() -> None:
    faults = [load_fault(name) for name in FAULTS]
    assert len(faults) >= 36
    assert {fault.node for fault in faults} == set(KINDS)
    assert sum(fault.offline == "same" for fault in faults) >= 30
    assert all(fault.why.endswith(".") for fault in faults)


def test_every_error_has_a_fault() -> None:
    severities = {name: entry.severity for name, entry in catalogue.CATALOGUE.items()}
    shown = {expected.finding for name in FAULTS for expected in load_fault(name).expected}
    assert shown <= set(severities)
    assert {code for code, severity in severities.items() if severity == "error"} - shown == set(NOT_SHOWN)


def test_a_member_that_nobody_reads_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(GALLERY / "faults" / "plugin-missing", tmp_path / "faults" / "plugin-missing")
    monkeypatch.setattr("gallery.GALLERY", tmp_path)
    assert load_fault("plugin-missing").expected
    file = tmp_path / "faults" / "plugin-missing" / "fault.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lime": 3}))
    with pytest.raises(ValueError, match="lime"):
        load_fault("plugin-missing")
    file.with_name("notes.txt").write_text("?")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        load_fault("plugin-missing")


def test_merge_patch_is_that_of_the_rfc() -> None:
    assert merge_patch({"a": {"b": "c", "d": 1}}, {"a": {"b": None, "e": [1]}}) == {"a": {"d": 1, "e": [1]}}
    assert merge_patch({"a": [1]}, {"a": {"b": None}}) == {"a": {}}


@pytest.mark.parametrize("name", FAULTS)
def test_an_overlay_differs_from_the_healthy_node(name: str) -> None:
    """A copy that was left behind would hide what the fault is."""
    fault = load_fault(name)
    healthy = GALLERY / "nodes" / fault.node / "root"
    overlay = GALLERY / "faults" / name / "root"
    for path in overlay.rglob("*"):
        same = healthy / path.relative_to(overlay)
        assert not path.is_file() or not same.exists() or path.read_bytes() != same.read_bytes(), path


def test_the_stand_in_cluster_takes_the_kubelets_certificate(world: World, tmp_path: Path) -> None:
    """By a client that is none of ours, so that a finding is never one of a broken stand-in."""
    with world.node(load_node("kubeadm"), tmp_path) as laid:
        pem = below(laid.root, "/var/lib/kubelet/pki/kubelet-client-2026-09-14-08-11-52.pem")
        context = ssl.create_default_context(cafile=str(below(laid.root, "/etc/kubernetes/pki/ca.crt")))
        context.load_cert_chain(pem)
        url = "https://k8s-api.corp.example:6443/api/v1/nodes/worker-1"
        with urllib.request.urlopen(url, context=context) as answer:
            assert json.load(answer)["metadata"]["name"] == "worker-1"
        trusting = ssl.create_default_context(cafile=str(laid.root.parent / "ca-bundle.crt"))
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen("https://mirror.corp.example:5000/v2/", context=trusting)
        assert refused.value.code == 401
        with pytest.raises(urllib.error.URLError, match="not known"):
            urllib.request.urlopen("https://registry-1.docker.io/v2/", context=trusting)
