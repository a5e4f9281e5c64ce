"""doctor on healthy and on broken nodes: each fault is named, and nothing else (gallery.py lays the nodes)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from crio_credential_provider import commands
from crio_credential_provider.doctor import catalogue
from crio_credential_provider.node.kubelet import find_kubelet
from crio_credential_provider.node.tree import Tree
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
    run,
)
from node import PROGRAM

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="a node's files belong to root"),
]

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
    with world.node(fault, tmp_path) as laid:
        seen = look(laid, offline=False)
        assert len(seen.findings) == 1, codes(seen)
        check(fault.expected[0], seen.findings[0])
        assert seen.status == status_for(seen)
        if seen.report["correctedFiles"]:
            check_corrected(laid, seen.report["correctedFiles"])


def check_corrected(laid: Laid, corrected: list[Object]) -> None:
    """What is left is another's to grant: an audience, a Role, a newer kubelet."""
    for file in corrected:
        write_over(laid, file["file"], file["content"])
    healed = look(laid, offline=False)
    files = {file["file"] for file in corrected}
    assert [found for found in healed.findings if found["file"] in files] == [], codes(healed)


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
        left = [item["what"] for item in seen.report["notExamined"]]
        assert seen.report["examined"] and left == []
    else:
        assert seen.report["notExamined"]


@pytest.mark.parametrize("offline", (False, True), ids=("live", "image"))
@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_is_wrong_with_a_healthy_variant(name: str, offline: bool, world: World, tmp_path: Path) -> None:
    variant = load_variant(name)
    seen = examined(world, variant, tmp_path, offline=offline)
    # What an image cannot tell may be a warning there, never an error.
    doubts = offline and variant.offline == "either"
    assert [found for found in seen.findings if found["severity"] == "error" or not doubts] == [], codes(seen)


def test_a_live_look_asks_the_cluster_and_an_image_nobody(world: World, tmp_path: Path) -> None:
    for offline in (False, True):
        (tmp_path / str(offline)).mkdir()
        with world.node(load_node("kubeadm"), tmp_path / str(offline)) as laid:
            look(laid, offline=offline)
            assert bool(laid.asked) is not offline


# -- what is not known ------------------------------------------------------------------------------------------------


def with_node(fault: Fault, directory: Path, written: Object) -> Fault:
    """The same with another node.json laid over it."""
    overlay = directory / "overlay"
    overlay.mkdir()
    (overlay / "node.json").write_text(json.dumps(written))
    return fault._replace(overlays=(*fault.overlays, overlay))


@pytest.mark.parametrize(
    "version", ("0.0.0-master+$Format:%H$", "", "x", "1.36.0-dev", "1.34.0-alpha.1.23+abc", "1.32.1")
)
def test_a_kubelet_that_hides_its_version_keeps_its_cache_type(version: str, world: World, tmp_path: Path) -> None:
    """Without it a kubelet of 1.34 or newer would not start with the corrected file."""
    fault = with_node(load_fault("cache-of-ten-minutes"), tmp_path, {"versions": {"kubelet": version}})
    seen = examined(world, fault, tmp_path, offline=False)
    found = [code["code"] for code in seen.findings if code["code"] != "kubelet-too-old"]
    assert found == [fault.expected[0].finding], codes(seen)
    assert ("kubelet-too-old" in seen.text) == (version == "1.32.1")
    (corrected,) = seen.report["correctedFiles"]
    assert "cacheType: Token" in corrected["content"]
    unknown = [why["why"] for why in seen.report["notExamined"] if "kubelet's version" in why["what"]]
    if version[:2] == "1.":
        assert unknown == []
    else:
        assert "Kubernetes v" in unknown[0] and "assumed to be 1.34 or newer" in unknown[0]
        assert any("1.34 or newer" in assumed for assumed in corrected["assumed"])


def test_a_missing_cache_type_is_told_where_the_version_is_unknown(world: World, tmp_path: Path) -> None:
    fault = with_node(load_fault("cache-type-missing-on-kubeadm"), tmp_path, {"versions": {"kubelet": "0.0.0-master"}})
    (found,) = examined(world, fault, tmp_path, offline=False).findings
    assert (found["code"], found["severity"]) == ("cache-type-missing", "warning")
    assert "assumed to be 1.34 or newer" in found["evidence"][0]["text"]


@pytest.mark.parametrize(
    ("seconds", "told"), ((-3600, False), (0, False), (0.3, False), (0.999, False), (1.009, False), (1.5, True))
)
def test_a_file_written_just_before_the_restart_needs_no_restart(
    seconds: float, told: bool, world: World, tmp_path: Path
) -> None:
    """What is known of the start is cut off to a second and a hundredth."""
    with world.node(load_node("kubeadm"), tmp_path) as laid:
        kubelet = find_kubelet(Tree(str(laid.root)), os.sysconf("SC_CLK_TCK"), live=True)
        assert kubelet is not None
        written = kubelet.started + seconds
        os.utime(below(laid.root, "/etc/kubernetes/credential-provider-config.yaml"), (written, written))
        assert ("kubelet-needs-restart" in [found["code"] for found in look(laid, offline=False).findings]) == told


# -- several faults at once -------------------------------------------------------------------------------------------

COMBINATIONS = (
    ("plugin-not-executable", "match-images-slash-star"),
    ("plugin-writable-by-all", "audience-of-kubeadm-on-openshift", "mirror-expired"),
    ("cache-type-missing", "auth-dir-open"),
    ("auth-dir-on-disk", "auth-file-of-three-days"),
    ("crio-1.34.2", "match-images-miss-a-registry", "no-role-to-list-secrets"),
    ("gate-false-in-config", "crio-of-openshift-4.20", "mirror-refuses", "clock-two-minutes-off"),
    ("config-newer-than-kubelet", "mirror-of-unknown-ca"),
    ("auth-dir-in-drop-in", "global-auth-file-of-wrong-type"),
    ("config-unknown-key", "registries-two-s"),
    ("apiserver-refuses", "cache-of-ten-minutes"),
    ("node-may-not-get-service-accounts", "mirror-is-silent", "service-account-not-required"),
    ("plugin-directory-writable-by-all", "plugin-not-executable"),
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


@pytest.mark.parametrize("offline", (False, True), ids=("live", "image"))
def test_a_recipe_full_of_faults(offline: bool, world: World, tmp_path: Path) -> None:
    """As a new user writes it: everything wrong is told at once, with a file that heals it all."""
    fault = load_node("kubeadm")._replace(overlays=(GALLERY / "recipe",))
    with world.node(fault, tmp_path) as laid:
        seen = look(laid, offline=offline)
        assert {found["code"] for found in seen.findings} >= {
            "match-images-mirror",
            "match-images-glob-path",
            "token-attributes-missing",
            "default-cache-duration",
        }
        assert "docker.io" in seen.text
        file = "/etc/kubernetes/credential-provider-config.yaml"
        assert below(laid.root, file).read_text() == (GALLERY / "recipe/root" / file.lstrip("/")).read_text()
        assert [corrected["file"] for corrected in seen.report["correctedFiles"]] == [file]
        write_over(laid, file, seen.report["correctedFiles"][0]["content"])
        assert codes(look(laid, offline=offline)) == []


# -- hostile nodes ----------------------------------------------------------------------------------------------------

READ_FILES = (
    ("kubeadm", "/etc/kubernetes/credential-provider-config.yaml"),
    ("kubeadm", "/etc/kubernetes/kubelet.conf"),
    ("kubeadm", "/etc/containers/registries.conf"),
    ("kubeadm", "/etc/containers/registries.conf.d/50-quay.conf"),
    ("kubeadm", "/etc/crio/crio.conf.d/10-crio.conf"),
    ("kubeadm", "/etc/default/kubelet"),
    ("kubeadm", "/usr/lib/systemd/system/kubelet.service"),
    ("kubeadm", "/var/lib/crio/version"),
    ("kubeadm", "/var/lib/dpkg/status"),
    ("kubeadm", "/var/lib/kubelet/config.yaml"),
    ("kubeadm", "/var/lib/kubelet/pki/kubelet-client-2026-09-14-08-11-52.pem"),
    ("openshift", "/etc/kubernetes/kubelet.conf"),
    ("openshift", "/etc/openshift/kubelet.conf.d/10-autosize.conf"),
    ("openshift", "/var/lib/kubelet/config.json"),
    ("openshift", "/var/lib/kubelet/kubeconfig"),
    ("containerd", "/etc/containerd/config.toml"),
    ("containerd", "/etc/containerd/certs.d/docker.io/hosts.toml"),
    ("k3s", "/etc/rancher/k3s/config.yaml"),
    ("k3s", "/etc/crio/crio.conf"),
    ("k3s", "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d/00-k3s-defaults.conf"),
)

JUNK = {
    "empty": b"",
    "binary": bytes(range(256)) * 16,
    "number": b"42\n",
    "list": b"[1, 2]\n",
    "null": b"a: null\n",
    "deep": b"[" * 20000,
    "deep-yaml": b"".join(b" " * n + b"a:\n" for n in range(2000)),
    "bomb": b"a: &a [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (n, n, b", ".join([b"*%c" % (n - 1)] * 9)) for n in range(ord("b"), ord("k")))
    + b"providers: *j\nfeatureGates: *j\nclusters: *j\nkubelet-arg: *j\n",
    "escape": b'a: "\x1b[2J"\nproviders: [{name: "\\e]0;x\\a"}]\n',
}


@pytest.mark.parametrize("offline", (False, True), ids=("live", "image"))
@pytest.mark.parametrize("junk", JUNK)
def test_junk_is_told_and_never_a_traceback(junk: str, offline: bool, world: World, tmp_path: Path) -> None:
    for number, (kind, path) in enumerate(READ_FILES):
        directory = tmp_path / str(number)
        directory.mkdir()
        with world.node(load_node(kind), directory) as laid, in_time(path):
            below(laid.root, path).write_bytes(JUNK[junk])
            status, _, text = run(laid, (), offline=offline)
        assert status in (0, 1, 3) and text, path
        assert "\x1b" not in text and "Traceback" not in text, path


@pytest.mark.parametrize("offline", (False, True), ids=("live", "image"))
@pytest.mark.parametrize("what", ("directory", "loop", "fifo", "dangling"))
def test_what_is_no_file_is_told(what: str, offline: bool, world: World, tmp_path: Path) -> None:
    for number, (kind, path) in enumerate(READ_FILES):
        directory = tmp_path / str(number)
        directory.mkdir()
        with world.node(load_node(kind), directory) as laid, in_time(path):
            file = below(laid.root, path)
            file.unlink()
            if what == "directory":
                file.mkdir()
            elif what == "fifo":
                if file.suffix == ".pem":
                    # OpenSSL opens it by itself, and would wait as the kubelet would.
                    continue
                os.mkfifo(file)
            else:
                file.symlink_to(path if what == "loop" else "/nowhere")
            status, _, text = run(laid, (), offline=offline)
        assert status in (0, 1, 3) and text and "Traceback" not in text, path


NAMES = ("\x1b]0;owned\x07web", "../../../../secrets/x", "a b", "x" * 100_000, "", "..", "%2e%2e", "line\nbreak")


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_the_cluster_lead_nowhere(name: str, world: World, tmp_path: Path) -> None:
    """Neither into another path of the API server (the stand-in fails for paths that doctor has no business with), nor
    onto the terminal."""
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    pods: Object = {
        "team-alpha/a": {"serviceAccount": name, "image": "nginx:1", "imagePullSecrets": [name]},
        f"team-alpha/{name}": {"serviceAccount": "web", "image": "nginx:1"},
        f"{name}/b": {"serviceAccount": "web", "image": f"docker.io/{name}"},
    }
    (overlay / "cluster.json").write_text(json.dumps({"pods": pods}))
    with world.node(load_node("kubeadm")._replace(overlays=(overlay,)), tmp_path) as laid, in_time(name[:20]):
        status, _, text = run(laid, (), offline=False)
        assert status in (0, 3) and "\x1b" not in text and "\x07" not in text
        assert len(text) < 50_000
        assert all(path.isprintable() and " " not in path for _, path in laid.asked)


@contextlib.contextmanager
def in_time(what: str) -> Iterator[None]:
    """Fails what takes longer than any look at one node may, on a machine that is busy as well."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 60, what


@pytest.mark.parametrize("climb", (True, False), ids=("..", "absolute"))
def test_a_link_in_an_image_never_leads_out_of_it(climb: bool, world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside.conf"
    outside.write_text("unqualified-search-registries = [canary\n")
    for number, (kind, path) in enumerate(READ_FILES):
        directory = tmp_path / str(number)
        directory.mkdir()
        with world.node(load_node(kind), directory) as laid:
            below(laid.root, path).unlink()
            below(laid.root, path).symlink_to(f"{'/..' * 30 if climb else ''}{outside}")
            assert "canary" not in run(laid, (), offline=True)[2], path


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


@pytest.mark.skipif(bool(PROGRAM), reason="the names lead somewhere on the laid node alone")
def test_the_stand_in_cluster_takes_the_kubelets_certificate(world: World, tmp_path: Path) -> None:
    """By a client that is none of ours, so that a finding is never one of a broken stand-in."""
    with world.node(load_node("kubeadm"), tmp_path) as laid:
        pem = below(laid.root, "/var/lib/kubelet/pki/kubelet-client-2026-09-14-08-11-52.pem")
        context = ssl.create_default_context(cafile=str(below(laid.root, "/etc/kubernetes/pki/ca.crt")))
        context.load_cert_chain(pem)
        url = "https://k8s-api.corp.example:6443/api/v1/nodes/worker-1"
        with urllib.request.urlopen(url, context=context) as answer:
            assert json.load(answer)["metadata"]["name"] == "worker-1"
        trusting = ssl.create_default_context(cafile=str(below(laid.root, "/etc/ssl/certs/ca-certificates.crt")))
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen("https://mirror.corp.example:5000/v2/", context=trusting)
        assert refused.value.code == 401
        with pytest.raises(urllib.error.URLError, match="not known"):
            urllib.request.urlopen("https://registry-1.docker.io/v2/", context=trusting)


# -- all commands -----------------------------------------------------------------------------------------------------

IMAGES = {
    "kubeadm": ("docker.io/library/nginx:1.27", "mirror.corp.example:5000"),
    "openshift": ("git.apps.corp.example/team/app:1", "mirror.ocp.corp.example:8443"),
    "k3s": ("docker.io/library/nginx:1.27", "harbor.corp.example"),
    "rke2": ("docker.io/library/nginx:1.27", "harbor.corp.example"),
}
"""An image, and where its mirror is."""

COMMANDS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "doctor": (("doctor", "--root={root}"), 0, "no problems found on the image {root}"),
    "explain": (
        ("explain", *["{image}", "-n", "team-alpha", "--pod", "web", "--root={root}", "--secrets={objects}"]),
        0,
        "{mirror}",
    ),
    "explain-asks": (
        ("explain", *["{image}", "-n", "team-alpha", "--secrets-from=namespace", "--root={root}"]),
        1,
        "node requested no bound token",
    ),
    "verify": (
        ("verify", *["{image}", "-n", "team-alpha", "--pod", "web", "--root={root}", "--secrets={objects}"]),
        3,
        "{mirror}",
    ),
    "manifests": (("manifests", "config", "--root={root}"), 0, "kind: CredentialProviderConfig"),
    "gc": (("gc", "--root={root}", "--dry-run"), 0, "Nothing to do"),
    "completion": (("completion", "bash"), 0, "complete"),
}
"""Command line, exit status, and what it says."""


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", IMAGES)
def test_every_command_runs_on_an_image_of_a_node(
    kind: str, command: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if PROGRAM and command == "explain-asks":
        pytest.skip("the names lead somewhere on the laid node alone")
    image, mirror = IMAGES[kind]
    config = json.dumps({"auths": {mirror: {"username": "team-alpha", "password": "p"}}})
    objects: list[Object] = [
        {
            "kind": "Secret",
            "apiVersion": "v1",
            "metadata": {"name": "mirror", "namespace": "team-alpha"},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(config.encode()).decode()},
        },
        {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": "web", "namespace": "team-alpha", "uid": "u"},
            "spec": {"serviceAccountName": "web", "imagePullSecrets": [{"name": "mirror"}]},
        },
        {
            "kind": "ServiceAccount",
            "apiVersion": "v1",
            "metadata": {"name": "web", "namespace": "team-alpha"},
            "imagePullSecrets": [{"name": "mirror"}],
        },
    ]
    file = tmp_path / "objects.json"
    file.write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": objects}))
    arguments, status, says = COMMANDS[command]
    with world.node(load_variant(kind) if kind == "rke2" else load_node(kind), tmp_path) as laid:
        given = {"root": str(laid.root), "image": image, "mirror": mirror, "objects": str(file)}
        words = [argument.format(**given) for argument in arguments]
        if PROGRAM:
            done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False)
            ended, told = done.returncode, f"{done.stdout}{done.stderr}"
        else:
            ended, told = commands.run(words), "".join(capsys.readouterr())
        text = " ".join(told.split())
    assert (ended, says.format(**given) in text) == (status, True), text
