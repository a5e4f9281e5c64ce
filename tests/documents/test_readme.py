"""What the documents say is so: flags, commands, messages, YAML and links, held against the program and the files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from crio_credential_provider import errors
from crio_credential_provider.__main__ import COMMANDS
from crio_credential_provider.platform import journal
from crio_credential_provider.settings import FLAGS, FLAGS_BY_NAME, loads
from node import TESTS

ROOT = TESTS.parent
README = (ROOT / "README.md").read_text()
MANIFESTS = sorted((ROOT / "docs/manifests").glob("*.yaml"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
MAN_PAGE = (ROOT / "docs/man/crio-credential-provider.8").read_text()

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_PROVIDER_COMMAND = re.compile(r"(?:\S*/)?crio-credential-provider (.*)")


def blocks(language: str) -> list[str]:
    return [text for _, tag, text in _BLOCK.findall(README) if tag == language]


def commands() -> Iterator[str]:
    """The README's command lines, continued ones joined."""
    for block in blocks("sh"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            yield line.strip()


def documents(text: str) -> list[Any]:
    return list(yaml.safe_load_all(text))


def source_text() -> str:
    """The sources with string literals that stand one after another joined, as the compiler joins them."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "src/crio_credential_provider").rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", text).replace("\\'", "'")


# -- flags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "docs/man/crio-credential-provider.8"])
def test_the_flags_are_those_that_the_tool_writes(tmp_path: Path, name: str) -> None:
    copy = tmp_path / Path(name).name
    copy.write_text((ROOT / name).read_text())
    subprocess.run([sys.executable, ROOT / "tools/flags_table.py", copy], check=True, cwd="/")
    assert (ROOT / name).read_text() == copy.read_text(), f"run: python3 tools/flags_table.py {name}"


def test_the_table_of_flags_is_what_the_help_says(plugin: Path) -> None:
    rows = re.findall(r"^\| `--([\w-]+)(?: ([^`]*))?` \| `(\w+)` \| (?:`([^`]*)`)? \| (.*) \|$", README, re.MULTILINE)
    table = {
        name: (metavar.replace("\\|", "|"), variable, default, text) for name, metavar, variable, default, text in rows
    }
    shown = subprocess.run([plugin, "--help"], capture_output=True, text=True, check=True).stdout
    words = re.sub(r"\s+", " ", shown.partition("as an environment variable:")[2])
    flags = re.findall(r" --([\w-]+)((?: [A-Z|\[\]:/a-z-]+)?) .*? (CRIO_CREDENTIAL_PROVIDER_\w+)", words)
    assert {name for name, _, _ in flags} == set(table) == set(FLAGS_BY_NAME)
    for name, (metavar, variable, default, text) in table.items():
        ending = f" (default {default})" if default not in ("", "false") else ""
        sentence = text.partition("; repeatable, in the variable")[0]
        expected = f"--{name}{metavar}{sentence}{ending}{variable}"
        # The help is wrapped, at hyphens too.
        assert re.sub(r"\s", "", expected) in re.sub(r"\s", "", words)


@pytest.mark.parametrize("document", [README, MAN_PAGE], ids=["README", "man page"])
def test_every_variable_that_is_named_exists(document: str) -> None:
    named = set(re.findall(r"CRIO_CREDENTIAL_PROVIDER_[A-Z_]+", document.replace("\\-", "-")))
    assert named == {flag.variable for flag in FLAGS}


def test_every_flag_that_the_text_names_exists() -> None:
    # `--flag` or `--flag=value` in code type, outside commands of other programs.
    ours = {f"--{name}" for name in FLAGS_BY_NAME} | {"--version", "--version-json", "--help"}
    parsers = [import_module(f"crio_credential_provider.commands.{command}").parser() for command in COMMANDS]
    of_commands = {option for parser in parsers for option in parser._option_string_actions}
    others = {"--docker-server", "--authorization-mode", "--feature-gates", "--flag"}
    for name in re.findall(r"`(--[\w-]+)[^`]*`", README):
        assert name in ours | of_commands | others, name


# -- commands ---------------------------------------------------------------------------------------------------------


def test_the_two_commands_are_targets_of_make() -> None:
    assert [*commands()][:2] == ["make demo", "make test"]
    targets = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^  make (\w+)", targets, re.MULTILINE))
    text = "\n".join([*commands(), *re.findall(r"`(make[^`]*)`", README)])
    named = {
        word for line in re.findall(r"^make (.*)$", text, re.MULTILINE) for word in line.split() if "=" not in word
    }
    assert {"demo", "test", "build", "wheel"} <= named <= known


def test_commands_of_the_program_are_ones_it_takes() -> None:
    lines = [*commands(), *re.findall(r"`(crio-credential-provider [^`]+)`", README)]
    found = [match[1].split() for line in lines if (match := _PROVIDER_COMMAND.fullmatch(line))]
    assert found
    for word, *rest in found:
        if word in COMMANDS:
            parser = import_module(f"crio_credential_provider.commands.{word}").parser()
            if rest != ["[--help]"]:
                parser.parse_args(rest)
        else:
            assert word in ("--version", "--version-json", "--help") or loads([word, *rest], {})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_told(command: str) -> None:
    assert f"`crio-credential-provider {command} [--help]`" in README
    assert f".B crio\\-credential\\-provider {command}\n" in MAN_PAGE


def test_commands_for_the_journal_name_fields_that_there_are() -> None:
    sources = source_text()
    used = [line for line in commands() if line.startswith("journalctl -t")]
    assert used
    for line in used:
        assert line.split()[2] == journal.IDENTIFIER
        for field, _ in re.findall(r"\b([A-Z_]+)=(\S+)", line):
            assert f'"{field}"' in sources
    assert "Wrote auth file to" in sources


def test_every_field_of_the_journal_is_explained() -> None:
    source = (ROOT / "src/crio_credential_provider/pull/plugin.py").read_text()
    fields = set(re.findall(r'(?:fields\[|fields = \{|, |\{)"([A-Z_]+)"(?:\]|:)', source))
    assert {"OUTCOME", "IMAGE", "CREDENTIALS", "AUTH_FILE", "PROVIDER_VERSION"} <= fields
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \|", README, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"[A-Z_]+", row)} == fields


# -- messages ---------------------------------------------------------------------------------------------------------


def message_rows() -> list[str]:
    """First cells of the tables of messages and reasons."""
    section = README.partition("## What each message means")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| ", section, re.MULTILINE)
    return [row for row in rows if row not in ("message", "reason")]


def test_every_message_that_is_explained_is_one_that_the_program_says() -> None:
    sources = source_text()
    phrases = [phrase for row in message_rows() for phrase in re.findall(r"`([^`]+)`", row)]
    assert len(phrases) > 50
    # f-strings: a name stands for what is filled in.
    missing = [phrase for phrase in phrases if phrase not in sources and not _made_of(phrase, sources)]
    assert not missing


def _made_of(phrase: str, sources: str) -> bool:
    """Whether the phrase is what an f-string or a ValueError's rest makes; each half is literal."""
    known = {
        "is not a duration": ("} is not {error}", '"a duration such as'),
        "is not one of": ("} is not {error}", 'f"one of'),
        "unknown flag": ('"unknown {what} ', 'what = "flag"'),
        "unknown argument": ('"unknown {what} ', 'else "argument"'),
        "may not list secrets in namespace": ("may not {what} in namespace", '"list secrets"'),
        "may not get": ("may not {what} in namespace", 'f"get {what}"'),
    }
    return all(half in sources for half in known.get(phrase, ("\0",)))


def test_every_class_of_error_has_its_place() -> None:
    section = README.partition("## What each message means")[2].partition("\n## ")[0]
    classes: list[type[errors.ProviderError]] = [
        errors.RequestError,
        errors.ConfigError,
        errors.ClusterError,
        errors.AuthFileError,
    ]
    assert set(errors.ProviderError.__subclasses__()) >= {*classes, errors.UsageError}
    for kind in classes:
        assert f"(`fault-{kind.fault}`)" in section


# -- YAML and links ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_objects_and_stand_in_the_readme(path: Path) -> None:
    for document in documents(path.read_text()):
        assert document["apiVersion"] and document["kind"]
        assert document["kind"] == "CredentialProviderConfig" or document["metadata"]["name"]
    assert path.read_text() in blocks("yaml")
    assert f"(docs/manifests/{path.name})" in README


def test_every_yaml_block_is_a_manifest() -> None:
    assert sorted(blocks("yaml")) == sorted(path.read_text() for path in MANIFESTS)


@pytest.mark.parametrize("name", ["credential-provider-config.yaml", "credential-provider-config-1.33.yaml"])
def test_the_kubelets_configuration_is_one_that_works(name: str) -> None:
    [config] = documents((ROOT / "docs/manifests" / name).read_text())
    [provider] = config["providers"]
    assert loads(provider["args"], {})
    assert not [pattern for pattern in provider["matchImages"] if "/" in pattern]
    attributes = provider["tokenAttributes"]
    assert attributes.pop("cacheType", None) == (None if "1.33" in name else "Token")
    assert attributes.keys() == {"serviceAccountTokenAudience", "requireServiceAccount"}
    role = documents((ROOT / "docs/manifests/node-rbac.yaml").read_text())[0]
    assert role["rules"][0]["resources"] == [attributes["serviceAccountTokenAudience"]]


def test_roles_and_bindings_belong_together() -> None:
    for path in MANIFESTS:
        objects = documents(path.read_text())
        roles = {(o["kind"], o["metadata"]["name"]) for o in objects if o["kind"] in ("Role", "ClusterRole")}
        bound = {(o["roleRef"]["kind"], o["roleRef"]["name"]) for o in objects if o["kind"].endswith("RoleBinding")}
        assert bound == roles


def anchor(title: str) -> str:
    """As the hosts of repositories make them."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_exists(path: Path) -> None:
    for link in _LINK.findall(path.read_text()):
        if link.startswith("https://"):
            continue
        name, _, fragment = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if fragment:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert fragment in map(anchor, titles), link


def test_every_document_that_the_sources_cite_exists() -> None:
    files = [file for name in ("src", "tests", "bench", "tools") for file in (ROOT / name).rglob("*.py")]
    cited = {name for file in files for name in re.findall(r"\bdocs/[\w/.-]+\.md\b", file.read_text())}
    assert "docs/contracts.md" in cited
    for name in sorted(cited):
        assert (ROOT / name).exists(), name
