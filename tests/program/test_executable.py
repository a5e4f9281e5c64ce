"""The static executable: what is in the file, and that it runs wherever the kernel starts it.

What the program does is tested by all tests marked `process`, which run on it as well (`make test-program`).
"""

from __future__ import annotations

import ast
import concurrent.futures
import io
import json
import os
import platform
import re
import resource
import shutil
import socket
import stat
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import ROOT, NodeMaker
from crio_credential_provider import __version__
from crio_credential_provider.__main__ import COMMANDS
from crio_credential_provider.testbed.certificates import Authority
from crio_credential_provider.testbed.cluster import ApiServer
from handingoff import until
from machine import is_foreign
from mainjob import assert_serves, warm
from node import Node, docker_config, request, write
from real_programs import cannot, need

pytestmark = pytest.mark.process

NAME = "crio-credential-provider"
MAX_SIZE = 16_000_000
HOME = {"HOME": "/root"}


@pytest.fixture
def own(executable: Path, tmp_path: Path) -> Path:
    """A copy that a test may move, replace or remove."""
    return Path(shutil.copy(executable, tmp_path / NAME))


def run(program: str | Path, *arguments: str | bytes, **options: object) -> subprocess.CompletedProcess[str]:
    given = {"env": HOME, "capture_output": True, "text": True, "timeout": 120, "check": False, **options}
    return subprocess.run([program, *arguments], **given)  # type: ignore[call-overload, no-any-return]


# -- the file ---------------------------------------------------------------------------------------------------------


class Segment(NamedTuple):
    """A program header of a 64-bit ELF file."""

    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    memory_size: int
    alignment: int


_LOAD, _DYNAMIC, _INTERPRETER, _STACK = 1, 2, 3, 0x6474E551
_EXECUTE, _WRITE = 1, 2


def segments(data: bytes) -> list[Segment]:
    assert data[:6] == b"\x7fELF\x02\x01"
    (start,) = struct.unpack_from("<Q", data, 32)
    size, number = struct.unpack_from("<HH", data, 54)
    return [Segment(*struct.unpack_from("<IIQQQQQQ", data, start + each * size)) for each in range(number)]


def test_nothing_is_linked_when_it_starts(executable: Path) -> None:
    found = segments(executable.read_bytes())
    kinds = {segment.kind for segment in found}
    assert _LOAD in kinds and kinds.isdisjoint((_INTERPRETER, _DYNAMIC))
    (stack,) = (segment for segment in found if segment.kind == _STACK)
    assert not stack.flags & _EXECUTE
    loaded = [segment for segment in found if segment.kind == _LOAD]
    assert [segment for segment in loaded if segment.flags & _EXECUTE and segment.flags & _WRITE] == []


def test_size(executable: Path) -> None:
    assert executable.stat().st_size <= MAX_SIZE


def test_nothing_of_the_machine_that_built_it_is_in_it(executable: Path) -> None:
    data = executable.read_bytes()
    with zipfile.ZipFile(executable) as archive:
        data += b"\0".join(archive.read(name) for name in archive.namelist())
    found = re.findall(rb"/[\w./-]*(?:packaging/executable|build/executable|\.venv)[\w./-]*", data)
    assert sorted({*found}) == []
    assert str(ROOT).encode() not in data
    # Nor of the environment in which the program was loaded.
    assert re.findall(rb"~0x[0-9a-f]{8,}", data) == []


def test_byte_code_alone_and_never_compared_with_a_source(executable: Path) -> None:
    with zipfile.ZipFile(executable) as archive:
        codes = [name for name in archive.namelist() if name.endswith(".pyc")]
        assert len(codes) > 300 and not [name for name in archive.namelist() if name.endswith((".py", ".so"))]
        # PEP 552: hash-based, unchecked.
        assert {archive.read(name)[4:8] for name in codes} == {bytes((1, 0, 0, 0))}


PROBE = """
import importlib, sys, zipimport
names = sys.argv[2:]
(archive,) = zipimport._zip_directory_cache.values()
modules = [path[:-4].removesuffix("/__init__").replace("/", ".") for path in archive if path.endswith(".pyc")]
for name in sorted({*modules, *names}):
    try:
        "".encode(name[6:]) if name.startswith("codec:") else importlib.import_module(name)
    except Exception as error:
        print(name, error, sep=": ")
sys.stdout.flush()
raise SystemExit(0)
"""


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
    return found - {"__future__"}  # the compiler's affair


def codecs_named() -> set[str]:
    """What the sources give as the name of an encoding, and the one that a socket encodes a host's name with."""
    calls = r"""(?:\b(?:decode|encode|lookup)\(|\bencoding=|\bEncoding\()\s*["']([\w-]+)["']"""
    sources = sorted((ROOT / "src/crio_credential_provider").rglob("*.py"))
    return {"idna", *(name for path in sources for name in re.findall(calls, path.read_text()))}


def test_every_module_and_codec_can_be_imported(executable: Path, tmp_path: Path) -> None:
    """By a copy whose command `gc` tells what it cannot import, of all modules in it and of all that sources name."""
    modules, codecs = modules_named(), codecs_named()
    assert {"ssl", "rich.text", "ruamel.yaml", "crio_credential_provider.node.tree"} <= modules
    assert {"utf-8-sig", "unicode_escape", "ascii"} <= codecs
    probe = tmp_path / "probe"
    data, place = executable.read_bytes(), "crio_credential_provider/commands/gc.py"
    changed = io.BytesIO()
    with zipfile.ZipFile(executable) as archive, zipfile.ZipFile(changed, "w") as copy:
        begin = min(member.header_offset for member in archive.infolist())
        for member in archive.infolist():
            if member.filename != f"{place}c":
                copy.writestr(member, archive.read(member))
        copy.writestr(place, PROBE)
    probe.write_bytes(data[:begin] + changed.getvalue())
    probe.chmod(0o755)
    done = run(probe, "gc", *sorted(modules), *(f"codec:{name}" for name in codecs), "no_such_module", "codec:no-such")
    told = {line.partition(": ")[0].removeprefix("crio_credential_provider.") for line in done.stdout.splitlines()}
    # It sees what is missing; the others say of themselves that a faster form of theirs is not there.
    assert {"no_such_module", "codec:no-such"} <= told, done.stderr
    assert told - {"no_such_module", "codec:no-such", "ruamel.yaml.cyaml"} == set(), done.stdout


def test_version_json(executable: Path) -> None:
    told = json.loads(run(executable, "--version-json").stdout)
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", told["gitCommit"])
    machine = {62: "x86_64", 183: "aarch64"}[struct.unpack_from("<H", executable.read_bytes(), 18)[0]]
    assert (told["version"], told["platform"]) == (__version__, f"linux/{machine}")


# -- places -----------------------------------------------------------------------------------------------------------

ARGUMENTS = ["--help", "--version", "completion bash", "manifests rbac", "gc --dry-run"]
ARGUMENTS += [f"{command} --help" for command in COMMANDS]


PROC = 'mount -t proc proc "$1/proc"'
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"'


def below(root: Path, program: Path, *mounts: str) -> list[str]:
    """The command that runs the executable with a root that has nothing but itself and what is mounted."""
    if os.geteuid() != 0:
        cannot("only root can mount and chroot")
    unshare, chroot, _ = need("unshare", "chroot", "mount")
    shutil.copy(program, root / NAME)
    (root / "proc").mkdir(exist_ok=True)
    script = " && ".join([*mounts, f'exec {chroot} "$@"'])
    return [unshare, "--mount", "sh", "-c", script, "sh", str(root), f"/{NAME}"]


@pytest.fixture
def bare_node(make_node: NodeMaker, executable: Path, cluster: ApiServer) -> Node:
    """A node of the cluster without a shell, a libc, certificates, /dev, /tmp and /proc."""
    node = make_node("unused")
    node.command, node.flags = below(node.root, executable), []
    node.join(cluster)
    return node


def test_a_pull_in_an_empty_root_file_system(bare_node: Node, cluster: ApiServer, alpha: str) -> None:
    assert_serves(bare_node, cluster, alpha)


def test_an_api_server_by_name_in_an_empty_root_file_system(bare_node: Node, cluster: ApiServer, alpha: str) -> None:
    """Names are looked up by the C library in the file, in the node's own /etc/hosts."""
    url = f"https://kubernetes.default.svc:{cluster.port}"
    bare_node.write_kubeconfig(url, cluster.authority.certificate_pem)
    assert "kubernetes.default.svc" in bare_node.run(request(token=alpha), "--deadline=2s").stderr
    bare_node.write("etc/hosts", "127.0.0.1 kubernetes.default.svc\n")
    run = bare_node.run(request(token=alpha))
    assert (run.status, run.stderr) == (0, "")
    assert bare_node.auth_files()


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_commands_in_an_empty_read_only_root_file_system(executable: Path, tmp_path: Path, arguments: str) -> None:
    done = run(*below(tmp_path, executable, READ_ONLY, PROC), *arguments.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) > 100 or arguments.startswith("gc")


def test_the_demo_in_an_empty_root_file_system(executable: Path, tmp_path: Path) -> None:
    """Everything that the program can do, the mirror registry and the cluster included; it starts itself for that."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "dev").mkdir()
    os.mknod(tmp_path / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    done = run(*below(tmp_path, executable, PROC), "demo")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_without_proc_a_command_says_what_is_missing(executable: Path, tmp_path: Path) -> None:
    """All but a pull is read from the file itself, whose name the kernel tells there."""
    done = run(*below(tmp_path, executable), "doctor", "--help")
    assert done.returncode == 0 or "mount /proc" in done.stderr, done.stderr


def test_a_read_only_tmpfs(make_node: NodeMaker, own: Path, cluster: ApiServer, alpha: str) -> None:
    if os.geteuid() != 0:
        cannot("only root can mount")
    place = own.parent / "place"
    place.mkdir()
    mounts = 'mount -t tmpfs none "$0" && cp "$1" "$0/x" && mount -o remount,ro "$0" && ! touch "$0/y" 2>/dev/null'
    script = f'{mounts} && program="$0/x" && shift && exec "$program" "$@"'
    (unshare, *_) = need("unshare", "mount")
    node = make_node(unshare, "--mount", "sh", "-c", script, str(place), str(own))
    assert_serves(node, cluster, alpha)


@pytest.mark.parametrize("place", ["with a blank", "co:lon;semi", "a$b", "\u00e4\u4e2d", "x" * 200, "p.zip", "-c"])
def test_any_name(make_node: NodeMaker, own: Path, cluster: ApiServer, alpha: str, place: str) -> None:
    moved = own.rename(own.parent / place)
    assert run(moved, "gc", "--help").returncode == 0
    assert_serves(make_node(str(moved)), cluster, alpha)


def test_symlinks(make_node: NodeMaker, executable: Path, tmp_path: Path, cluster: ApiServer, alpha: str) -> None:
    (tmp_path / "first").symlink_to(executable)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / NAME).symlink_to("../first")
    assert run(tmp_path / "bin" / NAME, "gc", "--help").returncode == 0
    assert_serves(make_node(str(tmp_path / "bin" / NAME)), cluster, alpha)


def test_from_path_and_relative(own: Path) -> None:
    (own.parent / "json.py").write_text("raise SystemExit('the wrong one')\n")
    for name, options in ((f"./{NAME}", {"cwd": own.parent}), (NAME, {"env": {"PATH": f"/nowhere:{own.parent}"}})):
        done = run(name, "gc", "--help", **options)
        assert (done.returncode, done.stderr) == (0, ""), name


@pytest.mark.parametrize("name", ["", "sh", "-x", "/no/such/file"])
def test_any_name_in_argv(executable: Path, name: str) -> None:
    done = run(name, "gc", "--help", executable=executable)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_arguments_at_all(executable: Path) -> None:
    """Not even a name: kernels before 5.18 started that; newer ones give an empty name."""
    (python,) = need("python3")
    script = "import ctypes, sys; ctypes.CDLL(None).execv(sys.argv[1].encode(), (ctypes.c_char_p * 1)(None))"
    done = run(python, "-c", script, str(executable), input=request().decode())
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1) and (done.stdout or done.stderr)


def test_the_name_in_the_journal(make_node: NodeMaker, own: Path) -> None:
    """_COMM is crio-credential, as with the Go provider, and people filter by it."""
    node = make_node(str(own))
    node.write_registries_conf("")
    started = node.start()
    process = Path("/proc", str(started.process.pid))
    until(lambda: process.joinpath("exe").resolve() == own.resolve() or is_foreign(str(own)))
    assert process.joinpath("comm").read_text() == "crio-credential\n" or is_foreign(str(own))
    assert started.finish(request()).status == 0


def test_as_an_ordinary_user(make_node: NodeMaker, executable: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("these tests run as an ordinary user already")
    node = make_node("unused")
    node.write_registries_conf("")
    node.command = [str(shutil.copy(executable, node.root / NAME))]
    for place in (node.root, *node.root.parents, *node.root.rglob("*")):
        if place == node.root or place.is_relative_to(node.root) or place.name.startswith(("pytest-", "popen-")):
            place.chmod(0o755)
    run = node.run(request(), user=65534, group=65534, extra_groups=[])
    assert (run.status, run.stderr) == (0, "")


# -- updates ----------------------------------------------------------------------------------------------------------


def replace(program: Path, content: bytes) -> None:
    fresh = program.with_name("fresh")
    fresh.write_bytes(content)
    fresh.chmod(0o755)
    fresh.replace(program)


@pytest.mark.parametrize("update", [lambda path: replace(path, b"#!/bin/false\n"), Path.unlink])
def test_a_command_outlives_its_file(own: Path, update: Callable[[Path], None]) -> None:
    """What it loads late (that which lays out a report) it loads from the file that it was started from."""
    if is_foreign(str(own)):
        pytest.skip("the emulator opens /proc/self/exe by name")
    secrets, pipe, root = own.with_name("secrets"), own.with_name("pipe"), own.with_name("root")
    config = json.dumps(docker_config(**{"mirror.corp:5000": ("alpha", "s3cret")}))
    secret = {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}}
    secrets.write_text(json.dumps({"kind": "Secret", "metadata": {"name": "a", "namespace": "a"}, **secret}))
    conf = '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.corp:5000/hub"\n'
    write(root, "etc/containers/registries.conf", conf)
    arguments = ["explain", "docker.io/library/nginx", "-n", "a", f"--root={root}", "--secrets"]
    expected = run(own, *arguments, str(secrets))
    assert (expected.returncode, expected.stderr) == (0, ""), expected
    os.mkfifo(pipe)
    command = [str(own), *arguments, str(pipe)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=HOME, text=True) as process:
        with open(pipe, "w") as given:  # opens once it reads
            update(own)
            given.write(secrets.read_text())
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.replace(str(pipe), str(secrets)) == expected.stdout


def test_an_update_fails_no_run(make_node: NodeMaker, own: Path, cluster: ApiServer, alpha: str) -> None:
    """50 runs, 4 at a time, while the file is replaced three times."""
    content = own.read_bytes()
    node = make_node(str(own), journald=False)
    node.join(cluster)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(node.run, request(f"docker.io/library/image{number}", alpha)) for number in range(50)]
        for length in (1, 2, 3):
            replace(own, content + bytes(length))
            time.sleep(0.1)
        answers = [run.result() for run in runs]
    assert {(run.status, run.stderr) for run in answers} == {(0, "")}
    assert len(node.auth_files()) == 50


# -- surroundings -----------------------------------------------------------------------------------------------------


def test_a_hostile_environment(make_node: NodeMaker, executable: Path, cluster: ApiServer, alpha: str) -> None:
    node = make_node(str(executable))
    planted = node.root / "planted"
    for name in ("json", "os", "encodings", "sitecustomize", "usercustomize", "crio_credential_provider"):
        node.write(f"planted/{name}.py", "raise SystemExit('planted')\n")
    for name in ("libc.so.6", "libssl.so.3", "libnss_files.so.2"):
        node.write(f"planted/{name}", "not a library")
    node.write("planted/openssl.cnf", "this [is] no = configuration\nopenssl_conf = missing\n")
    node.write("planted/gconv-modules", "module INTERNAL UTF-8// evil 1\n")
    hostile = {
        "LD_PRELOAD": str(planted / "libc.so.6"),
        "LD_AUDIT": str(planted / "libc.so.6"),
        "LD_LIBRARY_PATH": str(planted),
        "LD_DEBUG": "all",
        "GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.malloc.perturb=85:glibc.malloc.tcache_count=0",
        "MALLOC_PERTURB_": "85",
        "MALLOC_ARENA_MAX": "1",
        "GCONV_PATH": str(planted),
        "LOCPATH": str(planted),
        "LC_ALL": "tr_TR.ISO-8859-9",
        "LANG": "tr_TR.ISO-8859-9",
        "OPENSSL_CONF": str(planted / "openssl.cnf"),
        "OPENSSL_MODULES": str(planted),
        "OPENSSL_ENGINES": str(planted),
        "OPENSSL_ia32cap": "0",
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
        "PYTHONHASHSEED": "nonsense",
        "PYTHONDUMPREFS": "1",
        "RES_OPTIONS": "attempts:0",
        "LOCALDOMAIN": "evil.example",
        "TZ": f":{planted}/json.py",
    }
    node.environment = {**node.environment, **hostile}
    assert_serves(node, cluster, alpha)
    assert not (planted / "keys").exists()
    done = run(executable, "manifests", "rbac", env=hostile)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run(executable, "manifests", "rbac").stdout


@pytest.mark.parametrize("names", [{"SSL_CERT_FILE": "/ca.pem"}, {"SSL_CERT_DIR": "/certificates"}], ids=str)
def test_the_environment_names_no_certificates(
    bare_node: Node, cluster: ApiServer, authority: Authority, alpha: str, tmp_path: Path, names: dict[str, str]
) -> None:
    """Where the kubeconfig names no CA, the node's own vouch, and no others."""
    bare_node.write_kubeconfig(cluster.url)
    pem = bare_node.write("ca.pem", authority.certificate_pem)
    (openssl,) = need("openssl")
    hashed = run(openssl, "x509", "-in", str(pem), "-noout", "-hash").stdout.strip()
    bare_node.write(f"certificates/{hashed}.0", authority.certificate_pem)
    told = bare_node.run(request(token=alpha), env=names)
    assert told.status == 1 and "not issued by one of the system's CAs" in told.stderr


@pytest.mark.parametrize("place", ["etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt"])
def test_the_node_s_own_certificates_are_found(
    bare_node: Node, cluster: ApiServer, authority: Authority, alpha: str, place: str
) -> None:
    """Where that node's distribution keeps them. OpenSSL would look where its own does."""
    bare_node.write_kubeconfig(cluster.url)
    bare_node.write(place, authority.certificate_pem)
    told = bare_node.run(request(token=alpha))
    assert (told.status, told.stderr) == (0, "")


def test_many_variables_and_names_that_are_not_utf_8(
    make_node: NodeMaker, executable: Path, cluster: ApiServer, alpha: str
) -> None:
    node = make_node(str(executable))
    variables = {**{f"VARIABLE_{number}": "x" * 300 for number in range(300)}, "CAF\udce9": "\udcff", "EMPTY": ""}
    node.environment |= variables
    assert_serves(node, cluster, alpha)
    told = node.run(b"", "--caf\udce9=\udcff")
    assert told.status == 2 and told.stderr.count("\n") == 1


def test_the_environment_of_a_flag_is_read(make_node: NodeMaker, executable: Path) -> None:
    """So that what is set at the build does not hide it."""
    run = make_node(str(executable)).run(request(), env={"CRIO_CREDENTIAL_PROVIDER_DEADLINE": "nonsense"})
    assert run.status == 2 and "nonsense" in run.stderr


def _limited(kind: int, limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


LIMITS = {
    "a stack of 128 KiB": (resource.RLIMIT_STACK, 128 << 10),
    "a stack of 64 MiB": (resource.RLIMIT_STACK, 64 << 20),
    "a stack without a limit": (resource.RLIMIT_STACK, resource.RLIM_INFINITY),
    "an address space of 160 MiB": (resource.RLIMIT_AS, 160 << 20),
    "data of 96 MiB": (resource.RLIMIT_DATA, 96 << 20),
    "16 open files": (resource.RLIMIT_NOFILE, 16),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_limits(make_node: NodeMaker, executable: Path, cluster: ApiServer, alpha: str, limit: str) -> None:
    if is_foreign(str(executable)) and LIMITS[limit][0] in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        pytest.skip("the emulator takes more")
    node = make_node(str(executable))
    node.join(cluster)
    run = node.start(preexec_fn=_limited(*LIMITS[limit])).finish(request(token=alpha))
    assert (run.status, run.stderr) == (0, "")
    assert node.auth_files()
    done = subprocess.run(
        [executable, "manifests", "rbac"], preexec_fn=_limited(*LIMITS[limit]), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("flag", ["--addr-no-randomize", "--addr-compat-layout", "--read-implies-exec"])
def test_any_layout_of_memory(
    make_node: NodeMaker, executable: Path, cluster: ApiServer, alpha: str, flag: str
) -> None:
    (setarch,) = need("setarch")
    assert_serves(make_node(setarch, flag, str(executable)), cluster, alpha)


@pytest.mark.parametrize("processor", ["qemu64", "core2duo", "Nehalem", "max"])
def test_any_processor(make_node: NodeMaker, executable: Path, cluster: ApiServer, alpha: str, processor: str) -> None:
    """OpenSSL's code is for the processor that runs it, not for the one of the build."""
    if platform.machine() != "x86_64" or is_foreign(str(executable)):
        pytest.skip("the processors are those of amd64")
    (emulator,) = need("qemu-x86_64-static")
    assert_serves(make_node(emulator, "-cpu", processor, str(executable)), cluster, alpha)


@pytest.mark.parametrize(
    ("redirection", "words"),
    [("<&-", "cannot read standard input: Bad file"), (">&-", "cannot write the answer to the kubelet: Bad file")],
)
def test_closed_streams(
    make_node: NodeMaker, executable: Path, cluster: ApiServer, alpha: str, redirection: str, words: str
) -> None:
    """Nothing that a run opens takes their place."""
    for flag in ("--version", "--help"):
        told = subprocess.run(["sh", "-c", '"$0" "$1" >&-', executable, flag], capture_output=True, check=False)
        assert (told.returncode, told.stderr.count(b"\n")) == (1, 1)
    node = make_node(str(executable))
    node.join(cluster)
    node.command = ["sh", "-c", f'exec "$0" "$@" {redirection}', *node.command]
    run = node.run(request(token=alpha))
    assert (run.status, run.stdout) == (1, b"")
    assert words in run.stderr
    node.command[2] = 'exec "$0" "$@" <&- >&- 2>&-'
    assert node.run(request(token=alpha)).status == 1


# -- what each process has of its own ---------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield server


def test_no_two_processes_send_the_same_random_bytes(
    make_node: NodeMaker, executable: Path, listener: socket.socket, authority: Authority, alpha: str
) -> None:
    """Random, session id and public keys of a ClientHello (RFC 8446, 4.1.2), which are long, and the longest in it."""
    node = make_node(str(executable))
    node.write_mirrors("docker.io", "mirror.corp:5000/hub")
    node.write_kubeconfig(f"https://127.0.0.1:{listener.getsockname()[1]}", authority.certificate_pem)
    seen: list[list[bytes]] = []
    for _ in range(8):
        started = node.start("--deadline=2s")
        assert started.process.stdin
        started.process.stdin.write(request(token=alpha))
        started.process.stdin.close()
        started.process.stdin = None
        connection, _ = listener.accept()
        with connection:
            hello = connection.recv(4096)
        seen.append([hello[11:43], hello[44 : 44 + hello[43]], *key_shares(hello)])
        started.process.kill()
        started.process.communicate()
    assert len(seen[0]) >= 3 and all(len(part) == 32 or len(part) > 60 for part in seen[0])
    for parts in zip(*seen, strict=True):
        assert len({*parts}) == len(seen)


def key_shares(hello: bytes) -> list[bytes]:
    """The public keys in a ClientHello."""
    place = 44 + hello[43]
    place += 2 + int.from_bytes(hello[place : place + 2])  # cipher suites
    place += 1 + hello[place]  # compression
    place += 2
    while place < len(hello):
        kind, length = struct.unpack_from(">HH", hello, place)
        place += 4
        if kind == 51:
            shares, found = hello[place + 2 : place + length], []
            while shares:
                size = int.from_bytes(shares[2:4])
                found.append(shares[4 : 4 + size])
                shares = shares[4 + size :]
            return found
        place += length
    raise AssertionError("no key_share")


@pytest.fixture
def warm_node(make_node: NodeMaker, executable: Path, cluster: ApiServer, alpha: str) -> Node:
    return warm(make_node(str(executable)), cluster, alpha)


def opened(node: Node, message: bytes, trace: Path) -> list[str]:
    """Paths outside of the node that a pull's process named to the kernel, in order."""
    (strace,) = need("strace")
    plain, node.command = node.command, [strace, "-f", "-e", "trace=%file", "-o", str(trace), *node.command]
    run = node.run(message)
    node.command = plain
    assert (run.status, run.stderr) == (0, "")
    paths = re.findall(r'^\d+ +(?!execve)\w+\((?:AT_FDCWD, )?"([^"]+)"', trace.read_text(), re.MULTILINE)
    assert [path for path in paths if path.startswith(str(node.root))]
    return sorted({path for path in paths if not path.startswith(str(node.root))})


def test_a_pull_opens_its_own_inputs_alone(warm_node: Node, executable: Path, tmp_path: Path, alpha: str) -> None:
    """No configuration of OpenSSL or of the C library, no locale, nothing of the file that it runs from."""
    if is_foreign(str(executable)):
        pytest.skip("the emulator opens files of its own")
    # The C library's start asks for the first, for $ORIGIN of libraries that are not there; its gmtime() for the other.
    known = ["/etc/localtime", "/proc/self/exe"]
    assert set(opened(warm_node, request("quay.io/team/app", alpha), tmp_path / "trace")) <= {*known}
    assert set(opened(warm_node, request(token=alpha), tmp_path / "trace")) <= {*known}


def test_without_home_no_plugin_of_the_node_s_libc_is_loaded(
    warm_node: Node, executable: Path, tmp_path: Path, alpha: str
) -> None:
    """As systemd starts a kubelet: the user's home is then looked up, by /etc/passwd alone."""
    if is_foreign(str(executable)):
        pytest.skip("the emulator opens files of its own")
    del warm_node.environment["HOME"]
    paths = opened(warm_node, request(token=alpha), tmp_path / "trace")
    assert "/etc/passwd" in paths
    assert not [path for path in paths if ".so" in path or "nscd" in path]


def test_signals_are_those_of_the_process(make_node: NodeMaker, executable: Path) -> None:
    """Not those of the process in which the program was loaded: SIGTERM and SIGINT end a pull, SIGPIPE does not."""
    # A job in the background ignores SIGINT, and so would all that it starts.
    node = make_node("env", "--default-signal", str(executable))
    for number in ("TERM", "INT"):
        started = node.start()
        time.sleep(0.2)
        subprocess.run(["kill", f"-{number}", str(started.process.pid)], check=True)
        started.process.communicate(timeout=20)
        assert started.process.returncode < 0, number
    status = Path("/proc", str((started := node.start()).process.pid), "status")
    time.sleep(0.2)
    ignored = int(re.findall(r"^SigIgn:\s+(\w+)$", status.read_text(), re.MULTILINE)[0], 16)
    started.process.kill()
    started.process.communicate()
    assert ignored & 1 << 12  # SIGPIPE is the 13th


def test_memory_of_a_pull_does_not_grow_with_the_pulls_before(warm_node: Node, alpha: str) -> None:
    """Neither in a file nor in a cache is anything kept for the next one."""

    def peak() -> int:
        started = warm_node.start()
        assert started.process.stdin
        started.process.stdin.write(request("quay.io/team/app", alpha))
        started.process.stdin.close()
        _, status, usage = os.wait4(started.process.pid, 0)
        started.process.returncode = os.waitstatus_to_exitcode(status)
        assert started.process.returncode == 0
        return usage.ru_maxrss

    first = min(peak() for _ in range(3))
    assert min(peak() for _ in range(20)) <= first + 256
