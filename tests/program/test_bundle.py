"""The self-contained bundle: what is in it, and that it runs where there is nothing else.

Built here from the wheel of the source tree, twice. $BUNDLE names an archive to test instead.
"""

from __future__ import annotations

import ast
import concurrent.futures
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles import ENTRY, NAME, another_build, build, contents_of, is_elf, unpack
from conftest import ROOT, NodeMaker
from crio_credential_provider import __version__
from crio_credential_provider.testbed.cluster import ApiServer
from mainjob import assert_serves, warm
from node import Node, request
from real_programs import cannot, need

TOP = f"{NAME}-{__version__}-linux-{platform.machine()}"
MAX_SIZE = 16 * 1024 * 1024
HOME = {"HOME": "/root"}


@pytest.fixture(scope="module")
def tree(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked; tests leave it as it is."""
    return unpack(archive, tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def own_tree(archive: Path, tmp_path: Path) -> Path:
    """One that a test may spoil."""
    return unpack(archive, tmp_path)


def as_root(*programs: str) -> None:
    """Skips where this process cannot make mounts."""
    need(*programs)
    if os.geteuid() != 0:
        cannot("only root can mount and chroot")


def in_chroot(root: Path, program: str, mounts: str = "") -> list[str]:
    """The command that runs a program below root, with /proc and /dev and nothing else of this machine.

    Args:
        mounts: shell commands in the mount namespace of that process, ``$1`` being the root.
    """
    for directory in ("proc", "dev"):
        (root / directory).mkdir(exist_ok=True)
    script = f'mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && {mounts or ":"} && shift && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh", str(root), *need("chroot"), str(root), program]


# -- the archive ------------------------------------------------------------------------------------------------------


def test_two_builds_are_the_same_bytes(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    if "BUNDLE" in os.environ:
        pytest.skip("$BUNDLE is tested, which was not built here")
    second = build(tmp_path_factory)
    assert second != archive
    # Compared by their contents first: they say where a difference is.
    assert contents_of(archive) == contents_of(second)
    for name in (archive.name, f"{archive.name}.sha256", archive.name.replace(".tar.gz", ".cdx.json")):
        assert archive.with_name(name).read_bytes() == second.with_name(name).read_bytes(), name


def test_the_archive_tells_nothing_of_who_made_it_and_when(archive: Path) -> None:
    assert archive.name == f"{TOP}.tar.gz"
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
    assert [member.name for member in members] == sorted((member.name for member in members), key=Path)
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "root", "root")}
    assert len({member.mtime for member in members}) == 1
    assert all(member.isdir() or member.isreg() or member.issym() for member in members)
    assert {member.mode for member in members} == {0o755, 0o644}
    # Bytes 4 to 8 of a gzip file are its time, bit 3 of byte 3 tells a name.
    assert archive.read_bytes()[3:8] == bytes(5)


def test_no_path_of_the_build_machine_is_in_it(tree: Path) -> None:
    home = os.path.realpath(ROOT / ".venv/bin/python").encode().split(b"/bin/")[0]
    for path in tree.rglob("*"):
        if path.is_file() and path.suffix != ".md":
            data = path.read_bytes()
            # OpenSSL names the directory that it was built for; /usr may be Python's own prefix.
            assert str(ROOT).encode() not in data, path
            assert home == b"/usr" or home not in data or path.name == "program", path


def test_checksum(archive: Path) -> None:
    digest, name = archive.with_name(f"{archive.name}.sha256").read_text().split()
    assert (digest, name) == (hashlib.sha256(archive.read_bytes()).hexdigest(), archive.name)


def test_size(tree: Path) -> None:
    assert sum(path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink()) <= MAX_SIZE


def test_nobody_else_can_write_to_it(tree: Path) -> None:
    assert [path for path in [tree, *tree.rglob("*")] if not path.is_symlink() and path.stat().st_mode & 0o022] == []


def test_every_library_that_anything_needs_is_inside(tree: Path) -> None:
    (readelf,) = need("readelf")
    have = {path.name for path in (tree / "lib").iterdir()}
    seen = 0
    for path in filter(is_elf, tree.rglob("*")):
        told = subprocess.run([readelf, "-dW", path], capture_output=True, text=True, check=True).stdout
        assert set(re.findall(r"\(NEEDED\).*\[(.+)\]", told)) <= have, path
        # One file tells where to look, relative to itself.
        assert re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.+)\]", told) in ([], ["$ORIGIN"]), path
        seen += 1
    assert seen >= 8
    found = subprocess.run(
        [tree / "lib" / NAME, "--inhibit-cache", "--list", tree / "lib/program"],
        capture_output=True,
        text=True,
        check=True,
    )
    places = re.findall(r"=> (\S+) \(", found.stdout)
    assert places and all(Path(place).resolve().is_relative_to(tree.resolve()) for place in places)


def test_bill_of_materials_and_licenses(archive: Path, tree: Path) -> None:
    bill = json.loads(archive.with_name(archive.name.replace(".tar.gz", ".cdx.json")).read_text())
    assert bill["bomFormat"] == "CycloneDX"
    names = {component["name"] for component in bill["components"]}
    assert {"cpython", "glibc", "openssl", "zlib", "tomli", "pyyaml", NAME} <= names
    for component in bill["components"]:
        assert component["version"] and component["licenses"][0]["expression"], component
        assert list((tree / "share/doc/licenses" / component["name"]).iterdir()), component
    assert (tree / "share/doc/LICENSE").exists()


def test_build_record(tree: Path) -> None:
    record = dict(line.split(": ", 1) for line in (tree / "BUILD").read_text().splitlines())
    assert (record["version"], record["architecture"]) == (__version__, platform.machine())
    # The libc inside asks for no libc, only for a kernel; its ABI note says which.
    assert re.fullmatch(r"\d+\.\d+\.\d+ or newer", record["linux"])
    assert tuple(map(int, record["linux"].split()[0].split("."))) <= (4, 18, 0)


def test_byte_code_alone_and_never_compared_with_a_source(tree: Path) -> None:
    assert [path for path in tree.rglob("*") if path.suffix in (".py", ".pyc")] == []
    with zipfile.ZipFile(tree / "lib/python.zip") as packed:
        for name in packed.namelist():
            assert name.endswith((".pyc", "/"))
            assert name.endswith("/") or packed.read(name)[4:8] == bytes((1, 0, 0, 0)), (
                name
            )  # PEP 552: hash-based, unchecked


def modules_named() -> set[str]:
    """What the sources import anywhere, but for type checkers alone."""
    found = {"crio_credential_provider"}
    for path in sorted((ROOT / "src/crio_credential_provider").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        found.add(name)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        left: list[ast.AST] = [ast.parse(path.read_text())]
        while left:
            node = left.pop()
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
                left += node.orelse
                continue
            left += ast.iter_child_nodes(node)
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
                found.add(".".join(part for part in (base, node.module) if part))
    return found


def codecs_named() -> set[str]:
    """What the sources give as the name of an encoding, looked up when it is used."""
    calls = r"""(?:\b(?:decode|encode|lookup)\(|\bencoding=|\bEncoding\()\s*["']([\w-]+)["']"""
    return {
        name
        for path in sorted((ROOT / "src/crio_credential_provider").rglob("*.py"))
        for name in re.findall(calls, path.read_text())
    }


def test_every_codec_and_module_that_the_source_names_is_inside(tree: Path, tmp_path: Path) -> None:
    modules, codecs = modules_named(), codecs_named()
    assert {"ssl", "rich.text", "ruamel.yaml", "crio_credential_provider.node.tree"} <= modules
    assert {"utf-8-sig", "unicode_escape", "ascii"} <= codecs
    entry = tmp_path / "self-test"
    entry.symlink_to(tree / ENTRY)
    names = [*sorted(modules), *(f"codec:{name}" for name in sorted(codecs))]
    done = subprocess.run([entry, *names], capture_output=True, text=True, check=False)
    missing = set(done.stdout.split())
    # __future__ is the compiler's affair here; of _sha2 and _sha256 a Python has one.
    assert missing <= {"__future__", "_sha2", "_sha256"}, done.stdout + done.stderr
    known = subprocess.run(
        [entry, "no_such_module", "codec:no-such-codec"], capture_output=True, text=True, check=False
    )
    assert known.stdout.split() == ["no_such_module", "codec:no-such-codec"]


# -- runs -------------------------------------------------------------------------------------------------------------


def test_an_empty_root_file_system(
    make_node: NodeMaker, tree: Path, tmp_path: Path, cluster: ApiServer, alpha: str
) -> None:
    """The archive, /proc, /dev and the node's files; no shell, no libc, no certificates, no /tmp."""
    as_root("unshare", "chroot", "mount")
    node = make_node("unused")
    shutil.copytree(tree, node.root / "bundle", symlinks=True)
    node.command, node.flags = in_chroot(node.root, f"/bundle/bin/{NAME}"), []
    assert_serves(node, cluster, alpha)


def test_the_demo_in_an_empty_root_file_system(tree: Path, tmp_path: Path) -> None:
    """Everything that the program can do, the mirror registry and the cluster included."""
    as_root("unshare", "chroot", "mount")
    shutil.copytree(tree, tmp_path / "bundle", symlinks=True)
    (tmp_path / "tmp").mkdir()
    command = in_chroot(tmp_path, f"/bundle/bin/{NAME}")
    done = subprocess.run([*command, "demo"], capture_output=True, text=True, check=False, env=HOME, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["demo", "--help"], ["gc", "--help"]], ids=" ".join)
def test_commands_in_an_empty_root_file_system(tree: Path, tmp_path: Path, arguments: list[str]) -> None:
    as_root("unshare", "chroot", "mount")
    shutil.copytree(tree, tmp_path / "bundle", symlinks=True)
    command = in_chroot(tmp_path, f"/bundle/bin/{NAME}")
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=HOME, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) > 100


def test_a_read_only_file_system(make_node: NodeMaker, own_tree: Path, cluster: ApiServer, alpha: str) -> None:
    as_root("unshare", "mount")
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && ! touch "$0/x" 2>/dev/null && exec "$@"'
    node = make_node("unshare", "--mount", "sh", "-c", script, str(own_tree), str(own_tree / ENTRY))
    assert_serves(node, cluster, alpha)


@pytest.mark.parametrize("place", ["with a blank", "co:lon;semi", "a$b", "\u00e4\u4e2d", "x" * 200])
def test_odd_paths(
    make_node: NodeMaker, own_tree: Path, tmp_path: Path, cluster: ApiServer, alpha: str, place: str
) -> None:
    (tmp_path / "odd").mkdir()
    moved = own_tree.rename(tmp_path / "odd" / place)
    assert_serves(make_node(str(moved / ENTRY)), cluster, alpha)


def test_symlinks(make_node: NodeMaker, tree: Path, tmp_path: Path, cluster: ApiServer, alpha: str) -> None:
    (tmp_path / "first").symlink_to(tree / ENTRY)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / NAME).symlink_to("../first")
    assert_serves(make_node(str(tmp_path / "bin" / NAME)), cluster, alpha)


def test_any_working_directory_and_any_name_in_argv(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong one')\n")
    for name in ("", "sh", "-x", "install-on-node"):
        done = subprocess.run(
            [name, "--version"], executable=tree / ENTRY, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), name
    done = subprocess.run([f"./bin/{NAME}", "--version"], cwd=tree, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that leaves a file where it is loaded."""
    (gcc,) = need("gcc")
    place = tmp_path_factory.mktemp("preload")
    source = (
        '#include <fcntl.h>\n__attribute__((constructor)) static void loaded(void) { open("%s", O_CREAT, 0600); }\n'
    )
    (place / "evil.c").write_text(source % (place / "was-here"))
    subprocess.run([gcc, "-shared", "-fPIC", "-o", place / "evil.so", place / "evil.c"], check=True)
    return place / "evil.so"


def test_a_hostile_environment(
    make_node: NodeMaker, tree: Path, preloaded: Path, cluster: ApiServer, alpha: str
) -> None:
    node = make_node(str(tree / ENTRY))
    planted = node.root / "planted"
    for name in ("json", "os", "encodings", "sitecustomize", "usercustomize", "crio_credential_provider"):
        node.write(f"planted/{name}.py", "raise SystemExit('planted')\n")
    for name in ("libc.so.6", "libssl.so.3", "libcrypto.so.3", "libm.so.6", "libz.so.1", "libnss_files.so.2"):
        shutil.copyfile(preloaded, planted / name)
    node.write("planted/openssl.cnf", "this [is] no = configuration\nopenssl_conf = missing\n")
    node.write("planted/gconv-modules", "module INTERNAL UTF-8// evil 1\n")
    subprocess.run(["true"], env={"LD_PRELOAD": str(preloaded)}, check=True)
    marker = preloaded.parent / "was-here"
    marker.unlink()  # it does what the test is about
    hostile = {
        "LD_PRELOAD": str(preloaded),
        "LD_AUDIT": str(preloaded),
        "LD_LIBRARY_PATH": str(planted),
        "LD_DEBUG": "all",
        "GLIBC_TUNABLES": "glibc.malloc.check=3",
        "GCONV_PATH": str(planted),
        "LOCPATH": str(planted),
        "LC_ALL": "tr_TR.ISO-8859-9",
        "OPENSSL_CONF": str(planted / "openssl.cnf"),
        "OPENSSL_MODULES": str(planted),
        "OPENSSL_ENGINES": str(planted),
        "SSL_CERT_FILE": str(planted / "json.py"),
        "SSL_CERT_DIR": str(planted),
        "SSLKEYLOGFILE": str(planted / "keys"),
        "PYTHONPATH": str(planted),
        "PYTHONHOME": str(planted),
        "PYTHONSTARTUP": str(planted / "json.py"),
        "PYTHONUSERBASE": str(planted),
        "PYTHONINSPECT": "1",
        "PYTHONVERBOSE": "1",
        "PYTHONIOENCODING": "utf-16",
        "PYTHONMALLOC": "debug",
        "PYTHONDONTWRITEBYTECODE": "",
        "RES_OPTIONS": "attempts:0",
        "LOCALDOMAIN": "evil.example",
    }
    node.environment = {**node.environment, **hostile}
    assert_serves(node, cluster, alpha)
    assert not marker.exists()
    assert not (planted / "keys").exists()


def test_a_node_s_own_certificates_are_found(tree: Path) -> None:
    """Only a cluster that names no CA needs them; OpenSSL would look where its own distribution keeps them."""
    done = subprocess.run(["strings", "-a", tree / "lib/program"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("there is no strings")
    assert "/etc/pki/tls/certs/ca-bundle.crt" in done.stdout


def test_the_name_in_the_journal(make_node: NodeMaker, tree: Path, tmp_path: Path) -> None:
    """_COMM is crio-credential, as with the Go provider, and people filter by it."""
    (tmp_path / "another-name").symlink_to(tree / ENTRY)
    node = make_node(str(tmp_path / "another-name"))
    node.write_registries_conf("")
    started = node.start()
    process = Path("/proc", str(started.process.pid))
    deadline = time.monotonic() + 10
    while process.joinpath("exe").resolve() != (tree / "lib" / NAME).resolve():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.joinpath("comm").read_text() == "crio-credential\n"
    assert started.finish(request()).status == 0


@pytest.mark.parametrize(
    ("redirection", "words"),
    [("<&-", "cannot read standard input: Bad file"), (">&-", "cannot write the answer to the kubelet: Bad file")],
)
def test_closed_streams(
    make_node: NodeMaker, tree: Path, cluster: ApiServer, alpha: str, redirection: str, words: str
) -> None:
    """Nothing that a run opens takes their place."""
    for flag in ("--version", "--help"):
        told = subprocess.run(["sh", "-c", '"$0" "$1" >&-', tree / ENTRY, flag], capture_output=True, check=False)
        assert (told.returncode, told.stderr.count(b"\n")) == (1, 1)
    node = make_node(str(tree / ENTRY))
    node.join(cluster)
    node.command = ["sh", "-c", f'exec "$0" "$@" {redirection}', *node.command]
    run = node.run(request(token=alpha))
    assert (run.status, run.stdout) == (1, b"")
    assert words in run.stderr


@pytest.fixture
def warm_node(make_node: NodeMaker, own_tree: Path, cluster: ApiServer, alpha: str) -> Node:
    return warm(make_node(str(own_tree / ENTRY)), cluster, alpha)


def test_a_pull_needs_nothing_of_the_archive(warm_node: Node, own_tree: Path, alpha: str) -> None:
    """What it runs is in memory with the interpreter; what tools/make_selfcontained.py lists as hot is complete."""
    (own_tree / "lib/python.zip").unlink()
    # Opened by the second phase of Python's start, which would wait for ever for somebody to write.
    os.mkfifo(own_tree / "pyvenv.cfg")
    run = warm_node.run(request(token=alpha))
    assert (run.status, run.stderr) == (0, "")
    assert warm_node.auth_files()
    assert warm_node.run(request("quay.io/team/app", alpha)).status == 0
    warm_node.write_mirrors("docker.io", "changed.corp/hub")
    assert warm_node.run(request("docker.io/library/redis", alpha)).entry["SOURCES"].startswith("changed.corp/hub/")
    # The reverse, so that this cannot rot: a person's command does need both.
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([own_tree / ENTRY, "--help"], timeout=1, check=False)
    (own_tree / "pyvenv.cfg").unlink()
    run = warm_node.run(b"", "--help")
    assert (run.status, run.stdout, run.stderr.count("\n")) == (1, b"", 1)
    assert f"{own_tree}/lib/python.zip: No such file or directory; install the program again" in run.stderr


@pytest.mark.parametrize("half", [b"{", b'{"kind":"\x01"}', b'{"kind":}'])
def test_documents_that_are_none_are_told(make_node: NodeMaker, tree: Path, half: bytes) -> None:
    """Found by the C scanner in a Python that is half started and has not loaded json."""
    run = make_node(str(tree / ENTRY)).run(half)
    assert (run.status, run.entry["OUTCOME"]) == (1, "fault-request")
    assert "is not valid JSON: " in run.stderr


def test_version_json_tells_the_commit(archive: Path, tree: Path) -> None:
    told = json.loads(subprocess.run([tree / ENTRY, "--version-json"], capture_output=True, check=True).stdout)
    record = dict(line.split(": ", 1) for line in (tree / "BUILD").read_text().splitlines())
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", told["gitCommit"])
    assert told["version"] == record["version"] == __version__
    assert told["pythonVersion"] == record["python"]


def test_as_an_ordinary_user(make_node: NodeMaker, archive: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("these tests run as an ordinary user already")
    node = make_node("unused")
    node.write_registries_conf("")
    tree = unpack(archive, node.root)
    for place in (node.root, *node.root.parents, *node.root.rglob("*")):
        if place == node.root or place.is_relative_to(node.root) or place.name.startswith("pytest-"):
            place.chmod(0o755)
    node.command = [str(tree / ENTRY)]
    run = node.run(request(), user=65534, group=65534, extra_groups=[])
    assert (run.status, run.stderr) == (0, "")


# -- onto a node ------------------------------------------------------------------------------------------------------


@pytest.fixture
def image(tree: Path, tmp_path: Path) -> Iterator[Path]:
    """The file system of the container: the bundle, and the node's directory."""
    as_root("unshare", "chroot", "mount")
    root = tmp_path / "image"
    shutil.copytree(tree, root / "bundle", symlinks=True)
    (root / "node").mkdir()
    yield root


def test_the_entry_point_of_the_image(make_node: NodeMaker, image: Path, cluster: ApiServer, alpha: str) -> None:
    read_only = 'mount --bind "$1/bundle" "$1/bundle" && mount -o remount,bind,ro "$1/bundle"'
    command = in_chroot(image, "/bundle/bin/install-on-node", read_only)
    # A copied program of the same name, as an older installation may have left it.
    (image / "node" / NAME).write_text("old\n")
    done = subprocess.run([*command, "/node"], capture_output=True, text=True, check=False, env=HOME, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (image / "node" / NAME).is_symlink()
    assert not [
        path for path in image.joinpath("node").rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022
    ]
    assert_serves(make_node(str(image / "node" / NAME)), cluster, alpha)
    done = subprocess.run([*command, "--remove", "/node"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr, list((image / "node").iterdir())) == (0, "", [])


def test_the_entry_point_stays_until_it_is_told_to_end(image: Path) -> None:
    command = in_chroot(image, "/bundle/bin/install-on-node")
    with subprocess.Popen([*command, "--stay", "/node"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        assert process.wait(10) == 0


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--bogus", "a"], ["--stay", "--remove", "a"]], ids=" ".join)
def test_the_entry_point_refuses_other_arguments(tree: Path, tmp_path: Path, arguments: list[str]) -> None:
    command: list[str | Path] = [tree / "bin/install-on-node", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")
    assert list(tmp_path.iterdir()) == []


def test_the_entry_point_tells_what_it_cannot_do(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [str(tree / "bin/install-on-node"), str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"install-on-node: Not a directory: \S+\n", done.stderr)


def test_an_upgrade_fails_no_run(
    make_node: NodeMaker, tree: Path, tmp_path: Path, cluster: ApiServer, alpha: str
) -> None:
    """50 runs, 4 at a time, while the entry changes three times; the runs use all of Python, OpenSSL included."""
    directory = tmp_path / "plugins"
    trees = [tree, another_build(tree, tmp_path / "b", "0.1.1"), another_build(tree, tmp_path / "c", "0.1.2")]

    def install(which: Path) -> None:
        subprocess.run([which / "bin/install-on-node", directory], check=True, capture_output=True)

    install(trees[0])
    node = make_node(str(directory / NAME), journald=False)
    node.join(cluster)
    images = [f"docker.io/library/image{number}" for number in range(50)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(node.run, request(image, alpha)) for image in images]
        for which in (*trees[1:], trees[0]):
            install(which)
            time.sleep(0.2)
        answers = [run.result() for run in runs]
    assert {(run.status, run.stderr) for run in answers} == {(0, "")}
    assert len(node.auth_files()) == 50


def test_a_removal_waits_for_an_installation(tree: Path, tmp_path: Path) -> None:
    directory = tmp_path / "plugins"
    command = [tree / "bin/install-on-node", directory]
    subprocess.run(command, check=True, capture_output=True)
    with open(directory / f".{NAME}/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen([*command[:1], "--remove", directory]) as removal:
            with pytest.raises(subprocess.TimeoutExpired):
                removal.wait(0.5)
            assert (directory / NAME).exists()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert removal.wait(10) == 0
    assert list(directory.iterdir()) == []


def test_installations_and_removals_at_once_leave_one_or_the_other(tree: Path, tmp_path: Path) -> None:
    directory = tmp_path / "plugins"
    program = str(tree / "bin/install-on-node")
    commands = [[program, str(directory)], [program, "--remove", str(directory)]] * 8

    def run(command: list[str]) -> tuple[int, str]:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stderr

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert set(pool.map(run, commands)) == {(0, "")}
    entry = directory / NAME
    if entry.is_symlink():
        subprocess.run([entry, "--version"], check=True, capture_output=True)
    else:
        assert list(directory.iterdir()) == []
    subprocess.run(commands[1], check=True)
    assert list(directory.iterdir()) == []
    directory.rmdir()
    # With nothing there, there is nothing to remove, and nothing is made.
    subprocess.run(commands[1], check=True)
    assert not directory.exists()


def test_builds_that_nobody_runs_any_more_go(tree: Path, tmp_path: Path) -> None:
    directory, store = tmp_path / "plugins", tmp_path / "plugins" / f".{NAME}"
    trees = [tree, *(another_build(tree, tmp_path / version, version) for version in ("0.1.1", "0.1.2"))]

    def install(which: Path) -> list[str]:
        subprocess.run([which / "bin/install-on-node", directory], check=True, capture_output=True)
        return sorted(path.name.split("-")[0] for path in store.iterdir() if path.is_dir())

    assert install(trees[0]) == ["0.1.0"]
    assert install(trees[1]) == ["0.1.0", "0.1.1"]
    # All three within two minutes, in which runs of the first may be under way.
    assert install(trees[2]) == ["0.1.0", "0.1.1", "0.1.2"]
    for path in store.iterdir():
        os.utime(path, (time.time() - 121, time.time() - 121))
    # The current one stays, however old; so does the one before it.
    assert install(trees[2]) == ["0.1.2"]
    assert install(trees[0]) == ["0.1.0", "0.1.2"]
