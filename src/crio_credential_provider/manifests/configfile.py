"""A CredentialProviderConfig as a file: parsed as the kubelet parses it, or refused with the line at fault.

PyYAML reads YAML 1.1, as the kubelet does, and takes JSON as well. Not looked at here is what the entries say.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NamedTuple

import yaml

from ..errors import ConfigError
from ..kubernetes.credentialproviderconfig import KIND, NAME
from . import providerconfig

MAX_SIZE = 1024 * 1024
"""Characters: hundreds of providers."""
_MAX_DIGITS = 100
"""Of a number; Python would not write out one of 5,000."""

_MAX_NODES = 100_000
"""With aliases counted as often as they are used."""


class Source(NamedTuple):
    """A file as it is.

    Attributes:
        text: without a byte order mark, with line feeds alone; of YAML, with blanks for tabs between values.
        is_json: whether the text is JSON.
        root: the parser's tree.
        data: the value; None for no document.
    """

    text: str
    is_json: bool
    root: yaml.Node | None
    data: Any

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but comments and marks of a document."""
        return self.root is None or (isinstance(self.root, yaml.ScalarNode) and self.root.value == "")

    def check(self, name: str) -> None:
        """Whether the value is a CredentialProviderConfig in which our entry has a place."""
        data = self.data
        if not isinstance(data, dict) or data.get("kind") != KIND:
            kind = data.get("kind") if isinstance(data, dict) else None
            what = f"kind is {str(kind)[:80]!r}" if kind is not None else "it has no kind"
            raise ConfigError(f"{name} is not a {KIND}: {what}", "the kubelet cannot read it either")
        providerconfig.check_version(data.get("apiVersion"), name)
        providers = data.get("providers")
        if providers is not None and not isinstance(providers, list):
            raise ConfigError(f"{name}: providers is not a list", "the kubelet cannot read it either")
        for number, provider in enumerate(providers or (), 1):
            if not isinstance(provider, dict):
                raise ConfigError(
                    f"{name}{self._line_of_provider(number)}: provider number {number} is not a mapping",
                    "the kubelet cannot read it either",
                )
        places = [n for n, provider in enumerate(providers or (), 1) if provider.get("name") == NAME]
        if len(places) > 1:
            raise ConfigError(
                f"{name}{self._line_of_provider(places[1])}: a second provider {NAME}",
                "the kubelet does not start with a duplicate name; remove one",
            )

    def _line_of_provider(self, number: int) -> str:
        lines = self.lines_of_provider(number - 1)
        return f", line {lines[0] + 1}" if lines else ""

    def lines_of_provider(self, place: int) -> range:
        """From its first line to its last, counted from 0; none where it is not there."""
        assert isinstance(self.root, yaml.MappingNode)
        for key, value in self.root.value:
            if key.value == "providers" and isinstance(value, yaml.SequenceNode) and place < len(value.value):
                node = value.value[place]
                return range(node.start_mark.line, node.end_mark.line + 1)
        return range(0)

    def comments(self, lines: range | None = None) -> Counter[str]:
        """Comments, and how often each is there: what stands between the parser's tokens."""
        found: Counter[str] = Counter()
        end = line = 0
        for token in yaml.scan(self.text, yaml.SafeLoader):
            for number, part in enumerate(self.text[end : token.start_mark.index].split("\n"), line):
                if "#" in part and (lines is None or number in lines):
                    found[part[part.index("#") :].rstrip()] += 1
            end, line = token.end_mark.index, token.end_mark.line
        return found


def read(text: str, name: str) -> Source:
    if len(text) > MAX_SIZE:
        raise ConfigError(f"{name} is larger than {MAX_SIZE >> 20} MiB", f"check that this is the kubelet's {KIND}")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    is_json = _is_json(text)
    try:
        readable = _without_tabs(text, is_json)
        loader = yaml.SafeLoader(readable)
        try:
            root = loader.get_single_node()
            if root is not None:
                _check_tree(root, name)
            data = None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except RecursionError:
        raise ConfigError(f"{name} is nested too deeply", "the kubelet cannot read it either") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name}{_line_of(error)}: {_reason(error)}", _hint(error)) from None
    return Source(text if is_json else readable, is_json, root, json.loads(text) if is_json else data)


def _without_tabs(text: str, is_json: bool) -> str:
    """The text with blanks for tabs where the kubelet's parser takes them and PyYAML does not: not in an
    indentation, in quotes or in blocks of text.

    JSON may be indented by tabs, and holds none in its strings.
    """
    if is_json or "\t" not in text:
        return text.replace("\t", " ")
    blank = re.sub(r"^( *[^\s][^\n]*)", lambda line: line[0].replace("\t", " "), text, flags=re.MULTILINE)
    parts, done = [], 0
    for token in yaml.scan(blank, yaml.SafeLoader):
        if isinstance(token, yaml.ScalarToken) and not token.plain:
            start, end = token.start_mark.index, token.end_mark.index
            parts += [blank[done:start], text[start:end]]
            done = end
    return "".join([*parts, blank[done:]])


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _line_of(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""


def _reason(error: Exception) -> str:
    problem = getattr(error, "problem", None)
    if problem and "but found another document" in problem:
        return "a second YAML document begins here, which the kubelet does not read"
    if problem and "'\\t'" in problem:
        return "YAML does not allow a tab here"
    if isinstance(error, yaml.reader.ReaderError):
        return f"not valid YAML: the character #x{error.character:04x} is not allowed"
    return f"not valid YAML: {problem or error}"


def _hint(error: Exception) -> str:
    if "another document" in (getattr(error, "problem", None) or ""):
        return "put all providers into the first, and nothing else into the file"
    return "the kubelet cannot read it either"


def _check_tree(root: yaml.Node, name: str) -> None:
    """Keys that stand twice, aliases that go in circles or multiply."""
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in above:
            raise ConfigError(f"{name}, line {node.start_mark.line + 1}: an alias inside its own anchor")
        if key not in sizes:
            above.add(key)
            sizes[key] = 1 + sum(map(size, _children(node, name)))
            above.remove(key)
        return sizes[key]

    if size(root) > _MAX_NODES:
        raise ConfigError(f"{name}: its aliases expand to more than {_MAX_NODES} values", "write them out")


def _children(node: yaml.Node, name: str) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _MAX_DIGITS:
            raise ConfigError(f"{name}, line {node.start_mark.line + 1}: a number of {len(node.value)} digits")
        return []
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{name}, line {key.start_mark.line + 1}: a key must be a string")
        if key.value in seen and key.value != "<<":
            raise ConfigError(
                f"{name}, line {key.start_mark.line + 1}: duplicate key {key.value!r}",
                "the kubelet refuses the file; remove one",
            )
        seen.add(key.value)
    return [part for pair in node.value for part in pair]
