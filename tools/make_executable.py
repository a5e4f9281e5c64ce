"""Makes the program as one static executable for each architecture.

    dist/crio-credential-provider-linux-amd64
    dist/crio-credential-provider-linux-arm64

Interpreter, C modules, OpenSSL, zlib and libc are linked into one file, in which the program lies already loaded: the
interpreter is started once, here, and the memory that it has then becomes part of the file (packaging/executable). At
its end is an archive with the modules that a pull does not need. docs/decisions/0011-executable.md says why.

Runs on Debian 12, takes the sources of CPython, OpenSSL and zlib from Debian (`SOURCES`), and builds for the other
architecture with Debian's cross compiler; qemu-user then runs what was built for it. What takes minutes stays in
build/executable for the next time. The same files and commit make the same bytes where the watched pulls touch the same
parts (tools/touched.py), which now and then is a function more or less.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import inspect
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bill_of_materials import add_licenses, parts_of
from make_build import DIST, NAME, build_wheel, made_from
from make_venv import ROOT, WHEELS
from touched import Touched, WatchError, watch

PARTS = ROOT / "packaging/executable"
WORK = ROOT / "build/executable"
MAX_SIZE = 16_000_000
"""Bytes of an executable."""


class Source(NamedTuple):
    """A source package of a release of Debian, and the sha256 of its .dsc, which has those of all its files."""

    package: str
    suite: str
    version: str
    sha256: str


# Of Debian 13, whose OpenSSL is supported until 2030; that of Debian 12 ended in 2026.
SOURCES = (
    Source(
        "python3.13", "trixie", "3.13.5-2+deb13u5", "4be84e20fb902354fa86955e2fbea6e8bdbd158f54833423488308a9b3532662"
    ),
    Source("openssl", "trixie", "3.5.7-1~deb13u2", "25904642004d30c5c3da4642a72a7d09f8d9eb6e5ce62dab53c0371114faf8f2"),
    Source("zlib", "bookworm", "1:1.2.13.dfsg-1", "3fa1e6b2fc525062aa88207dda52fed8e045373c809d362fe8a2bfbf7cf515a8"),
)
PYTHON, OPENSSL, ZLIB = (WORK / "sources" / source.package for source in SOURCES)


class Target(NamedTuple):
    """An architecture: its name in files' names, to the kernel and compiler, to OpenSSL."""

    name: str
    machine: str
    openssl: str

    @property
    def host(self) -> str:
        return f"{self.machine}-linux-gnu"

    @property
    def directory(self) -> Path:
        return WORK / self.name

    @property
    def is_native(self) -> bool:
        return self.machine == platform.machine()


TARGETS = (Target("amd64", "x86_64", "linux-x86_64"), Target("arm64", "aarch64", "linux-aarch64"))

# For TLS 1.2 and 1.3 as a client of Go's servers: every algorithm more is one more that OpenSSL looks through. DH stays
# only because Python's module names it.
WITHOUT = (
    *("shared", "pic", "tests", "dso", "engine", "module", "legacy", "autoload-config", "ui-console", "filenames"),
    *("aria", "camellia", "idea", "seed", "sm2", "sm3", "sm4", "bf", "cast", "rc2", "rc4", "des", "siv", "ocb"),
    *("md4", "mdc2", "rmd160", "whirlpool", "blake2", "scrypt", "cmac", "dsa", "ec2m", "gost", "srp", "psk", "srtp"),
    *("dtls", "sctp", "ssl3", "tls1", "tls1_1", "nextprotoneg", "weak-ssl-ciphers", "comp", "ct", "cms", "ts", "ocsp"),
    *("cmp", "rfc3779", "ssl-trace", "err", "afalgeng", "ml-dsa", "slh-dsa", "quic", "tls-deprecated-ec", "argon2"),
    *("thread-pool", "default-thread-pool", "jitter", "http"),
)
# Functions of libc and OpenSSL that program.c has others for.
WRAPPED = (
    *("malloc", "calloc", "realloc", "free", "posix_memalign", "getaddrinfo", "getpwuid_r"),
    *("X509_get_default_cert_file", "X509_get_default_cert_file_env", "X509_get_default_cert_dir_env"),
)
COMPILE = ("-O2", "-fno-pie", "-fno-asynchronous-unwind-tables", "-ffunction-sections", "-fdata-sections")
_HINT = (
    "hint: Debian 12: apt-get install dpkg-dev gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross make perl "
    "qemu-user-static valgrind"
)


class BuildError(Exception):
    """The machine lacks something; the message says what, and how to get it."""


def say(text: str) -> None:
    print(f"make_executable: {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, cwd: Path = WORK, **variables: str) -> str:
    """What a command prints, which is shown where it fails.

    Sources are named relative to `cwd`, so that no directory of the build gets into what is built.
    """
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "0", **variables}
    # Pipes as standard streams.
    done = subprocess.run(command, cwd=cwd, env=environment, check=False, input=b"", capture_output=True)
    output = done.stdout + done.stderr
    if done.returncode != 0:
        told = output.decode(errors="replace").splitlines()[-30:]
        raise BuildError("\n".join([*told, f"exit status {done.returncode} from: {' '.join(map(str, command))}"]))
    return done.stdout.decode()


def need(*programs: str) -> None:
    if missing := [program for program in programs if shutil.which(program) is None]:
        raise BuildError(f"not installed here: {', '.join(missing)}\n{_HINT}")


# -- sources ----------------------------------------------------------------------------------------------------------


def fetch_sources() -> None:
    """Debian's source packages, unpacked and patched below build/executable/sources."""
    made = WORK / "sources/made"
    if made.exists() and made.read_text() == repr(SOURCES):
        return
    need("apt-get", "dpkg-source")
    say("fetching the sources")
    packed = WORK / "packed"
    for directory in ("lists/partial", "cache/archives/partial", "packed"):
        (WORK / directory).mkdir(parents=True, exist_ok=True)
    (WORK / "sources.list").write_text("".join(f"{line}\n" for line in source_lists()))
    settings = {
        "Dir::Etc::sourcelist": WORK / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": WORK / "lists",
        "Dir::Cache": WORK / "cache",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]
    run(*apt, "update")
    for source, place in zip(SOURCES, (PYTHON, OPENSSL, ZLIB), strict=True):
        wanted = f"{source.package}={source.version}"
        try:
            run(*apt, "source", "--download-only", "--only-source", wanted, cwd=packed)
        except BuildError as error:
            hint = "where Debian has a newer one, review that, and name it and the digest of its .dsc in SOURCES"
            raise BuildError(f"{error}\nhint: {hint}") from None
        _, _, bare_version = source.version.rpartition(":")
        description = packed / f"{source.package}_{bare_version}.dsc"
        if hashlib.sha256(description.read_bytes()).hexdigest() != source.sha256:
            raise BuildError(f"{description} is not the one that SOURCES in {__file__} names")
        place.parent.mkdir(exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        run("dpkg-source", "--no-copy", "-x", description, place)
    made.write_text(repr(SOURCES))


def source_lists() -> list[str]:
    """Where this machine has its packages of Debian from, as lists of sources of all releases that are needed."""
    pattern = "$(SITE) $(RELEASE) $(COMPONENT) $(CODENAME)"
    command = ["apt-get", "indextargets", "--format", pattern, "Created-By: Packages", "Origin: Debian"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if not told:
        raise BuildError("apt knows no packages of Debian here: apt-get update, or build in a container of Debian 12")
    found = set()
    for site, release, component, codename in map(str.split, told.splitlines()):
        if component == "main":
            code = codename.partition("-")[0]
            found |= {f"deb-src {site} {release.replace(code, source.suite)} main" for source in SOURCES}
    return sorted(found)


# -- libraries --------------------------------------------------------------------------------------------------------


def build_libraries(target: Target) -> None:
    """zlib, OpenSSL and Python's static library for an architecture; once for the same sources and switches."""
    need("make", "perl", f"{target.host}-gcc", f"{target.host}-objcopy")
    made = target.directory / "made"
    how = [inspect.getsource(build) for build in (build_zlib, build_openssl, build_python)]
    key = repr((SOURCES, WITHOUT, COMPILE, how, (PARTS / "modules").read_text(), compiler_version(target)))
    if made.exists() and made.read_text() == key:
        return
    shutil.rmtree(target.directory, ignore_errors=True)
    target.directory.mkdir(parents=True)
    build_zlib(target)
    build_openssl(target)
    build_python(target)
    made.write_text(key)


def compiler_version(target: Target) -> str:
    return subprocess.run([f"{target.host}-gcc", "-v"], check=True, capture_output=True, text=True).stderr


def parallel() -> str:
    return f"-j{len(os.sched_getaffinity(0))}"


def build_zlib(target: Target) -> None:
    say(f"{target.name}: zlib")
    place = target.directory / "zlib"
    shutil.copytree(ZLIB, place)
    tools = {name: f"{target.host}-{name.lower()}" for name in ("AR", "RANLIB")}
    run("./configure", "--static", cwd=place, CC=f"{target.host}-gcc", CFLAGS=" ".join(COMPILE), **tools)
    run("make", parallel(), "libz.a", cwd=place)


def build_openssl(target: Target) -> None:
    say(f"{target.name}: OpenSSL")
    place = target.directory / "openssl"
    place.mkdir()
    switches = [f"no-{name}" for name in WITHOUT]
    configure = ("perl", "../../sources/openssl/Configure", target.openssl, f"--cross-compile-prefix={target.host}-")
    run(*configure, *switches, "--openssldir=/etc/ssl", "--prefix=/usr", *COMPILE, "-Os", cwd=place)
    run("make", parallel(), "build_libs", cwd=place)
    # As an installed one, which is what Python's configure looks for.
    shutil.copytree(OPENSSL / "include/openssl", place / "installed/include/openssl")
    shutil.copytree(place / "include/openssl", place / "installed/include/openssl", dirs_exist_ok=True)
    (place / "installed/lib").mkdir()
    for name in ("libssl.a", "libcrypto.a"):
        (place / "installed/lib" / name).symlink_to(place / name)


def build_python(target: Target) -> None:
    say(f"{target.name}: Python")
    place = target.directory / "python"
    place.mkdir()
    arguments = [
        "--disable-shared",
        "--disable-test-modules",
        "--without-ensurepip",
        "--without-doc-strings",
        "--without-mimalloc",
    ]
    # As Debian's own, which leaves the choice of suites to OpenSSL.
    arguments += ["--with-ssl-default-suites=openssl"]
    arguments += [f"--with-openssl={target.directory}/openssl/installed"]
    if not target.is_native:
        arguments += [f"--build={native().host}", f"--host={target.host}"]
        arguments += [f"--with-build-python={native().directory}/python/python"]
        # Of what it would find out by running a program.
        arguments += ["ac_cv_file__dev_ptmx=yes", "ac_cv_file__dev_ptc=no", "ac_cv_buggy_getaddrinfo=no"]
    variables = {
        "CC": f"{target.host}-gcc",
        "CFLAGS": " ".join(COMPILE),
        # Its radix tree is 0.6 MB, for heaps that are larger than ours.
        "CPPFLAGS": f"-I{target.directory}/zlib -DWITH_PYMALLOC_RADIX_TREE=0",
        "LDFLAGS": f"-static -no-pie -L{target.directory}/zlib",
        "LINKFORSHARED": " ",
    }
    run("../../sources/python3.13/configure", *arguments, cwd=place, **variables)
    (place / "Modules/Setup.local").write_text(f"*static*\n{(PARTS / 'modules').read_text()}")
    run("make", parallel(), f"LDFLAGS={variables['LDFLAGS']}", "python", cwd=place)


def runner(target: Target) -> list[str]:
    """What runs a program of this architecture here, with addresses that are the same each time."""
    runner = ["setarch", "-R"] if target.is_native else [f"qemu-{target.machine}-static"]
    need(runner[0])
    return runner


def native() -> Target:
    for target in TARGETS:
        if target.is_native:
            return target
    raise BuildError(f"cannot build on {platform.machine()}, only on {' or '.join(each.machine for each in TARGETS)}")


# -- the executable ---------------------------------------------------------------------------------------------------


def make_archive(wheel: Path) -> Path:
    """Byte code of all modules, made by the interpreter that will run it."""
    libraries, archive = WORK / "libraries", WORK / "modules.zip"
    shutil.rmtree(libraries, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    wheels = [wheel, *sorted(WHEELS.glob("*.whl"))]
    run(*pip, "--no-index", "--no-deps", "--no-compile", "--target", libraries, *wheels)
    python = (native().directory / "python/python", "-I", "-S", "-X", "no_debug_ranges")
    run(*python, ROOT / "tools/needed_modules.py", libraries, PYTHON / "Lib", archive)
    add_licenses(archive, parts_of((PYTHON, OPENSSL, ZLIB), f"{native().host}-gcc", libraries, archive))
    return archive


def link(target: Target, touched: dict[str, str]) -> Path:
    """The interpreter, of which nothing is loaded yet, with the parts first that a pull touches."""
    place, compiler = target.directory, f"{target.host}-gcc"
    for kind in ("text", "rodata", "data"):
        (place / f"{kind}.touched").write_text(touched.get(kind, ""))
    headers = (
        place / "python",
        place / "python/Python",
        PYTHON / "Include",
        PYTHON / "Include/internal",
        place / "openssl/installed/include",
    )
    include = [f"-I{directory}" for directory in headers]
    warnings = ("-Wall", "-Werror", "-Wno-deprecated-declarations")
    run(
        compiler,
        "-c",
        "-fwrapv",
        "-DNDEBUG",
        *warnings,
        *COMPILE,
        *include,
        PARTS / "program.c",
        "-o",
        place / "program.o",
    )
    linker = ["--gc-sections", "--build-id=none", "-z,noexecstack", f"-L{place}", f"-T,{PARTS / 'snapshot.ld'}"]
    linker += [f"-Map={place / 'linked.map'}"]
    linker += [f"--wrap={name}" for name in WRAPPED]
    # Not at a multiple of 2 MiB, where kernels with huge pages in the page cache map as much at once: 2 MB of memory.
    linker += ["-Ttext-segment=0x410000"]
    libraries = [f"python/{name}" for name in ("libpython3.13.a", "Modules/_hacl/libHacl_Hash_SHA2.a")]
    libraries += ["openssl/libssl.a", "openssl/libcrypto.a", "zlib/libz.a"]
    options = ["-static", "-no-pie", "-s", *(f"-Wl,{option}" for option in linker)]
    run(compiler, *options, place / "program.o", *(place / name for name in libraries), "-lm", "-o", place / "linked")
    return place / "linked"


def load(target: Target, linked: Path, archive: Path, touched: Touched | None = None) -> Path:
    """The interpreter with the program loaded, and the archive behind it."""
    place = target.directory
    loader, snapshot, events, plan = (place / name for name in ("loader", "snapshot", "events", "plan"))
    append(linked, archive, loader)
    # What this processor can do must not become part of it.
    capabilities = {"OPENSSL_ia32cap": "~0x200000200000000", "OPENSSL_armcap": "0"}
    variables = [f"{name}={value}" for name, value in capabilities.items()]
    command: list[str | Path] = ["env", "-i", *variables, *runner(target), loader, "load.py", snapshot, events]
    loaded = run(*command, cwd=PARTS).split()
    if touched:
        plan.write_bytes(touched.plan(events.read_bytes()))
        run(*command, plan, cwd=PARTS)
    program = place / "program"
    run(f"{target.host}-objcopy", "--update-section", f".snapshot={snapshot}", linked, program)
    append(program, without_modules(archive, loaded), program)
    return program


def watch_pulls(archive: Path) -> Touched:
    """What pulls touch of the native executable, which is made without knowing it."""
    say("watching what a pull touches")
    need("valgrind")
    place = native().directory
    program = load(native(), link(native(), {}), archive)
    return watch(program, (place / "linked.map").read_text(), (place / "events").read_bytes())


def without_modules(archive: Path, names: Sequence[str]) -> Path:
    """A copy of an archive without these modules."""
    smaller = archive.with_name("rest.zip")
    loaded = {f"{name.replace('.', '/')}{end}" for name in names for end in (".pyc", "/__init__.pyc")}
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(smaller, "w", compresslevel=9) as rest:
        for entry in whole.infolist():
            if entry.filename not in loaded:
                rest.writestr(entry, whole.read(entry))
    return smaller


def append(program: Path, archive: Path, target: Path) -> None:
    content = program.read_bytes() + archive.read_bytes()
    target.write_bytes(content)
    target.chmod(0o755)


def check(target: Target, program: Path) -> None:
    """Raises BuildError where the file cannot be what it should."""
    if program.stat().st_size > MAX_SIZE:
        raise BuildError(f"{program} has {program.stat().st_size:,} bytes, {MAX_SIZE:,} are the limit")
    done = subprocess.run(
        [*runner(target), program, "--version-json"], capture_output=True, text=True, check=False, env={}, cwd="/"
    )
    if f'"platform": "linux/{target.machine}"' not in done.stdout or done.returncode != 0:
        raise BuildError(f"exit status {done.returncode} from {program} --version-json\n{done.stdout}{done.stderr}")


def make(targets: Sequence[Target], output: Path) -> list[Path]:
    WORK.mkdir(parents=True, exist_ok=True)
    fetch_sources()
    wheel = build_wheel(made_from())
    for target in dict.fromkeys([native(), *targets]):
        build_libraries(target)
    archive = make_archive(wheel)
    touched = watch_pulls(archive)
    made = []
    output.mkdir(parents=True, exist_ok=True)
    for target in targets:
        program = load(target, link(target, touched.sections), archive, touched)
        check(target, program)
        place = output / f"{NAME}-linux-{target.name}"
        program.replace(place)
        say(f"{place} ({place.stat().st_size:,} bytes)")
        made.append(place)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the program as one static executable for each architecture.")
    parser.add_argument("--output", type=Path, default=DIST, help="directory for the files (default dist)")
    parser.add_argument("targets", nargs="*", metavar="ARCHITECTURE", help="amd64 or arm64 (default: both)")
    given = parser.parse_args()
    targets = [target for target in TARGETS if target.name in given.targets or not given.targets]
    with (ROOT / "pyproject.toml").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes in one checkout take turns
        make(targets, given.output)


if __name__ == "__main__":
    try:
        main()
    except (BuildError, WatchError) as error:
        sys.exit(f"make_executable: {error}")
