"""Completion as a person has it: the script of ``completion``, in a real bash, and read by a real zsh."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from commandline import typed
from crio_credential_provider.__main__ import COMMANDS
from crio_credential_provider.commands import SUMMARIES, completion, module
from crio_credential_provider.settings import FLAGS, SECRETS_FROM
from real_programs import need

pytestmark = pytest.mark.process

NAME = "crio-credential-provider"

# Asks bash what it would offer for the last of the words.
ASK = """\
source "$SCRIPT"
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
function=$(complete -p crio-credential-provider | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" "$1" "${@: -1}" "${@: -2:1}" 2>/dev/null
(( ${#COMPREPLY[@]} )) && printf '%s\\n' "${COMPREPLY[@]}"
true
"""


def script(shell: str) -> str:
    done = typed("completion", shell)
    assert (done.status, done.err) == (0, "")
    return done.out


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "script.bash"
    path.write_text(script("bash"))
    return path


@pytest.fixture
def offered(bash_script: Path, tmp_path: Path) -> Offered:
    return Offered(bash_script, tmp_path)


class Offered:
    """What bash offers for a command line in a directory with files."""

    def __init__(self, script: Path, directory: Path) -> None:
        (self._bash,) = need("bash")
        self._script = script
        self._directory = directory
        (directory / "secrets.yaml").touch()
        (directory / "secretary").mkdir()

    def __call__(self, *words: str) -> list[str]:
        done = subprocess.run(
            [self._bash, "--norc", "--noprofile", "-c", ASK, "bash", NAME, *words],
            env={"SCRIPT": str(self._script), "PATH": "/usr/bin:/bin"},
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return done.stdout.split()


def test_every_command_is_there(offered: Offered) -> None:
    assert set(COMMANDS) <= set(offered(""))
    assert offered("ex") == ["explain"]
    assert set(SUMMARIES) == set(COMMANDS)


def test_the_flags_of_the_plugin(offered: Offered) -> None:
    bare = {"--help", "--version", "--version-json", "--licenses"}
    assert {f"--{flag.name}" for flag in FLAGS} | bare <= set(offered("--"))
    assert offered("--secrets-from", "") == list(SECRETS_FROM)
    assert offered("--log-level", "w") == ["warning"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_flags_of_every_command(offered: Offered, command: str) -> None:
    parser = module(command).parser()
    flags = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    assert "--help" in flags
    assert {word for word in offered(command, "--") if word.startswith("--")} == flags


@pytest.mark.parametrize("command", ["explain", "verify", "gc", "doctor", "manifests"])
def test_choices(offered: Offered, command: str) -> None:
    assert offered(command, "--output", "") == ["text", "json"]


def test_choices_that_are_written_with_bars(offered: Offered) -> None:
    for command in ("explain", "verify", "manifests"):
        assert offered(command, "--secrets-from", "") == list(SECRETS_FROM)


def test_kinds_codes_and_shells(offered: Offered) -> None:
    assert {"config", "rbac", "kustomize"} <= set(offered("manifests", ""))
    assert offered("manifests", "config", "rb") == ["rbac"]
    assert len(offered("doctor", "--explain", "")) > 10
    assert offered("completion", "") == list(completion.SHELLS)


def test_files_and_directories(offered: Offered) -> None:
    assert sorted(offered("verify", "nginx", "--secrets", "secr")) == ["secretary", "secrets.yaml"]
    assert offered("gc", "--auth-dir", "secr") == ["secretary"]
    assert offered("install-on-node", "secr") == ["secretary"]
    assert sorted(offered("--kubeconfig", "secr")) == ["secretary", "secrets.yaml"]
    assert sorted(offered("demo", "--plugin", "secr")) == ["secretary", "secrets.yaml"]


def test_after_a_value_flags_go_on(offered: Offered) -> None:
    assert offered("verify", "nginx:1.27", "-n", "team-alpha", "--po") == ["--pod"]
    assert offered("verify", "nginx:1.27", "--output", "json", "--outp") == ["--output"]


def test_names_are_left_to_the_person(offered: Offered) -> None:
    """No file name is offered where a namespace is wanted."""
    assert offered("verify", "nginx", "-n", "") == []


def test_zsh_reads_it(tmp_path: Path) -> None:
    (zsh,) = need("zsh")
    (tmp_path / f"_{NAME}").write_text(script("zsh"))
    checked = subprocess.run([zsh, "-f", "-n", str(tmp_path / f"_{NAME}")], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    code = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -d {tmp_path}/dump; print $_comps[{NAME}]"
    done = subprocess.run(
        [zsh, "-f", "-c", code], capture_output=True, text=True, check=False, env={"HOME": str(tmp_path)}, timeout=60
    )
    assert done.stdout == f"_{NAME}\n", done.stderr


@pytest.mark.parametrize("arguments", [[], ["fish"], ["bash", "zsh"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert completion.run(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
