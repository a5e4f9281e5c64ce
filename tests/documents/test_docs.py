"""What the docs say is so: flags, commands, messages, YAML and links, held against the program and the files."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from crio_credential_provider import errors
from crio_credential_provider.__main__ import COMMANDS
from crio_credential_provider.commands import module
from crio_credential_provider.platform import journal
from crio_credential_provider.settings import FLAGS, FLAGS_BY_NAME, loads
from node import TESTS

ROOT = TESTS.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES]
USER_DOCUMENTS = [ROOT / "README.md", *(page for page in PAGES if page.parent.name != "decisions")]
MANIFESTS = sorted((DOCS / "manifests").glob("*.yaml"))
FLAGS_PAGE = DOCS / "reference/flags.md"
MAN_PAGE = DOCS / "man/crio-credential-provider.8"

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_PROGRAM = re.compile(r"(?:\S*/)?crio-credential-provider$")
_CODE = re.compile(r"`([^`]+)`")
_THERE = dict.fromkeys(("--baseline", "--config", "--merge", "--registries-conf"), MAN_PAGE) | {
    "--root": DOCS,
    "--remove": DOCS,
}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    """The blocks of a document in that language; one in a list without its indentation."""
    return [textwrap.dedent(text) for _, tag, text in _BLOCK.findall(path.read_text()) if tag == language]


def commands(path: Path) -> Iterator[str]:
    """The command lines of a document, continued ones joined; what is fed to one is left out."""
    for block in blocks(path, "sh"):
        text = re.sub(r"<<'END'.*?^END$", "", re.sub(r"\\\n\s*", "", block), flags=re.MULTILINE | re.DOTALL)
        yield from (line.strip() for line in text.splitlines())


def documents(text: str) -> list[Any]:
    return list(yaml.safe_load_all(text))


def source_text() -> str:
    """The sources with string literals that stand one after another joined, as the compiler joins them."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "src/crio_credential_provider").rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", text).replace("\\'", "'")


# -- flags ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("path", [FLAGS_PAGE, MAN_PAGE], ids=named)
def test_the_flags_are_those_that_the_tool_writes(tmp_path: Path, path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    subprocess.run([sys.executable, ROOT / "tools/flags_table.py", copy], check=True, cwd="/")
    assert path.read_text() == copy.read_text(), f"run: python3 tools/flags_table.py {named(path)}"


def test_the_table_of_flags_is_what_the_help_says(plugin: Path) -> None:
    rows = re.findall(r"^\| `--([\w-]+)(.*?) \| (?:`([^`]*)`)? \| (.*) \|$", FLAGS_PAGE.read_text(), re.MULTILINE)
    table = {name: (metavar.replace("`<br>`", "|").rstrip("`"), default, text) for name, metavar, default, text in rows}
    shown = subprocess.run([plugin, "--help"], capture_output=True, text=True, check=True).stdout
    words = re.sub(r"\s+", " ", shown.partition("as an environment variable:")[2])
    flags = re.findall(r" --([\w-]+)((?: [A-Z|\[\]:/a-z-]+)?) .*? (CRIO_CREDENTIAL_PROVIDER_\w+)", words)
    assert {name for name, _, _ in flags} == set(table) == set(FLAGS_BY_NAME)
    for name, (metavar, default, text) in table.items():
        ending = f" (default {default})" if default not in ("", "false") else ""
        sentence = text.partition("; repeatable, in the variable")[0]
        expected = f"--{name}{metavar}{sentence}{ending}{FLAGS_BY_NAME[name].variable}"
        # The help is wrapped, at hyphens too.
        assert re.sub(r"\s", "", expected) in re.sub(r"\s", "", words)


def test_variables_are_named_by_the_rule_of_the_page() -> None:
    text = FLAGS_PAGE.read_text()
    assert "`CRIO_CREDENTIAL_PROVIDER_` with the flag's name in upper case and `_` for each `-`" in text
    assert "`--auth-dir` is\n`CRIO_CREDENTIAL_PROVIDER_AUTH_DIR`" in text
    for flag in FLAGS:
        assert flag.variable == "CRIO_CREDENTIAL_PROVIDER_" + flag.name.upper().replace("-", "_")


def test_every_variable_of_the_manual_page_exists() -> None:
    found = set(re.findall(r"CRIO_CREDENTIAL_PROVIDER_[A-Z_]+", MAN_PAGE.read_text().replace("\\-", "-")))
    assert found == {flag.variable for flag in FLAGS}


def test_every_flag_that_a_document_names_exists() -> None:
    # `--flag` or `--flag=value` in code type.
    ours = {f"--{name}" for name in (*FLAGS_BY_NAME, "version", "version-json", "licenses", "help")}
    parsers = [module(command).parser() for command in COMMANDS]
    of_commands = {option for parser in parsers for option in parser._option_string_actions}
    of_others = {
        *("--docker-server", "--authorization-mode", "--feature-gates", "--image-credential-provider-config"),
        *(
            "--image-credential-provider-bin-dir",
            "--image-credential-provider-",
            "--config-dir",
            "--remove",
            "--flag",
            "--NAME",
        ),
        *("--library-path",),
    }
    for path in USER_DOCUMENTS:
        for name in re.findall(r"`(--[\w-]+)[^`]*`", path.read_text()):
            assert name in ours | of_commands | of_others, f"{named(path)}: {name}"


# -- commands ---------------------------------------------------------------------------------------------------------


def invocations(path: Path) -> Iterator[list[str]]:
    """Arguments of our program in a document's command lines, and in code type in its text."""
    inline = re.findall(r"`((?:\S*/)?crio-credential-provider [^`]+)`", path.read_text())
    for line in (*commands(path), *inline):
        if line.startswith("oc debug"):
            continue
        words = shlex.split(re.split(r" [|>] ", line)[0])
        if words and _PROGRAM.match(words[0]):
            # A file or a directory must be there for a command to take it.
            yield [str(_THERE.get(flag, word)) for flag, word in itertools.pairwise(words)]


@pytest.mark.parametrize("path", USER_DOCUMENTS, ids=named)
def test_commands_of_the_program_are_ones_it_takes(path: Path) -> None:
    for word, *rest in invocations(path):
        if word in COMMANDS:
            parser = module(word).parser()
            if rest != ["[--help]"]:
                with contextlib.redirect_stderr(io.StringIO()) as said:
                    try:
                        parser.parse_args(rest)
                    except SystemExit:
                        pytest.fail(f"{word} {rest}: {said.getvalue()}")
        else:
            assert word in ("--version", "--version-json", "--licenses", "--help") or loads([word, *rest], {})


def test_there_are_commands_to_look_at() -> None:
    assert sum(len([*invocations(path)]) for path in USER_DOCUMENTS) > 40


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_manual(command: str) -> None:
    assert f".B crio-credential-provider {command}\n" in MAN_PAGE.read_text().replace("\\-", "-")


def test_make_has_every_target_that_a_document_names() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in DOCUMENTS:
        text = "\n".join([*commands(path), *re.findall(r"`(make [^`]*)`", path.read_text())])
        lines = re.findall(r"^make (.*)$", text, re.MULTILINE)
        targets = {word for line in lines for word in shlex.split(line) if re.fullmatch(r"[a-z-]+", word)}
        assert targets <= known, f"{named(path)}: {targets - known}"


def test_commands_for_the_journal_name_fields_that_there_are() -> None:
    sources = source_text()
    used = [line for path in USER_DOCUMENTS for line in commands(path) if line.startswith("journalctl -t")]
    assert len(used) > 5
    for line in used:
        assert line.split()[2] == journal.IDENTIFIER
        listed = re.search(r"--output-fields=(\S+)", line)
        fields = re.findall(r"\b([A-Z_]+)=", line) + (listed[1].split(",") if listed else [])
        for field in fields:
            assert f'"{field}"' in sources
        for outcome in re.findall(r"OUTCOME=(\S+)", line):
            assert f'"{outcome}"' in sources


def test_every_field_of_the_journal_is_explained() -> None:
    source = (ROOT / "src/crio_credential_provider/pull/audit.py").read_text()
    fields = set(re.findall(r'(?:fields\[|fields = \{|, |\{)"([A-Z_]+)"(?:\]|:)', source))
    assert {"OUTCOME", "IMAGE", "CREDENTIALS", "AUTH_FILE", "PROVIDER_VERSION"} <= fields
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \|", (DOCS / "reference/journal.md").read_text(), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"[A-Z_]+", row)} == fields


# -- messages ---------------------------------------------------------------------------------------------------------


MESSAGES = DOCS / "reference/messages.md"


def test_every_class_of_error_has_its_place() -> None:
    classes: list[type[errors.ProviderError]] = [
        errors.RequestError,
        errors.ConfigError,
        errors.ClusterError,
        errors.AuthFileError,
    ]
    assert set(errors.ProviderError.__subclasses__()) >= {*classes, errors.UsageError}
    for kind in classes:
        assert f"(`fault-{kind.fault}`)" in MESSAGES.read_text()


def test_symptoms_are_told_in_the_words_of_the_commands() -> None:
    """First cells of the tables of explain and verify in docs/troubleshooting.md; "..." stands between two phrases."""
    text = (DOCS / "troubleshooting.md").read_text()
    sources = source_text()
    for head in ("| explain says |", "| verify says |"):
        table = text.partition(head)[2].partition("\n\n")[0]
        phrases = [phrase for row in re.findall(r"^\| (.+?) \| ", table, re.MULTILINE) for phrase in _CODE.findall(row)]
        assert len(phrases) > 5
        for phrase in phrases:
            assert phrase in sources, phrase


def run(*arguments: str | Path) -> str:
    words = [sys.executable, "-m", "crio_credential_provider", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", ["doctor", "explain", "verify"])
def test_members_of_json_are_those_of_the_page(command: str, tmp_path: Path) -> None:
    (tmp_path / "secrets.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: team}\n")
    (tmp_path / "etc/containers").mkdir(parents=True)
    # A place that verify does not ask.
    (tmp_path / "etc/containers/registries.conf").write_text('[[registry]]\nlocation = "docker.io"\nblocked = true\n')
    on_a_node = ("nginx:1.27", "-n", "team", "--secrets", tmp_path / "secrets.yaml", "--root", tmp_path)
    arguments = {
        "doctor": ("--config", DOCS / "manifests/credential-provider-config.yaml"),
        "explain": on_a_node,
        "verify": on_a_node,
    }[command]
    page = (DOCS / f"reference/{command}.md").read_text().partition("\n## JSON\n")[2]
    report = json.loads(run(command, *arguments, "--output", "json"))
    assert len(report) > 5
    members = {*report, *(report["sources"][0] if command == "verify" else ())}
    assert members <= {*_CODE.findall(page)}


# -- YAML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_objects_that_a_page_links_to(path: Path) -> None:
    for document in documents(path.read_text()):
        assert document["apiVersion"] and document["kind"]
        assert document["kind"] == "CredentialProviderConfig" or document["metadata"]["name"]
    assert any(f"/manifests/{path.name})" in page.read_text() for page in PAGES)


def test_every_yaml_block_is_a_manifest() -> None:
    texts = {path.read_text() for path in MANIFESTS}
    found = [block for path in DOCUMENTS for block in blocks(path, "yaml")]
    assert len(found) >= 3 and set(found) <= texts


@pytest.mark.parametrize("name", ["credential-provider-config.yaml", "credential-provider-config-1.33.yaml"])
def test_the_kubelets_configuration_is_one_that_works(name: str) -> None:
    [config] = documents((DOCS / "manifests" / name).read_text())
    [provider] = config["providers"]
    assert loads(provider["args"], {})
    assert not [pattern for pattern in provider["matchImages"] if "/" in pattern]
    attributes = provider["tokenAttributes"]
    assert attributes.pop("cacheType", None) == (None if "1.33" in name else "Token")
    assert attributes.keys() == {"serviceAccountTokenAudience", "requireServiceAccount"}
    role = documents((DOCS / "manifests/node-rbac.yaml").read_text())[0]
    assert role["rules"][0]["resources"] == [attributes["serviceAccountTokenAudience"]]


def test_roles_and_bindings_belong_together() -> None:
    for path in MANIFESTS:
        objects = documents(path.read_text())
        roles = {(o["kind"], o["metadata"]["name"]) for o in objects if o["kind"] in ("Role", "ClusterRole")}
        bound = {(o["roleRef"]["kind"], o["roleRef"]["name"]) for o in objects if o["kind"].endswith("RoleBinding")}
        assert bound == roles


# -- links and pages --------------------------------------------------------------------------------------------------


def anchor(title: str) -> str:
    """As the hosts of repositories make them."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
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
    assert "docs/reference/contracts.md" in cited
    for name in sorted(cited):
        assert (ROOT / name).exists(), name


def test_every_file_that_a_document_names_exists() -> None:
    for path in DOCUMENTS:
        for name in re.findall(r"\b(?:tests|tools|bench|fuzz|packaging)/[\w/.-]+\.\w+", path.read_text()):
            assert (ROOT / name).exists(), f"{named(path)}: {name}"


def test_the_layout_names_every_room() -> None:
    source = ROOT / "src/crio_credential_provider"
    rooms = {path.parent.name for path in source.glob("*/__init__.py")}
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Layout")[2].partition("\n## ")[0]
    assert rooms <= set(re.findall(r"`(\w+)/`", text))


def test_every_page_is_in_the_navigation_once() -> None:
    def pages(entry: Any) -> Iterator[str]:
        for value in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else ():
            yield from [value] if isinstance(value, str) else pages(value)

    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = sorted(pages(config["nav"]))
    # What tools/site_hooks.py takes from the root of the repository.
    taken = ["changelog.md", "contributing.md", "index.md", "security.md"]
    assert listed == sorted([*(str(page.relative_to(DOCS)) for page in PAGES), *taken])
    assert config["strict"] is True


def test_reading_the_site_needs_no_network() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert config["theme"]["font"] is False
    assert config["plugins"] == ["search"]
    # The theme would fetch a library to draw these.
    assert not [named(path) for path in DOCUMENTS if "```mermaid" in path.read_text()]
