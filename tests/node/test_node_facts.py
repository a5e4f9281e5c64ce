"""What the commands read of a node: files below a root, YAML and TOML with lines, units, what the kubelet refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from credentialproviderconfig import ENTRY
from crio_credential_provider.errors import ConfigError
from crio_credential_provider.kubernetes.credentialproviderconfig import duration
from crio_credential_provider.kubernetes.imagepatterns import pattern_fault
from crio_credential_provider.node import providerconfig
from crio_credential_provider.node.commandline import find_flags, find_unit, last
from crio_credential_provider.node.crio import find_crio
from crio_credential_provider.node.facts import search_files
from crio_credential_provider.node.kubelet import ask_version, find_gate, find_kubelet, packaged_version, parse_version
from crio_credential_provider.node.located import Syntax, loads_yaml, toml_line, toml_value_line
from crio_credential_provider.node.tree import Tree, Unreadable
from crio_credential_provider.runtimes.crio import registries
from node import TESTS, write
from real_programs import cannot

CONFIG = "/etc/kubernetes/providers.yaml"


# -- the tree ---------------------------------------------------------------------------------------------------------


def test_links_stay_inside_the_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    write(tmp_path, "outside", "canary")
    write(root, "usr/etc/file", "inside")
    for name, target in (
        ("etc", "/usr/etc"),
        ("climbing", f"{'../' * 20}usr/etc/file"),
        ("absolute", str(outside)),
        ("up", f"../../../../../{outside}"),
    ):
        os.symlink(target, root / name)
    tree = Tree(str(root))
    assert tree.read("/etc/file") == tree.read("/climbing") == b"inside"
    assert tree.target("/etc/file") == "/usr/etc/file"
    for name in ("/absolute", "/up", f"/..{outside}"):
        with pytest.raises(Unreadable) as missing:
            tree.read(name)
        assert missing.value.missing


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    os.mkfifo(tmp_path / "fifo")
    write(tmp_path, "large", b"x" * 101)
    tree = Tree(str(tmp_path))
    for path, reason in (
        ("/a", "symbolic links"),
        ("/fifo", "not a regular file"),
        ("/large", "larger"),
        ("/", "directory"),
        ("/nul\0", "path"),
    ):
        with pytest.raises(Unreadable, match=reason):
            tree.read(path, 100)
    assert not tree.exists("/a") and not tree.exists("/nul\0")


# -- YAML and TOML ----------------------------------------------------------------------------------------------------


def test_everything_in_yaml_has_its_line() -> None:
    document = loads_yaml(b"# x\r\na:\r\n  - b: 1\r\n    c: [x,\r\n      y]\r\n", "f")
    assert document.value == {"a": [{"b": 1, "c": ["x", "y"]}]}
    assert [document.line(*path) for path in (("a",), ("a", 0), ("a", 0, "c"), ("a", 0, "c", 1))] == [2, 3, 4, 5]
    assert document.line("a", 0, "missing") == 3
    assert loads_yaml(b'\xef\xbb\xbf{"a":\n\t1}', "f").line("a") == 1


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    (
        (b"a: 1\na: 2\n", "duplicate key", 2),
        (b"a:\n\t- b\n", "token", 2),
        (b"a: \xff\n", "UTF-8", 1),
        (b"[" * 5000, "deeply", 0),
        (b"? [a]\n: b\n", "not a string", 1),
        (b"a: &a [*a]\n", "deeply", 0),
    ),
)
def test_yaml_that_is_none(text: bytes, reason: str, line: int) -> None:
    with pytest.raises(Syntax, match=reason) as found:
        loads_yaml(text, "f")
    assert found.value.line == line


def test_aliases_that_expand_without_end_are_refused() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(n)}: &{chr(n)} [{', '.join([f'*{chr(n - 1)}'] * 10)}]\n" for n in range(ord("b"), ord("j"))
    )
    with pytest.raises(Syntax, match="too many values"):
        loads_yaml(bomb.encode(), "f")


def test_merged_mappings_count_and_do_not_explode() -> None:
    document = loads_yaml(b"a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n", "f")
    assert document.value["b"] == {"x": 1, "y": 3}
    bomb = "a: &a {x: 1}\n" + "".join(
        f"{chr(n)}: &{chr(n)} {{<<: [{', '.join([f'*{chr(n - 1)}'] * 10)}]}}\n" for n in range(ord("b"), ord("j"))
    )
    with pytest.raises(Syntax, match="too many values"):
        loads_yaml(bomb.encode(), "f")


def test_lines_of_toml() -> None:
    text = '[crio.image]\nx = 1\n"namespaced_auth_dir" = "/a"\n[other]\nnamespaced_auth_dir = "/b"\n'
    assert toml_line(text, "crio.image", "namespaced_auth_dir") == 3
    assert toml_line(text, "crio", "namespaced_auth_dir") == 0
    assert toml_value_line('m = [\n {location = "a.b/c"},\n]', "location", "a.b/c") == 2


def refusals() -> list[tuple[str, str, str]]:
    """The vectors that CRI-O's library refuses: id, the main file, what the library said."""
    found = []
    for line in (TESTS / "vectors/registries.jsonl").read_text().splitlines():
        vector = json.loads(line)
        if vector["expected"]["error_class"] and not vector["input"]["dropins"] and vector["input"]["conf"]:
            found.append((vector["id"], vector["input"]["conf"], vector["expected"]["error"]))
    return found


def test_a_refusal_of_registries_conf_has_its_line() -> None:
    count, told, syntax = 0, 0, 0
    for name, text, said in refusals():
        try:
            registries.loads([("/f", text.encode())], "/f")
        except ConfigError as error:
            refused = error
        else:
            continue
        count += 1
        line = refused.line
        assert 0 <= line <= len(text.splitlines()) + 1, name
        told += line > 0
        # Where Go's parser tells a line as well, the two agree.
        theirs = re.search(r"toml: line (\d+)", said)
        if theirs and refused.rule == "toml-syntax":
            syntax += abs(line - int(theirs[1])) <= 1
    assert count > 40 and syntax > 3
    assert told >= 0.97 * count, f"{told} of {count}"


def test_the_same_files_as_the_plugin_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    drop_ins = "etc/containers/registries.conf.d"
    cases: tuple[tuple[str, ...], ...] = (
        (),
        ("etc/containers/registries.conf", f"{drop_ins}/b.conf", f"{drop_ins}/a.conf", f"{drop_ins}/c.txt"),
        ("root/.config/containers/registries.conf", f"{drop_ins}/a.conf"),
        ("root/.config/containers/registries.conf.d/x.conf", f"{drop_ins}/a.conf"),
        ("elsewhere.d/1.conf", f"{drop_ins}/a.conf"),
    )
    for number, files in enumerate(cases):
        root = tmp_path / str(number)
        root.mkdir()
        for file in files:
            write(root, file, "")
        for directory in ("", "/elsewhere.d"):
            theirs = registries.search_files("", f"{root}{directory}" if directory else "", str(root))
            main, found = search_files(Tree(str(root)), "", directory)
            assert [f"{root}{path}" for path in (main, *found)] == [theirs.main, *theirs.drop_ins], files


# -- command lines ----------------------------------------------------------------------------------------------------

UNIT = "/usr/lib/systemd/system/kubelet.service"
DROP_INS = "/etc/systemd/system/kubelet.service.d"


def test_a_unit_with_all_that_systemd_knows(tmp_path: Path) -> None:
    write(tmp_path, UNIT, "[Unit]\nExecStart=/not/this\n[Service]\nExecStart=/usr/bin/kubelet --old\n")
    write(
        tmp_path,
        f"{DROP_INS}/10-b.conf",
        "[Service]\nExecStart=\n# why\nExecStart=/usr/bin/wrap \\\n"
        "  # within\n  /usr/bin/kubelet \\\n  --v=${LEVEL} $EXTRA \\\n  --config '/a b'\n",
    )
    write(
        tmp_path,
        f"{DROP_INS}/05-a.conf",
        '[Service]\nEnvironment="EXTRA=--one" LEVEL=2\nEnvironmentFile=-/e\nEnvironmentFile=-/nowhere\n',
    )
    write(tmp_path, "/usr/lib/systemd/system/kubelet.service.d/10-b.conf", "[Service]\nExecStart=/hidden\n")
    write(tmp_path, "/e", '# c\nexport EXTRA="--kubeconfig=/k \\\n--node_ip=::1"\n')
    unit = find_unit(Tree(str(tmp_path)), "kubelet.service")
    assert unit is not None and not unit.problems
    assert [(word.text, str(word.origin)) for word in unit.words] == [
        ("/usr/bin/wrap", f"{DROP_INS}/10-b.conf:4"),
        ("/usr/bin/kubelet", f"{DROP_INS}/10-b.conf:6"),
        ("--v=2", f"{DROP_INS}/10-b.conf:7"),
        ("--kubeconfig=/k", "/e:2"),
        ("--node_ip=::1", "/e:3"),
        ("--config", f"{DROP_INS}/10-b.conf:8"),
        ("/a b", f"{DROP_INS}/10-b.conf:8"),
    ]
    flags = find_flags(unit.words, frozenset(("config",)))
    assert [(flag.name, flag.value) for flag in flags] == [
        ("v", "2"),
        ("kubeconfig", "/k"),
        ("node-ip", "::1"),
        ("config", "/a b"),
    ]
    assert last(flags, "v") is not None and last(flags, "w") is None


def lay_process(root: Path, pid: int, arguments: list[str]) -> None:
    write(root, f"/proc/{pid}/cmdline", "\0".join(arguments) + "\0")
    write(root, f"/proc/{pid}/stat", f"{pid} (a) b) S " + " ".join(["0"] * 18) + " 500 0")
    write(root, "/proc/stat", "cpu 1\nbtime 1000\n")


def test_a_running_kubelet_counts_and_its_unit_tells_the_lines(tmp_path: Path) -> None:
    write(tmp_path, UNIT, "[Service]\nExecStart=/usr/bin/kubelet --config=/c \\\n --kubeconfig=/new\n")
    lay_process(tmp_path, 42, ["/usr/bin/kubelet", "-config", "/c", "--kubeconfig=/old"])
    lay_process(tmp_path, 7, ["/usr/bin/not-kubelet"])
    kubelet = find_kubelet(Tree(str(tmp_path)), 100, live=True)
    assert kubelet is not None and kubelet.started == 1005
    config, kubeconfig = kubelet.flag("config"), kubelet.flag("kubeconfig")
    assert config is not None and str(config.origin) == f"{UNIT}:2"
    assert kubeconfig is not None and (kubeconfig.value, str(kubeconfig.origin)) == ("/old", "/proc/42/cmdline")
    offline = find_kubelet(Tree(str(tmp_path)), 100, live=False)
    assert offline is not None and (offline.flag("kubeconfig") or ())[:3] == ("kubeconfig", "/new", (UNIT, 3))


def test_a_user_s_process_is_no_kubelet_whatever_its_name_is(tmp_path: Path) -> None:
    """It would be believed, and its program be run as root."""
    lay_process(tmp_path, 7, ["/tmp/kubelet", "--kubeconfig=/theirs"])
    write(tmp_path, "/proc/7/status", "Name:\tkubelet\nUid:\t1000\t0\t0\t0\nGid:\t0\t0\t0\t0\n")
    assert find_kubelet(Tree(str(tmp_path)), 100, live=True) is None
    lay_process(tmp_path, 42, ["/usr/bin/kubelet", "--kubeconfig=/k"])
    write(tmp_path, "/proc/42/status", "Name:\tkubelet\nUid:\t0\t0\t0\t0\n")
    kubelet = find_kubelet(Tree(str(tmp_path)), 100, live=True)
    assert kubelet is not None and kubelet.program == "/proc/42/exe"


def test_a_process_of_a_container_is_no_kubelet(tmp_path: Path) -> None:
    for pid, namespace in ((1, "node"), (7, "container"), (42, "node")):
        lay_process(tmp_path, pid, ["kubelet" if pid != 1 else "systemd", f"--kubeconfig=/{pid}"])
        write(tmp_path, f"/namespaces/{namespace}", "")
        (tmp_path / f"proc/{pid}/ns").mkdir()
        (tmp_path / f"proc/{pid}/ns/pid").symlink_to(tmp_path / "namespaces" / namespace)
    kubelet = find_kubelet(Tree(str(tmp_path)), 100, live=True)
    assert kubelet is not None and kubelet.program == "/proc/42/exe"


@pytest.mark.parametrize(
    ("config", "drop_in", "flags", "value", "where"),
    (
        ("", "", "", None, "/c"),
        ("featureGates:\n  G: true\n", "", "", True, "/c:2"),
        ("featureGates:\n  G: true\n", "featureGates: {G: false}\n", "", False, "/d/20.conf:1"),
        ("featureGates: {G: false}\n", "featureGates: {Other: true}\n", "", False, "/c:1"),
        ("", "featureGates: {G: false}\n", "--feature-gates=Other=true,G=true", True, f"{UNIT}:2"),
        ("featureGates: {Other: true}\n", "", "", None, "/c:1"),
    ),
)
def test_the_gate(config: str, drop_in: str, flags: str, value: bool | None, where: str, tmp_path: Path) -> None:
    write(tmp_path, UNIT, f"[Service]\nExecStart=/usr/bin/kubelet --config=/c --config-dir=/d {flags}\n")
    write(tmp_path, "/c", config + "kind: KubeletConfiguration\n")
    write(tmp_path, "/d/20.conf", drop_in)
    write(tmp_path, "/d/30.txt", "featureGates: {G: maybe}\n")
    tree = Tree(str(tmp_path))
    kubelet = find_kubelet(tree, 100, live=False)
    assert kubelet is not None
    gate = find_gate(tree, kubelet, "G")
    assert (gate.value, str(gate.origin)) == (value, where)


def test_crio_reads_every_file_of_its_directory(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    assert find_crio(tree, 100, live=False) is None
    write(tmp_path, "/etc/crio/crio.conf", '[crio.image]\nnamespaced_auth_dir = "/first"\n')
    write(tmp_path, "/etc/crio/crio.conf.d/00-default", '[crio.image]\nnamespaced_auth_dir = "/second"\n')
    write(tmp_path, "/etc/crio/crio.conf.d/10/x", "[crio.image]\n\nnamespaced_auth_dir = '/third'\n")
    write(tmp_path, "/etc/crio/crio.conf.d/20.conf", '[crio.image]\nshort_name_mode = "disabled"\n')
    write(tmp_path, "/var/lib/crio/version", '"1.34.3+abc"')
    crio = find_crio(tree, 100, live=False)
    assert crio is not None and crio.version is not None and crio.version.numbers == (1, 34, 3)
    assert (crio.auth_dir.value, str(crio.auth_dir.origin)) == ("/third", "/etc/crio/crio.conf.d/10/x:3")
    assert crio.short_name_mode.value == "disabled"
    write(
        tmp_path,
        "/etc/systemd/system/crio.service",
        "[Service]\nEnvironment=CONTAINER_NAMESPACED_AUTH_DIR=/env\n"
        "ExecStart=/usr/bin/crio \\\n --registries-conf /r\n",
    )
    crio = find_crio(tree, 100, live=False)
    assert crio is not None and crio.auth_dir.value == "/env" and crio.registries_conf.value == "/r"


def test_versions(tmp_path: Path) -> None:
    for text, numbers in (
        ("Kubernetes v1.34.2", (1, 34, 2)),
        ("k3s version v1.35.1+k3s1 (50fa2d70)\ngo version go1.24.9", (1, 35, 1)),
        ("1.34", (1, 34)),
        ("Kubernetes v1.36.0-dev", (1, 36, 0)),
        ("Kubernetes v1.36.0-alpha.1.23+abc", (1, 36, 0)),
        ("Kubernetes v1.33.5-eks-1234", (1, 33, 5)),
        ('"1.34.3+abc"', (1, 34, 3)),
        ("a warning of 2026.11\nKubernetes v1.34.2", (1, 34, 2)),
    ):
        version = parse_version(text, "")
        assert version is not None and version.numbers == numbers, text
    write(
        tmp_path,
        "/var/lib/dpkg/status",
        "Package: x\nVersion: 9.9\n\nPackage: kubelet\nStatus: ok\nVersion: 1:1.33.4-1.1\n",
    )
    found = packaged_version(Tree(str(tmp_path)), "kubelet")
    assert found is not None and found.numbers == (1, 33, 4)
    assert packaged_version(Tree(str(tmp_path)), "cri-o") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    (
        *("none", "", "Kubernetes v0.0.0-master+$Format:%H$", "Kubernetes unknown", "Kubernetes v0.0.0"),
        *("k3s version dev (HEAD)\ngo version go1.24.9", "crio version unknown\nGoVersion: go1.24.9"),
        *("Kubernetes v1.x", "Kubernetes v1.34.x", "Kubernetes v2026.11.1", "Kubernetes v1.99999999", "1.2.3.4"),
    ),
)
def test_a_version_that_cannot_be_one_is_unknown(said: str, tmp_path: Path) -> None:
    assert parse_version(said, "") is None
    write(tmp_path, "/bin/kubelet", f"#!/bin/sh\ncat <<'.'\n{said}\n.\n")
    (tmp_path / "bin/kubelet").chmod(0o755)
    version, why = ask_version(Tree(str(tmp_path)), "/bin/kubelet")
    assert version is None and why.startswith("/bin/kubelet --version prints ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "why"),
    (
        ("exit 3", "exited with status 3"),
        ("kill -SEGV $$", "was ended by signal 11"),
        ("sleep 30 & wait", "did not exit within 0.2 s"),
        ("", "prints nothing"),
    ),
)
def test_a_program_that_does_not_say_its_version(
    does: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crio_credential_provider.node.kubelet._VERSION_TIMEOUT", 0.2)
    write(tmp_path, "/bin/crio", f"#!/bin/sh\n{does}\n")
    (tmp_path / "bin/crio").chmod(0o755)
    assert ask_version(Tree(str(tmp_path)), "/bin/crio") == (None, f"/bin/crio --version {why}")


# -- what the kubelet refuses -----------------------------------------------------------------------------------------


def refused(root: Path, text: str, version: tuple[int, int] | None = (1, 34)) -> list[tuple[int, str]]:
    write(root, CONFIG, text)
    config = providerconfig.load(Tree(str(root)), CONFIG, version)
    return [(refusal.origin.line, refusal.reason) for refusal in config.refusals]


def test_a_good_one_is_taken(tmp_path: Path) -> None:
    assert refused(tmp_path, ENTRY) == []
    assert refused(tmp_path, json.dumps(loads_yaml(ENTRY.encode(), "f").value, indent="\t")) == []
    assert refused(tmp_path, ENTRY.replace("\n", "\r\n")) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    (
        ("kubelet.config.k8s.io/v1\n", "kubelet.config.k8s.io/v2\n", 1, "apiVersion is"),
        ("kind: CredentialProviderConfig", "kind: Config", 2, "kind is"),
        ("name: crio-credential-provider", "name: bin/x", 4, "is not a valid file name"),
        ("matchImages", "matchImage", 6, "did you mean matchImages?"),
        ("    defaultCacheDuration: 0s\n", "", 4, "defaultCacheDuration is missing"),
        ("Duration: 0s", "Duration: 0", 8, "is not a duration"),
        ("Duration: 0s", "Duration: 1d", 8, "is not a duration"),
        ("Duration: 0s", "Duration: -1s", 8, "is not a duration"),
        ("    apiVersion: credentialprovider.kubelet.k8s.io/v1\n", "", 4, "apiVersion is missing"),
        ("      - docker.io", "      - 5", 7, "expected a string"),
        ("      - docker.io", "      - docker.io:x", 7, "port"),
        ("cacheType: Token", "cacheType: token", 11, "cacheType is"),
        ("requireServiceAccount: true", "requireServiceAccount: 'yes'", 12, "requireServiceAccount"),
        ("      requireServiceAccount: true\n", "", 9, "requireServiceAccount"),
        (
            "serviceAccountTokenAudience: https://kubernetes.default.svc",
            "serviceAccountTokenAudience: ''",
            9,
            "Audience",
        ),
        ("      cacheType: Token", "      extra: 1\n      cacheType: Token", 11, "unknown key 'extra'"),
        (
            "    tokenAttributes:",
            "    env:\n    - name: a\n      value: 1\n    tokenAttributes:",
            11,
            "expected a string",
        ),
        ("    tokenAttributes:", "    args: x\n    tokenAttributes:", 9, "not a list"),
        (
            "    tokenAttributes:",
            "    args: [true]\n    tokenAttributes:",
            9,
            'args has a boolean, expected a string: write "true"',
        ),
        (
            "      cacheType: Token",
            "      requiredServiceAccountAnnotationKeys: [a b]\n      cacheType: Token",
            11,
            "not a valid annotation name",
        ),
    ),
)
def test_one_refusal_each(old: str, new: str, line: int, reason: str, tmp_path: Path) -> None:
    assert old in ENTRY
    found = refused(tmp_path, ENTRY.replace(old, new, 1))
    assert len(found) == 1, found
    assert found[0][0] == line and reason in found[0][1]


def test_a_directory_is_read_in_byte_order_and_merged(tmp_path: Path) -> None:
    write(tmp_path, "/d/b.yaml", ENTRY)
    write(
        tmp_path,
        "/d/a.json",
        json.dumps(loads_yaml(ENTRY.replace("crio-credential-provider", "x").encode(), "f").value),
    )
    write(tmp_path, "/d/c.txt", "junk")
    tree = Tree(str(tmp_path))
    config = providerconfig.load(tree, "/d", (1, 34))
    assert [provider.name for provider in config.providers] == ["x", "crio-credential-provider"] and not config.refusals
    assert [refusal.origin.file for refusal in providerconfig.load(tree, "/d", (1, 33)).refusals] == ["/d"]
    write(tmp_path, "/d/z.yml", ENTRY)
    (twice,) = providerconfig.load(tree, "/d", None).refusals
    assert str(twice.origin) == "/d/z.yml:4"
    assert "duplicate provider name" in twice.reason and "/d/b.yaml:4" in twice.reason


@pytest.mark.parametrize(
    ("text", "seconds"),
    (
        ("0", 0),
        ("0s", 0),
        ("10m", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("-1s", -1),
        ("1", None),
        ("", None),
        (5, None),
    ),
)
def test_durations_as_go_has_them(text: object, seconds: float | None) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "pattern", ("docker.io", "docker.io/*", "*.corp:5000", "https://docker.io", "a?b", "[::1]:5000", "")
)
def test_patterns_that_the_kubelet_takes(pattern: str) -> None:
    assert pattern_fault(pattern) == ""


@pytest.mark.parametrize("pattern", ("a:*", "host:port", "a b", "a\n", "[::1", "a/%zz", "a|b"))
def test_patterns_that_the_kubelet_refuses(pattern: str) -> None:
    assert pattern_fault(pattern)


@pytest.mark.slow
def test_a_program_that_needs_the_nodes_libraries_is_asked_below_the_nodes_root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        cannot("only root can change its root")
    libraries = re.findall(r"/\S+", subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True).stdout)
    for path in ("/bin/sh", *libraries):
        (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / path[1:])
    (tmp_path / "bin/sh").rename(tmp_path / "bin/sh-of-the-node")
    program = tmp_path / "usr/bin/kubelet"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("#!/bin/sh-of-the-node\necho Kubernetes v1.35.4\n")
    program.chmod(0o755)
    asked = ask_version(Tree(str(tmp_path)), "/usr/bin/kubelet")
    assert asked.version is not None and asked.version.numbers == (1, 35, 4)
