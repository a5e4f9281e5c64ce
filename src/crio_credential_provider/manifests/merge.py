"""Our entry put into an existing CredentialProviderConfig, of which all else stays letter for letter.

The text is edited where something has to change, at the places that the YAML parser tells; what is not ours is not
written anew. Where that does not do (``<<`` and the like), ruamel.yaml writes the whole file: comments, order and
quotes stay, spaces may not. Whatever the way, the result is read again, and must be what was meant and nothing else.

    merged = merge(text, Wanted(kubernetes=(1, 34), match_images=("docker.io",)), name="/etc/kubernetes/cpc.yaml")
    merged.text, merged.changes, merged.overlaps
"""

from __future__ import annotations

import difflib
import functools
import io
import json
import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import yaml

from ..errors import ConfigError
from . import layout, matchimages, providerconfig
from .providerconfig import NAME, Wanted

MAX_SIZE = 1024 * 1024
"""Characters: hundreds of providers."""
_MAX_DIGITS = 100
"""Of a number; Python would not write out one of 5,000."""

_MAX_NODES = 100_000
"""With aliases counted as often as they are used."""


class Overlap(NamedTuple):
    """Another provider that the kubelet runs for the same images: its name, its pattern, ours."""

    provider: str
    pattern: str
    ours: str


class Merged(NamedTuple):
    """A file with our entry in it.

    Attributes:
        text: the whole file; the very text that was given where nothing had to change.
        changes: what was changed, one sentence each; none where the entry was as it ought to be.
        overlaps: other providers whose matchImages meet ours.
        notes: what else the kubelet will not take, in parts that are not ours and were not touched.
    """

    text: str
    changes: tuple[str, ...]
    overlaps: tuple[Overlap, ...]
    notes: tuple[str, ...]


def merge(
    text: str, wanted: Wanted, *, name: str = "the CredentialProviderConfig", without: Collection[str] = ()
) -> Merged:
    """Adds our entry to a CredentialProviderConfig, or brings it up to date.

    Args:
        text: YAML or JSON; what is empty or holds comments alone becomes a file with our entry only.
        wanted: what the entry is to say.
        name: what the file is called in errors.
        without: patterns to take out of our matchImages.

    Raises:
        ConfigError: the text is no CredentialProviderConfig, or one that the kubelet cannot read either; names the
            line where there is one. Or the entry would match nothing.
        UsageError: the entry would be one that the plugin refuses.
    """
    source = _read(text, name)
    if source.is_empty:
        return Merged(_with_our_entry_only(text, wanted, name), (f"added the provider {NAME}",), (), ())
    _check(source, name)
    target, changes = _target(source.data, wanted, without)
    ours = next(provider for provider in target["providers"] if provider.get("name") == NAME)
    overlaps = tuple(_overlaps(target["providers"], ours))
    notes = tuple(_notes(source.data, wanted))
    if not changes:
        return Merged(text, (), overlaps, notes)
    return Merged(_rewrite(source, target, name), changes, overlaps, notes)


def _target(data: dict[str, Any], wanted: Wanted, without: Collection[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The file's content as it is to be, and what that changes."""
    target = dict(data)
    changes: tuple[str, ...] = ()
    if data["apiVersion"] != providerconfig.API_VERSION:
        target["apiVersion"] = providerconfig.API_VERSION
        changes += (
            f"apiVersion: changed from {data['apiVersion']} to {providerconfig.API_VERSION}, the only one with "
            "tokenAttributes",
        )
    providers = list(data.get("providers") or ())
    place = next((i for i, provider in enumerate(providers) if provider.get("name") == NAME), None)
    if place is None:
        providers.append(providerconfig.new_entry(wanted))
        changes += (f"added the provider {NAME}",)
    else:
        providers[place], updates = providerconfig.update_entry(providers[place], wanted, without)
        changes += updates
    target["providers"] = providers
    return target, changes


# -- reading ----------------------------------------------------------------------------------------------------------


class _Source(NamedTuple):
    """A file as it is.

    Attributes:
        readable: the text as it was parsed, of the same length.
        is_json: whether the text is JSON.
        root: the parser's tree.
        data: the value; None for no document.
        aliases: where each alias begins, and what it stands for.
    """

    text: str
    readable: str
    is_json: bool
    root: yaml.Node | None
    data: Any
    aliases: dict[int, yaml.Node]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but comments and marks of a document."""
        return self.root is None or (isinstance(self.root, yaml.ScalarNode) and self.root.value == "")


class _Loader(yaml.SafeLoader):
    """Notes where aliases are: the tree only has what they stand for."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.aliases: dict[int, yaml.Node] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        place = None
        if self.check_event(yaml.AliasEvent):
            event: yaml.AliasEvent = self.peek_event()  # type: ignore[no-untyped-call]
            place = None if event.start_mark is None else event.start_mark.index
        node = super().compose_node(parent, index)
        if place is not None and node is not None:
            self.aliases[place] = node
        return node


def _read(text: str, name: str) -> _Source:
    if len(text) > MAX_SIZE:
        raise ConfigError(
            f"{name} is larger than {MAX_SIZE >> 20} MiB", f"check that this is the kubelet's {providerconfig.KIND}"
        )
    is_json = _is_json(text)
    readable = _without_tabs(text, is_json)
    try:
        loader = _Loader(readable)
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
    return _Source(text, readable, is_json, root, data, loader.aliases)


def _without_tabs(text: str, is_json: bool) -> str:
    """The text with blanks for tabs where the kubelet's parser takes them and PyYAML does not: not in an indentation.

    JSON may be indented by tabs, and holds none in its strings.
    """
    if is_json:
        return text.replace("\t", " ")
    return re.sub(r"^( *[^\s][^\n]*)", lambda line: line[0].replace("\t", " "), text, flags=re.MULTILINE)


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


def _check(source: _Source, name: str) -> None:
    """Whether the value is a CredentialProviderConfig in which our entry has a place."""
    data = source.data
    if not isinstance(data, dict) or data.get("kind") != providerconfig.KIND:
        kind = data.get("kind") if isinstance(data, dict) else None
        what = f"kind is {str(kind)[:80]!r}" if kind is not None else "it has no kind"
        raise ConfigError(f"{name} is not a {providerconfig.KIND}: {what}", "the kubelet cannot read it either")
    providerconfig.check_version(data.get("apiVersion"), name)
    providers = data.get("providers")
    if providers is not None and not isinstance(providers, list):
        raise ConfigError(f"{name}: providers is not a list", "the kubelet cannot read it either")
    for number, provider in enumerate(providers or (), 1):
        if not isinstance(provider, dict):
            raise ConfigError(
                f"{name}{_line_of_provider(source, number)}: provider number {number} is not a mapping",
                "the kubelet cannot read it either",
            )
    places = [n for n, provider in enumerate(providers or (), 1) if provider.get("name") == NAME]
    if len(places) > 1:
        raise ConfigError(
            f"{name}{_line_of_provider(source, places[1])}: a second provider {NAME}",
            "the kubelet does not start with a duplicate name; remove one",
        )


def _line_of_provider(source: _Source, number: int) -> str:
    assert isinstance(source.root, yaml.MappingNode)
    for key, value in source.root.value:
        if key.value == "providers" and isinstance(value, yaml.SequenceNode):
            return f", line {value.value[number - 1].start_mark.line + 1}"
    return ""


# -- what is told -----------------------------------------------------------------------------------------------------


def _overlaps(providers: list[dict[str, Any]], ours: dict[str, Any]) -> Iterator[Overlap]:
    for provider in providers:
        patterns = provider.get("matchImages")
        if provider.get("name") == NAME or not isinstance(patterns, list):
            continue
        for pattern in patterns:
            for mine in ours["matchImages"]:
                if isinstance(pattern, str) and matchimages.overlap(pattern, mine):
                    yield Overlap(str(provider.get("name")), pattern, mine)


def _notes(data: dict[str, Any], wanted: Wanted) -> Iterator[str]:
    """Faults of other parts for which this kubelet would not start."""
    for key in data:
        if key not in providerconfig.ROOT_KEYS:
            yield f"unknown key {key} at the top, with which the kubelet does not start"
    names = [provider.get("name") for provider in data.get("providers") or ()]
    for number, provider in enumerate(data.get("providers") or (), 1):
        label = str(provider.get("name") or f"number {number}")
        if provider.get("name") == NAME:
            continue
        if names.index(provider.get("name")) < number - 1:
            yield f"duplicate provider {label}, with which the kubelet does not start"
        attributes = provider.get("tokenAttributes")
        for key in provider:
            if key not in providerconfig.ENTRY_KEYS:
                yield f"the provider {label} has the key {key}, with which the kubelet does not start"
        if isinstance(attributes, dict) and ("cacheType" in attributes) != (
            wanted.kubernetes >= providerconfig.CACHE_TYPE_SINCE
        ):
            verb = "has a" if "cacheType" in attributes else "lacks the"
            yield f"the provider {label} {verb} cacheType, with which this kubelet does not start"


# -- writing ----------------------------------------------------------------------------------------------------------


def _with_our_entry_only(text: str, wanted: Wanted, name: str) -> str:
    """A document after comments, or as the first thing of the file."""
    value = {
        "apiVersion": providerconfig.API_VERSION,
        "kind": providerconfig.KIND,
        "providers": [providerconfig.new_entry(wanted)],
    }
    newline = _newline(text)
    head = text if text.strip() else ""
    if head and not head.endswith("\n"):
        head += newline
    made = head + layout.dumps(value).replace("\n", newline)
    if _read(made, name).data != value:
        raise _too_odd(name)
    return made


def _newline(text: str) -> str:
    return "\r\n" if text.find("\n") > 0 and text[text.find("\n") - 1] == "\r" else "\n"


def _rewrite(source: _Source, target: dict[str, Any], name: str) -> str:
    last = _by_json if source.is_json else _by_roundtrip
    for way in (_by_edits, functools.partial(_by_edits, everywhere=True), last):
        try:
            text = way(source, target)
            if _read(text, name).data == target:
                return text
        except (ConfigError, _Odd):
            continue
    raise _too_odd(name)


def _too_odd(name: str) -> ConfigError:
    return ConfigError(
        f"the layout of {name} cannot be edited safely",
        "add the output of `manifests config` by hand",
    )


class _Odd(Exception):
    """A layout that the edits do not know."""


def _by_edits(source: _Source, target: dict[str, Any], *, everywhere: bool = False) -> str:
    source = _without_aliases(source, everywhere)
    editor = _Editor(source)
    assert source.root is not None
    editor.change(source.root, source.data, target)
    return editor.result()


def _without_aliases(source: _Source, everywhere: bool) -> _Source:
    """The same with aliases written out, in our entry alone or everywhere.

    What is changed in our entry is not to change elsewhere, whichever of the two has the anchor.

    Raises:
        _Odd: our entry merges another mapping.
    """
    node = _our_node(source)
    if not source.aliases or node is None:
        return source
    editor = _Editor(source)
    ours = range(node.start_mark.index, editor.end(node))
    for token in yaml.scan(source.readable, yaml.SafeLoader):
        place = token.start_mark.index
        if not isinstance(token, yaml.AliasToken) or not (everywhere or place in ours):
            continue
        if source.text[:place].rstrip().endswith("<<:"):
            raise _Odd
        value = yaml.SafeLoader("").construct_object(source.aliases[place], deep=True)
        editor.replace(place, token.end_mark.index, layout.flow_scalar(value))
    return _read(editor.result(), "")


def _our_node(source: _Source) -> yaml.Node | None:
    assert isinstance(source.root, yaml.MappingNode)
    for key, value in source.root.value:
        if key.value == "providers" and isinstance(value, yaml.SequenceNode):
            for node, provider in zip(value.value, source.data["providers"], strict=True):
                if provider.get("name") == NAME:
                    found: yaml.Node = node
                    return found
    return None


class _Editor:
    """Collects replacements of spans of a text, from a tree with places, a value and the value it is to have."""

    def __init__(self, source: _Source) -> None:
        self.text = source.text
        self.is_json = source.is_json
        self.newline = _newline(source.text)
        self.edits: list[tuple[int, int, str]] = []
        self.dash = _dash(source.root)

    def result(self) -> str:
        parts, done = [], 0
        # By place, what is only put in before what replaces; else in the order in which they were made.
        for start, end, new in sorted(self.edits, key=lambda edit: edit[:2]):
            if start < done:
                raise _Odd
            parts += [self.text[done:start], new]
            done = end
        return "".join([*parts, self.text[done:]])

    def replace(self, start: int, end: int, new: str) -> None:
        self.edits.append((start, end, new))

    def change(self, node: yaml.Node, old: Any, new: Any) -> None:
        """Edits a value in place."""
        if old == new and type(old) is type(new):
            return
        if isinstance(node, yaml.MappingNode) and isinstance(new, dict):
            self.change_mapping(node, old, new)
        elif isinstance(node, yaml.SequenceNode) and isinstance(new, list):
            self.change_sequence(node, old, new)
        elif isinstance(new, dict | list) or not isinstance(node, yaml.ScalarNode) or node.style in ("|", ">"):
            raise _Odd
        else:
            start, end = node.start_mark.index, node.end_mark.index
            space = " " if start == end else ""
            self.replace(start, end, space + self.scalar(new))

    def scalar(self, value: Any) -> str:
        return json.dumps(value) if self.is_json else layout.flow_scalar(value)

    # Mappings.

    def change_mapping(self, node: yaml.MappingNode, old: dict[str, Any], new: dict[str, Any]) -> None:
        nodes = {key.value: (key, value) for key, value in node.value}
        if nodes.keys() != old.keys():
            raise _Odd
        if node.flow_style and not nodes.keys() & new.keys():
            self.replace(node.start_mark.index, node.end_mark.index, self.value(new, node))
            return
        for key, (key_node, value) in nodes.items():
            if key not in new:
                continue
            if self.is_new_block(node, value, new[key], old[key]):
                self.replace_by_block(node, key_node, value, new[key])
            else:
                self.change(value, old[key], new[key])
        self.delete(node, [place for place, key in enumerate(nodes) if key not in new])
        added = {key: value for key, value in new.items() if key not in old}
        if added and node.flow_style:
            self.insert_flow(node, [f"{self.scalar(key)}: {self.value(value, node)}" for key, value in added.items()])
        elif added:
            self.insert_lines(node, layout.block(added, " " * node.start_mark.column, self.dash))

    def is_new_block(self, node: yaml.MappingNode, value: yaml.Node, new: Any, old: Any) -> bool:
        """Whether a list or mapping comes where none with content was."""
        if node.flow_style or not isinstance(new, dict | list) or new == old:
            return False
        return isinstance(value, yaml.ScalarNode) or (isinstance(value, yaml.CollectionNode) and not value.value)

    def replace_by_block(self, node: yaml.MappingNode, key: yaml.Node, value: yaml.Node, new: Any) -> None:
        """The old value goes, a comment behind it stays."""
        colon = self.text.index(":", key.end_mark.index) + 1
        end = max(colon, self.end(value))
        self.replace(colon, end, "")
        column = " " * node.start_mark.column
        self.insert_after(end, layout.block(new, column + (self.dash if isinstance(new, list) else "  "), self.dash))

    # Lists.

    def change_sequence(self, node: yaml.SequenceNode, old: list[Any], new: list[Any]) -> None:
        before, after = ([json.dumps(item, default=str) for item in items] for items in (old, new))
        matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
        gone: list[int] = []
        for what, i1, i2, j1, j2 in matcher.get_opcodes():
            if what == "equal":
                continue
            common = min(i2 - i1, j2 - j1)
            for k in range(common):
                self.change(node.value[i1 + k], old[i1 + k], new[j1 + k])
            gone += range(i1 + common, i2)
            if j2 > j1 + common:
                self.insert_items(node, i1 + common, new[j1 + common : j2])
        self.delete(node, gone)

    def insert_items(self, node: yaml.SequenceNode, place: int, items: list[Any]) -> None:
        """Before the item that stands at a place, or after the last."""
        if place < len(node.value) or not (node.flow_style or node.value):
            # All that this program adds comes last.
            raise _Odd
        if node.flow_style:
            self.insert_flow(node, [self.value(item, node) for item in items])
        else:
            self.insert_lines(node, layout.block(items, " " * node.start_mark.column, self.dash))

    # Either.

    def delete(self, node: yaml.CollectionNode, places: list[int]) -> None:
        """Keys or items, neighbours together."""
        if not places:
            return
        spans = [(self.first(part).start_mark.index, self.end(self.last(part))) for part in node.value]
        if node.flow_style and len(places) == len(spans):
            raise _Odd
        for place in places:
            if place - 1 in places:
                continue
            after = next(i for i in range(place, len(spans) + 1) if i not in places)
            if not node.flow_style:
                self.delete_lines(spans, place, after, isinstance(node, yaml.SequenceNode))
            elif after < len(spans):
                self.replace(spans[place][0], spans[after][0], "")
            else:
                self.replace(spans[place - 1][1], spans[-1][1], "")

    def delete_lines(self, spans: list[tuple[int, int]], place: int, after: int, items: bool) -> None:
        start = self.line_start(spans[place][0])
        before = self.text[start : spans[place][0]].strip()
        if before == ("-" if items else ""):
            self.delete_whole_lines(spans[place:after])
        elif before == "-" and after < len(spans):
            # Keys that begin on the line of a dash: the next one takes their place, unless comments are in between.
            following = spans[after][0]
            if self.text[spans[place][0] : following].count("#"):
                self.replace(
                    *spans[place], "".join(f"{self.newline}{line.rstrip()}" for line in self.comments(*spans[place]))
                )
                self.delete_whole_lines(spans[place + 1 : after])
            else:
                self.replace(spans[place][0], following, "")
        else:
            raise _Odd

    def delete_whole_lines(self, spans: list[tuple[int, int]]) -> None:
        """All but the comments among them."""
        for span in spans:
            start, end = self.line_start(span[0]), self.line_end(span[1])
            self.replace(start, end, "".join(self.comments(start, end)))

    def comments(self, start: int, end: int) -> list[str]:
        """Lines of a span that are nothing else."""
        lines = self.text[start:end].splitlines(keepends=True)
        return [line for line in lines if line.lstrip().startswith("#")]

    @staticmethod
    def first(part: Any) -> yaml.Node:
        found: yaml.Node = part[0] if isinstance(part, tuple) else part
        return found

    @staticmethod
    def last(part: Any) -> yaml.Node:
        found: yaml.Node = part[1] if isinstance(part, tuple) else part
        return found

    # Block style.

    def insert_lines(self, node: yaml.CollectionNode, lines: Iterator[str]) -> None:
        """After the last line of a block, and after comments that stand deeper than it."""
        place = self.line_end(self.end(node))
        while place < len(self.text):
            line = self.text[place : self.line_end(place)]
            bare = line.lstrip(" ")
            if not bare.startswith("#") or len(line) - len(bare) <= node.start_mark.column:
                break
            place += len(line)
        self.insert_at_line(place, lines)

    def insert_after(self, place: int, lines: Iterator[str]) -> None:
        self.insert_at_line(self.line_end(place), lines)

    def insert_at_line(self, place: int, lines: Iterator[str]) -> None:
        new = "".join(f"{line}{self.newline}" for line in lines)
        if place and self.text[place - 1] != "\n":
            new = self.newline + new
        self.replace(place, place, new)

    # Flow style.

    def value(self, value: Any, node: yaml.CollectionNode) -> str:
        if not self.is_json:
            return layout.flow_scalar(value)
        if not self.is_spread(node):
            return json.dumps(value)
        unit = self.indent_unit()
        lead = self.lead(node.value[-1] if node.value else None, node) + ("" if node.value else unit)
        return json.dumps(value, indent=unit).replace("\n", self.newline + lead)

    def is_spread(self, node: yaml.CollectionNode) -> bool:
        """Whether the items of a flow collection have lines of their own."""
        if not node.value:
            return self.is_json and "\n" in self.text.strip()
        start = self.first(node.value[-1]).start_mark
        return not self.text[self.line_start(start.index) : start.index].strip()

    def lead(self, last: Any, node: yaml.CollectionNode) -> str:
        """What the line of an item, or of the collection where it has none, begins with."""
        mark = (self.first(last) if last is not None else node).start_mark
        line = self.text[self.line_start(mark.index) : mark.index]
        return line[: len(line) - len(line.lstrip(" \t"))]

    def indent_unit(self) -> str:
        second = self.text.lstrip().partition("\n")[2]
        return second[: len(second) - len(second.lstrip(" \t"))] or "  "

    def insert_flow(self, node: yaml.CollectionNode, new: list[str]) -> None:
        spread = self.is_spread(node)
        if not node.value:
            start = node.start_mark.index + 1
            lead = self.lead(None, node)
            inner = f",{self.newline}{lead}{self.indent_unit()}".join(new) if spread else ", ".join(new)
            text = f"{self.newline}{lead}{self.indent_unit()}{inner}{self.newline}{lead}" if spread else inner
            self.replace(start, node.end_mark.index - 1, text)
            return
        last = node.value[-1]
        between = f",{self.newline}{self.lead(last, node)}" if spread else ", "
        place = self.end(self.last(last))
        self.replace(place, place, between + between.join(new))

    # Places.

    def end(self, node: yaml.Node) -> int:
        """Where a value's content ends: for a block, whose end is where the next thing begins, its last line."""
        end = int(node.end_mark.index)
        if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
            return len(self.text[:end].rstrip())
        if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
            return end
        end = self.line_start(end) if self.text[self.line_start(end) : end].strip(" -") == "" else end
        while end > node.start_mark.index:
            start = self.line_start(end - 1)
            line = self.text[start:end].strip()
            if line and not line.startswith("#"):
                return start + len(self.text[start:end].rstrip())
            end = start
        raise _Odd

    def line_start(self, place: int) -> int:
        return self.text.rfind("\n", 0, place) + 1

    def line_end(self, place: int) -> int:
        """The beginning of the next line."""
        found = self.text.find("\n", place)
        return len(self.text) if found < 0 else found + 1


def _dash(root: yaml.Node | None) -> str:
    """How much deeper than their keys this file's lists stand; two spaces where there is none to tell by."""
    if isinstance(root, yaml.MappingNode) and not root.flow_style:
        for key, value in root.value:
            if isinstance(value, yaml.SequenceNode) and not value.flow_style:
                return " " * int(value.start_mark.column - key.start_mark.column)
    return "  "


def _by_json(source: _Source, target: dict[str, Any]) -> str:
    """The whole file anew, with its indentation."""
    editor = _Editor(source)
    indent = editor.indent_unit() if "\n" in source.text.strip() else None
    text = json.dumps(target, indent=indent) + source.text[len(source.text.rstrip()) :]
    return text.replace("\n", editor.newline) if indent else text


def _by_roundtrip(source: _Source, target: dict[str, Any]) -> str:
    """The whole file through ruamel.yaml, which keeps comments, order, quotes and anchors."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    tool = YAML()
    tool.preserve_quotes = True
    tool.width = 1 << 20
    deeper = len(_dash(source.root))
    tool.indent(mapping=2, sequence=2 + deeper, offset=deeper)
    try:
        root = tool.load(source.text.replace("\r\n", "\n"))
        root["apiVersion"] = target["apiVersion"]
        if not isinstance(root.get("providers"), list):
            root["providers"] = []
        for place, provider in enumerate(target["providers"]):
            if place == len(root["providers"]):
                root["providers"].append(_quoted(provider))
            elif provider.get("name") == NAME:
                _assign(root["providers"][place], provider)
        out = io.StringIO()
        tool.dump(root, out)
    except (YAMLError, KeyError):
        raise _Odd from None
    text = out.getvalue()
    return text.replace("\n", _newline(source.text))


def _assign(entry: Any, wanted: dict[str, Any]) -> None:
    """Sets what differs. A list or mapping that other entries share is not changed but replaced."""
    for key in [key for key in entry if key not in wanted]:
        del entry[key]
    for key, value in wanted.items():
        if key not in entry or entry[key] != value:
            entry[key] = _quoted(value)


def _quoted(value: Any) -> Any:
    """With quotes about what YAML 1.1 takes for something else: ruamel.yaml writes 1.2."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, dict):
        return {key: _quoted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_quoted(inner) for inner in value]
    is_quoted = isinstance(value, str) and layout.scalar(value) != value
    return DoubleQuotedScalarString(value) if is_quoted else value
