"""One answer to one mistake: what every command does alike, as a process, in the form that ships."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from crio_credential_provider.__main__ import COMMANDS
from crio_credential_provider.settings import FLAGS

pytestmark = pytest.mark.process

NAME = "crio-credential-provider"
SECRETS = '{"kind": "Secret", "metadata": {"name": "s"}, "type": "kubernetes.io/dockerconfigjson", "data": {}}'
# Blocked, so that verify asks nobody.
CONF = '[[registry]]\nlocation = "docker.io"\nblocked = true\n'
PULL = ("nginx", "-n", "team-alpha", "--secrets", "secrets.json")

LINES: dict[str, tuple[int, tuple[str, ...]]] = {
    "completion": (0, ("completion", "bash")),
    "doctor": (3, ("doctor", "--root", "node")),
    "doctor json": (3, ("doctor", "--root", "node", "--output", "json")),
    "doctor story": (0, ("doctor", "--explain", "crio-too-old")),
    "explain": (3, ("explain", *PULL, "--root", "node")),
    "explain json": (3, ("explain", *PULL, "--root", "node", "--output", "json")),
    "gc": (0, ("gc", "--root", "node")),
    "gc json": (0, ("gc", "--root", "node", "--output", "json")),
    "manifests": (0, ("manifests", "rbac")),
    "manifests kinds": (0, ("manifests",)),
    "manifests json": (0, ("manifests", "rbac", "--output", "json")),
    "verify": (3, ("verify", *PULL, "--root", "node")),
    "verify json": (3, ("verify", *PULL, "--root", "node", "--output", "json")),
    **{f"{command} --help": (0, (command, "--help")) for command in COMMANDS},
    **{word: (0, (word,)) for word in ("--help", "--version", "--version-json", "--licenses", "help", "version")},
    "help explain": (0, ("help", "explain")),
}
"""Every way of writing to standard output: exit status on a good day, arguments."""

DEMO: dict[str, tuple[int, tuple[str, ...]]] = {"demo": (0, ("demo",)), "demo json": (0, ("demo", "--output", "json"))}
"""These take seconds where nothing stops them."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the files that LINES name."""
    (tmp_path / "secrets.json").write_text(SECRETS)
    (tmp_path / "node/etc/containers").mkdir(parents=True)
    (tmp_path / "node/etc/containers/registries.conf").write_text(CONF)
    return tmp_path


class Done:
    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.status = done.returncode
        self.out = done.stdout.decode() if done.stdout is not None else ""
        self.err = done.stderr.decode() if done.stderr is not None else ""
        assert "Traceback" not in self.out + self.err, self.err


def shell(plugin: Path, place: Path, line: str, *arguments: str | bytes, **variables: str) -> Done:
    """What a shell makes of a command line, in which "$@" is the program with its arguments."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/root", **variables}
    command = ["bash", "-c", line, "bash", plugin, *arguments]
    return Done(subprocess.run(command, cwd=place, env=environment, capture_output=True, check=False, timeout=60))


def run(plugin: Path, place: Path, *arguments: str | bytes, **variables: str) -> Done:
    return shell(plugin, place, 'exec "$@"', *arguments, **variables)


# -- standard streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", LINES)
def test_on_a_good_day_nothing_is_said_on_stderr(plugin: Path, place: Path, line: str) -> None:
    """Which the tests below lean on."""
    status, arguments = LINES[line]
    done = run(plugin, place, *arguments)
    assert (done.status, done.err) == (status, "") and done.out
    if "json" in line:
        json.loads(done.out)


@pytest.mark.parametrize("line", [*LINES, *DEMO])
@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")],
    ids=["closed", "disk-full"],
)
def test_an_output_that_takes_nothing_is_one_line(
    plugin: Path, place: Path, line: str, redirection: str, reason: str
) -> None:
    _, arguments = (LINES | DEMO)[line]
    done = shell(plugin, place, f'exec "$@" {redirection}', *arguments)
    command = f" {arguments[0]}" if arguments[0] in COMMANDS else " explain" if line == "help explain" else ""
    # A plugin of kubectl is called by kubectl's name.
    name = "kubectl mirror-credentials" if command == " kubectl" else f"{NAME}{command}"
    hint = "; only what was printed was removed" if line in ("gc", "gc json") else ""
    expected = f"{name}: cannot write to standard output: {reason}{hint}\n"
    assert (done.status, done.out, done.err) == (1, "", expected)


@pytest.mark.parametrize("line", [*LINES, *DEMO])
def test_a_reader_that_has_seen_enough_is_no_complaint(plugin: Path, place: Path, line: str) -> None:
    _, arguments = (LINES | DEMO)[line]
    # The process substitution is gone before the program starts.
    done = shell(plugin, place, 'exec 3> >(exec true); wait $!; exec "$@" >&3', *arguments)
    assert (done.status, done.out, done.err) == (1, "", "")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_other_streams_that_are_closed_change_nothing(plugin: Path, place: Path, line: str, redirection: str) -> None:
    status, arguments = LINES[line]
    done = shell(plugin, place, f'exec "$@" {redirection}', *arguments)
    assert (done.status, done.err) == (status, "") and done.out


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_complaint_that_nobody_can_hear_is_a_status(
    plugin: Path, place: Path, command: str, redirection: str
) -> None:
    done = shell(plugin, place, f'exec "$@" {redirection}', command, "--nonsense")
    assert (done.status, done.out, done.err) == (2, "", "")


def test_standard_input_that_is_closed_holds_no_secrets(plugin: Path, place: Path) -> None:
    for redirection, reason in (("<&-", "is closed"), ("0>x", "cannot read standard input: Bad file descriptor")):
        done = shell(plugin, place, f'exec "$@" {redirection}', "explain", "nginx", "-n", "a", "--secrets", "-")
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
        assert reason in done.err


# -- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["explain", "verify"])
def test_a_signal_ends_a_command_with_its_own_status(
    plugin: Path, place: Path, command: str, number: signal.Signals
) -> None:
    os.mkfifo(place / "fifo")
    arguments = [str(plugin), command, "nginx", "-n", "a", "--secrets", "fifo"]
    # The writer's end opens once the program reads; it then waits for more.
    pipe, reset = subprocess.PIPE, functools.partial(signal.signal, number, signal.SIG_DFL)  # as below nohup it is not
    with (
        subprocess.Popen(arguments, cwd=place, stdout=pipe, stderr=pipe, preexec_fn=reset) as process,
        open(place / "fifo", "wb"),
    ):
        time.sleep(0.1)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (128 + number, b"", b"")


def test_a_signal_that_was_ignored_from_the_start_stays_so(plugin: Path, place: Path) -> None:
    line = 'trap "" HUP; "$@" < <(sleep 0.5; echo "{}") & sleep 0.3; kill -HUP $!; wait $!'
    done = shell(plugin, place, line, "explain", "nginx", "-n", "a", "--secrets", "-", "--root", "node")
    assert done.status == 2 and "has no Secret" in done.err


# -- directories and files that are named -----------------------------------------------------------------------------

NAMED = {
    "--root": (("doctor",), ("explain", *PULL), ("verify", *PULL), ("gc",), ("manifests", "config")),
    "--config": (("doctor",), ("explain", *PULL), ("verify", *PULL)),
    "--registries-conf": (("doctor",), ("explain", *PULL), ("verify", *PULL), ("manifests", "config")),
    "--registries-conf-dir": (("explain", *PULL), ("verify", *PULL), ("manifests", "config")),
    "--secrets": (("explain", "nginx", "-n", "a"), ("verify", "nginx", "-n", "a")),
    "--request": (("explain",), ("verify",)),
    "--token-file": (("explain", "nginx"), ("verify", "nginx")),
    "--kubeconfig": (("explain", *PULL), ("verify", *PULL)),
    "--certificate-authority": (("explain", *PULL), ("verify", *PULL)),
    "--merge": (("manifests", "config"),),
    "--plugin": (("demo",),),
}
DIRECTORIES = ("--root", "--registries-conf-dir")
EITHER = ("--config", "--merge")


@pytest.mark.parametrize(
    ("flag", "arguments"), [(flag, arguments) for flag, users in NAMED.items() for arguments in users]
)
def test_a_path_that_leads_nowhere_is_named(plugin: Path, place: Path, flag: str, arguments: tuple[str, ...]) -> None:
    kind = "directory" if flag in DIRECTORIES else "file or directory" if flag in EITHER else "file"
    wrong = {"/nonexistent": f"no such {kind}", "nowhere/at/all": f"no such {kind}"}
    if flag in DIRECTORIES:
        wrong |= {"secrets.json": "not a directory"}
    elif flag not in EITHER:
        wrong |= {"node": "is a directory"}
    for path, words in wrong.items():
        for given in ((flag, path), (f"{flag}={path}",)):
            done = run(plugin, place, *arguments, *given)
            assert (done.status, done.out) == (2, "")
            assert done.err == f"{NAME} {arguments[0]}: {flag}: {path}: {words}\n"


@pytest.mark.parametrize(
    ("flag", "arguments"),
    [
        *((flag, arguments) for flag, users in NAMED.items() for arguments in users),
        *(("--auth-dir", (command, *given)) for command, *given in (("gc",), ("explain", *PULL))),
        *(("--kubernetes", (command,)) for command in ("doctor", "manifests")),
    ],
)
def test_a_shell_variable_that_is_not_set_is_no_other_machine(
    plugin: Path, place: Path, flag: str, arguments: tuple[str, ...]
) -> None:
    for given in ((flag, ""), (f"{flag}=",)):
        done = run(plugin, place, *arguments, *given)
        assert (done.status, done.out) == (2, "")
        assert done.err == f"{NAME} {arguments[0]}: {flag}: is empty\n"


def test_a_root_that_may_not_be_looked_into_is_named(plugin: Path, place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    for directory in (*list(place.parents)[:-2], place):
        directory.chmod(directory.stat().st_mode | 0o011)
    (place / "node").chmod(0)
    node = str(place / "node")
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/"}
    for arguments in NAMED["--root"]:
        command = [str(plugin), *(str(place / a) if a == "secrets.json" else a for a in arguments), "--root", node]
        try:
            done = Done(subprocess.run(command, env=environment, capture_output=True, user=65534, check=False))
        except PermissionError:
            pytest.skip("the program lies where only root may go")
        assert (done.status, done.out) == (2, "")
        assert done.err == f"{NAME} {arguments[0]}: --root: {node}: permission denied\n"


@pytest.mark.parametrize("arguments", [("gc",), ("explain", *PULL), ("verify", *PULL), ()], ids=" ".join)
def test_a_root_in_a_variable_or_for_the_plugin_is_no_other(
    plugin: Path, place: Path, arguments: tuple[str, ...]
) -> None:
    for path, words in (("/nonexistent", "no such directory"), (str(place / "secrets.json"), "not a directory")):
        done = shell(plugin, place, 'exec "$@" </dev/null', *arguments, CRIO_CREDENTIAL_PROVIDER_ROOT=path)
        assert (done.status, done.out) == (2, "")
        assert f": --root: {path}: {words}\n" in done.err


def test_a_process_substitution_is_a_file(plugin: Path, place: Path) -> None:
    line = 'exec "$@" --secrets <(cat secrets.json)'
    done = shell(plugin, place, line, "explain", "nginx", "-n", "a", "--root", "node")
    assert (done.status, done.err) == (3, "")


# -- a machine that is no node ----------------------------------------------------------------------------------------

KUBELET = ("etc/systemd/system/kubelet.service", "[Service]\nExecStart=/usr/bin/kubelet\n")
CRIO = ("etc/crio/crio.conf", "")


@pytest.mark.parametrize("command", ["explain", "verify"])
@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            (),
            "This does not look like a node: no kubelet and no CRI-O was found below {root}; used "
            "instead: {root}/etc/containers/registries.conf, and the flags given here and the plugin's defaults.",
        ),
        (
            (CRIO,),
            "No kubelet was found below {root}; used instead: the flags given here and the plugin's defaults.",
        ),
        ((KUBELET,), "No CRI-O was found below {root}; used instead: {root}/etc/containers/registries.conf."),
        ((KUBELET, CRIO), ""),
    ],
    ids=["neither", "no-kubelet", "no-CRI-O", "a-node"],
)
def test_what_stands_in_for_a_node_is_told_first(
    plugin: Path, place: Path, command: str, parts: tuple[tuple[str, str], ...], said: str
) -> None:
    for name, text in parts:
        (place / "node" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "node" / name).write_text(text)
    arguments = (command, *PULL, "--auth-dir", "/etc/crio/auth", "--root", "node")
    expected = said.format(root=place / "node")
    text = run(plugin, place, *arguments).out
    first = re.sub(r"\s+", "", text.partition("\n\n")[0]) if said else ""
    assert first == re.sub(r"\s+", "", expected)
    assert ("used instead" in " ".join(text.split())) == bool(said)
    report = json.loads(run(plugin, place, *arguments, "--output", "json").out)
    assert list(report)[:2] == ["schemaVersion", "assumed"]
    assert (report["assumed"] or "").lower().rstrip(".") == expected.lower().rstrip(".")


# -- mistyped ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("explian nginx", "unknown command 'explian'; did you mean 'explain'?"),
        ("Doctor", "unknown command 'Doctor'; did you mean 'doctor'?"),
        ("veryfy --help", "unknown command 'veryfy'; did you mean 'verify'?"),
        ("help docter", "unknown command 'docter'; did you mean 'doctor'?"),
        ("hlep", "unknown command 'hlep'; did you mean 'help'?"),
        ("xyzzy", "unknown command 'xyzzy'; --help lists the flags and commands"),
        ("--secrets-form pod", "unknown flag '--secrets-form'; did you mean '--secrets-from'?"),
        ("-secrets-from=pod", "unknown flag '-secrets-from'; did you mean '--secrets-from'?"),
        ("--deadlin=5s", "unknown flag '--deadlin'; did you mean '--deadline'?"),
        ("-v", "unknown flag '-v'; did you mean '--version'?"),
        (
            "explain help",
            "explain: -n NAMESPACE is missing: the pull secrets are those of the pod's namespace; --help has examples",
        ),
        (
            "explain https://docker.io/Nginx:V1 -n a",
            "explain: IMAGE: the repository in 'https://docker.io/Nginx:V1' must be lower case; "
            "the kubelet rejects it as InvalidImageName; did you mean 'docker.io/nginx:V1'?",
        ),
        ("--xyzzy", "unknown flag '--xyzzy'; --help lists the flags and commands"),
        ("--version=1", "--version takes no value"),
        ("--help=x", "--help takes no value"),
        ("-h=x", "-h takes no value"),
        ("--version-json=", "--version-json takes no value"),
        ("--licenses=1", "--licenses takes no value"),
        ("-version=1", "-version takes no value"),
        ("h", "unknown command 'h'; --help lists the flags and commands"),
        ("explain --help=x", "explain: -h/--help takes no value"),
        ("https://u:CANARY@h", "unknown command 'https://***@h'; --help lists the flags and commands"),
        ("--log-level debug explain", "unknown argument 'explain'; a command comes before all flags"),
        ("explain nginx --secrets-form pod", "explain: unknown flag '--secrets-form'; did you mean '--secrets-from'?"),
        ("explain nginx -ns team-alpha", "explain: unknown flag '-ns'; did you mean '-n'?"),
        ("explain -ns team-alpha nginx", "explain: unknown flag '-ns'; did you mean '-n'?"),
        ("verify nginx -namespace a", "verify: unknown flag '-namespace'; did you mean '--namespace'?"),
        ("verify -output json", "verify: unknown flag '-output'; did you mean '--output'?"),
        ("gc --dryrun", "gc: unknown flag '--dryrun'; did you mean '--dry-run'?"),
        ("doctor --rot x", "doctor: unknown flag '--rot'; did you mean '--root'?"),
        ("doctor here", "doctor: unknown argument 'here'; --help lists the arguments"),
        ("explain nginx web -n a", "explain: unknown argument 'web'; --help lists the arguments"),
        ("explain nginx -n", "explain: -n/--namespace needs a value, NAMESPACE"),
        ("explain nginx -n a --output xml", "explain: -o/--output: 'xml' is not one of text, json"),
        ("gc --dry-run=yes", "gc: --dry-run takes no value"),
        ("manifests confg", "manifests: KIND: 'confg' is not one of {kinds}; did you mean 'config'?"),
        ("manifests --mrge x config", "manifests: unknown flag '--mrge'; did you mean '--merge'?"),
        ("completion", "completion: SHELL is missing; --help has examples"),
        ("completion zhs", "completion: SHELL: 'zhs' is not one of bash, zsh; did you mean 'zsh'?"),
        ("demo --kep", "demo: unknown flag '--kep'; did you mean '--keep'?"),
        ("demo --plugin secrets.json", "demo: --plugin: secrets.json: not an executable file"),
        ("doctor --root node --config node", "doctor: --config: not allowed with argument --root"),
    ],
)
def test_what_is_mistyped_is_one_line(plugin: Path, place: Path, line: str, said: str) -> None:
    from crio_credential_provider.manifests.kinds import KINDS

    done = shell(plugin, place, 'exec "$@" </dev/null', *line.split())
    separator = " " if said.partition(":")[0] in COMMANDS else ": "
    assert (done.status, done.out) == (2, "")
    assert done.err == f"{NAME}{separator}{said.format(kinds=', '.join(KINDS))}\n"


@pytest.mark.parametrize("words", [("",), ("help", ""), ("", "--root")])
def test_an_empty_command_is_told_what_there_is(plugin: Path, place: Path, words: tuple[str, ...]) -> None:
    done = shell(plugin, place, 'exec "$@" </dev/null', *words)
    assert done.err == f"{NAME}: unknown command ''; --help lists the flags and commands\n"


@pytest.mark.parametrize("command", ["explain", "verify", "doctor", "gc", "manifests"])
def test_a_line_break_writes_no_line_of_its_own(plugin: Path, place: Path, command: str) -> None:
    for arguments in (["--root=/nowhere\nowned"], ["--x\nowned"], ["x\nowned", "y\nowned", "z"]):
        done = run(plugin, place, command, *arguments)
        assert "owned" in done.err + done.out
        assert not any(line.startswith("owned") for line in (done.err + done.out).splitlines()), done.err + done.out


def test_a_namespace_may_stand_right_behind_its_flag(plugin: Path, place: Path) -> None:
    arguments = ("explain", "nginx", "--secrets", "secrets.json", "--root", "node", "--output", "json")
    for given in (("-nteam-alpha",), ("-n=team-alpha",), ("-n", "team-alpha"), ("--namespace=team-alpha",)):
        done = run(plugin, place, *arguments, *given)
        assert json.loads(done.out)["account"]["namespace"] == "team-alpha"


@pytest.mark.parametrize("flag", [flag.name for flag in FLAGS])
def test_each_flag_of_the_plugin_is_found_again_without_a_letter(plugin: Path, place: Path, flag: str) -> None:
    mistyped = flag[:-2] + flag[-1]
    done = shell(plugin, place, 'exec "$@" </dev/null', f"--{mistyped}=x")
    assert done.err == f"{NAME}: unknown flag '--{mistyped}'; did you mean '--{flag}'?\n"


@pytest.mark.parametrize(
    "words", [("help",), ("help", "help"), ("help", "version"), ("help", "--help"), ("help", "--root")], ids=" ".join
)
def test_help_is_a_word(plugin: Path, place: Path, words: tuple[str, ...]) -> None:
    assert run(plugin, place, *words).out == run(plugin, place, "--help").out


def test_help_of_a_command_and_version_are_words(plugin: Path, place: Path) -> None:
    for command in COMMANDS:
        assert run(plugin, place, "help", command).out == run(plugin, place, command, "--help").out
    assert run(plugin, place, "version").out == run(plugin, place, "--version").out


# -- bytes that are no text -------------------------------------------------------------------------------------------

UNDECODABLE: list[tuple[bytes, ...]] = [
    (b"\xff",),
    (b"--\xff",),
    (b"--auth-dir", b"\xff"),
    (b"--root", b"/\xff"),
    (b"explain", b"\xff", b"-n", b"a"),
    (b"explain", b"nginx", b"-n", b"\xff"),
    (b"explain", b"nginx", b"-n", b"a", b"--pod", b"\xff"),
    (b"explain", b"nginx", b"-n", b"a", b"--secrets", b"\xff"),
    (b"explain", b"nginx", b"-n", b"a", b"--\xff"),
    (b"explain", b"nginx", b"-n", b"a", b"--output", b"\xff"),
    (b"explain", b"nginx", b"-n", b"a", b"\xff"),
    (b"verify", b"nginx", b"-n", b"a", b"--config", b"\xff"),
    (b"doctor", b"--root", b"\xff"),
    (b"doctor", b"--kubernetes", b"\xff"),
    (b"doctor", b"--explain", b"\xff"),
    (b"doctor", b"--registries-conf", b"\xff"),
    (b"gc", b"--root", b"\xff"),
    (b"gc", b"--auth-dir", b"\xff"),
    (b"gc", b"--in-use", b"--in-use-after", b"\xff"),
    (b"manifests", b"\xff"),
    (b"manifests", b"config", b"--match-image", b"\xff"),
    (b"manifests", b"config", b"--merge", b"\xff"),
    (b"manifests", b"rbac", b"--role", b"\xff"),
    (b"manifests", b"config", b"--plugin-arg", b"\xff"),
    (b"completion", b"\xff"),
    (b"demo", b"--plugin", b"\xff"),
    (b"help", b"\xff"),
]


@pytest.mark.parametrize("arguments", UNDECODABLE, ids=repr)
def test_bytes_that_are_no_text_are_shown_as_a_shell_shows_them(
    plugin: Path, place: Path, arguments: tuple[bytes, ...]
) -> None:
    done = shell(plugin, place, 'exec "$@" </dev/null', *arguments)
    assert (done.status, done.out) == (2, "")
    assert r"\xff" in done.err and "udc" not in done.err and done.err.count("\n") == 1


def test_a_variable_whose_bytes_are_no_text(plugin: Path, place: Path) -> None:
    line = "CRIO_CREDENTIAL_PROVIDER_DEADLINE=$'\\xff' exec \"$@\" </dev/null"
    for command in ((), ("explain", *PULL)):
        done = shell(plugin, place, line, *command)
        assert done.status == 2 and r"'\xff' is not a duration" in done.err


@pytest.mark.parametrize("output", ["text", "json"])
def test_names_of_files_whose_bytes_are_no_text(plugin: Path, place: Path, output: str) -> None:
    """In the paths of a node: drop-ins, directories, the root itself."""
    root = place / os.fsdecode(b"n\xffde")
    shutil.copytree(place / "node", root)
    directory = root / "etc/containers/registries.conf.d"
    directory.mkdir()
    (directory / os.fsdecode(b"\xff.conf")).write_text(
        '[[registry]]\nlocation = "quay.io"\n[[registry.mirror]]\nlocation = "m.corp"'
    )
    for line in (("doctor",), ("explain", *PULL), ("verify", *PULL), ("gc",), ("manifests", "config")):
        given = ("--output", output, "--root", os.fsencode(root))
        done = run(plugin, place, *line, *given)
        assert done.status in (0, 3) and "udc" not in done.out + done.err, line
        if line[0] in ("doctor", "explain", "gc"):
            assert r"\xff" in done.out
    directory = place / "node/etc/containers/registries.conf.d"
    directory.mkdir()
    (directory / os.fsdecode(b"\xff.conf")).write_text("[[")
    for line in (("doctor",), ("explain", *PULL), ("verify", *PULL), ("manifests", "config")):
        done = run(plugin, place, *line, "--output", output, "--root", "node")
        assert r"\xff.conf" in done.out + done.err and "udc" not in done.out + done.err, line


# -- an installation that is not whole --------------------------------------------------------------------------------


def test_a_program_without_its_library_says_where_it_must_lie(plugin: Path, place: Path) -> None:
    if not (plugin.resolve().parent.parent / "lib" / NAME).exists():
        pytest.skip("a wheel's script has no library beside it")
    (place / "else/bin").mkdir(parents=True)
    alone = Path(shutil.copy(plugin, place / "else/bin"))
    for arguments in ((), ("--version",), ("explain", "nginx")):
        done = shell(alone, place, 'exec "$@" </dev/null', *arguments)
        assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
        assert str(place / f"else/lib/{NAME}") in done.err and "symlink" in done.err
