"""The kubelet's CredentialProviderConfig, one file or a directory: read and refused as the kubelet would.

Decoding is strict: an unknown key or one that is there twice is an error, and one error makes the kubelet refuse
the whole (pkg/credentialprovider/plugin/config.go). A key that is a typing mistake is taken for what was meant, so that
the rest is examined as if it were right.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ..kubernetes.credentialproviderconfig import (
    ANNOTATION_KEYS,
    API_VERSION,
    CACHE_TYPE_SINCE,
    CACHE_TYPES,
    DIRECTORY_SINCE,
    ENTRY_KEYS,
    KIND,
    NAME,
    OLDER_VERSIONS,
    PROTOCOL,
    PROTOCOLS,
    ROOT_KEYS,
    SUFFIXES,
    TOKEN_KEYS,
    VARIABLE_KEYS,
    argument_text,
    duration,
    is_annotation_key,
    is_config,
    is_name,
)
from ..kubernetes.imagepatterns import pattern_fault
from ..settings import ENVIRONMENT_PREFIX
from .commandline import Origin
from .kubelet import as_mapping
from .located import MAX_YAML, Document, Syntax, loads_yaml
from .tree import Tree


class Refusal(NamedTuple):
    """What the kubelet does not take, and where it stands."""

    origin: Origin
    reason: str


class Provider(NamedTuple):
    """An entry of ``providers``.

    Attributes:
        document: the file it is in.
        path: of the entry in it.
        value: the entry, its keys spelled right.
        position: among all entries of all files.
    """

    document: Document
    path: tuple[str | int, ...]
    value: dict[str, Any]
    position: int

    @property
    def name(self) -> str:
        return text_of(self.value.get("name"))

    def origin(self, *keys: str | int) -> Origin:
        """Where a member of the entry stands, or what is around it."""
        return Origin(self.document.file, self.document.line(*self.path, *keys))

    @property
    def patterns(self) -> list[tuple[str, Origin]]:
        """matchImages with their lines."""
        return [(text, self.origin("matchImages", at)) for at, text in _texts(self.value.get("matchImages"))]

    @property
    def arguments(self) -> list[tuple[str, Origin]]:
        """args with their lines; one that is not a string is reported, and taken for the one that was meant."""
        items = self.value.get("args")
        texts = enumerate(map(argument_text, items if isinstance(items, list) else ()))
        return [(text, self.origin("args", at)) for at, text in texts if text]

    @property
    def environment(self) -> dict[str, str]:
        entries = self.value.get("env")
        pairs = [as_mapping(entry) for entry in entries] if isinstance(entries, list) else []
        return {text_of(pair.get("name")): text_of(pair.get("value")) for pair in pairs if pair.get("name")}

    def origin_of_flag(self, flag: str) -> Origin | None:
        """Where the plugin is given a flag, as an argument or else as a variable."""
        for text, place in self.arguments:
            if text == flag or text.startswith(f"{flag}="):
                return place
        variable = ENVIRONMENT_PREFIX + flag.removeprefix("--").replace("-", "_").upper()
        entries = self.value.get("env")
        for at, pair in enumerate(entries if isinstance(entries, list) else ()):
            if as_mapping(pair).get("name") == variable:
                return self.origin("env", at, "value")
        return None

    @property
    def token_attributes(self) -> dict[str, Any] | None:
        value = self.value.get("tokenAttributes")
        return value if isinstance(value, dict) else None


class ProviderConfig(NamedTuple):
    """The configuration.

    Attributes:
        path: as the kubelet is told it.
        documents: the files that could be parsed.
        providers: of all files, in the kubelet's order.
        refusals: why the kubelet would not take it.
        is_whole: whether all its files could be parsed.
    """

    path: str
    documents: tuple[Document, ...]
    providers: tuple[Provider, ...]
    refusals: tuple[Refusal, ...]
    is_whole: bool

    @property
    def origin(self) -> Origin:
        """Where the providers stand, for what is missing among them."""
        if len(self.documents) != 1:
            return Origin(self.path)
        return Origin(self.documents[0].file, self.documents[0].line("providers"))


def load(
    tree: Tree, path: str, version: tuple[int, int] | None, instead: Mapping[str, bytes] = MappingProxyType({})
) -> ProviderConfig:
    """Reads a file, or the files of a directory in byte order.

    Args:
        path: on the node.
        version: of Kubernetes, major and minor; None where that is not known.
        instead: contents of files that are to be taken for what they hold.

    Raises:
        Unreadable: nothing is there, or it may not be read.
    """
    refusals: list[Refusal] = []
    files = [path]
    if tree.is_directory(path):
        files = [posixpath.join(path, name) for name in tree.names(path) if name.endswith(SUFFIXES)]
        files = [file for file in files if not tree.is_directory(file)]
        if not files:
            refusals.append(Refusal(Origin(path), f"no file in the directory ends in {', '.join(SUFFIXES)}"))
        if version is not None and version < DIRECTORY_SINCE:
            refusals.append(
                Refusal(Origin(path), f"it is a directory, which the kubelet {dotted(version)} does not support")
            )
    documents = []
    for file in files:
        try:
            data = instead[file] if file in instead else tree.read(file, MAX_YAML)
            documents.append(loads_yaml(data, file))
        except Syntax as error:
            refusals.append(Refusal(Origin(file, error.line), f"it cannot be parsed: {error.reason}"))
    return _examine(path, documents, refusals, version, is_whole=len(documents) == len(files))


def dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _examine(
    path: str,
    documents: list[Document],
    refusals: list[Refusal],
    version: tuple[int, int] | None,
    *,
    is_whole: bool,
) -> ProviderConfig:
    providers: list[Provider] = []
    for document in documents:
        checker = _Checker(document, version)
        providers += checker.providers(len(providers))
        refusals += checker.refusals
    first: dict[str, Provider] = {}
    for provider in providers:
        other = first.setdefault(provider.name, provider)
        if provider.name and other is not provider:
            reason = f"duplicate provider name {provider.name!r}: here and in {other.origin('name')}"
            refusals.append(Refusal(provider.origin("name"), reason))
    refusals.sort(key=lambda refusal: (refusal.origin.file, refusal.origin.line))
    return ProviderConfig(path, tuple(documents), tuple(providers), tuple(refusals), is_whole)


# -- values -----------------------------------------------------------------------------------------------------------


def text_of(value: Any) -> str:
    """The value where it is a text; else ""."""
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> Iterator[tuple[int, str]]:
    for position, item in enumerate(value if isinstance(value, list) else []):
        if isinstance(item, str):
            yield position, item


_WORDS = NAME.split("-")


def is_nearly_ours(name: str) -> bool:
    """Whether a name is a slip of this program's: each of its words is there, in any order, case and spelling.

    The providers of the clouds have two of the three words, and no slip of the first.
    """
    words = re.split(r"[-_.\s]+", name.lower())
    joined = "".join(words)
    return name != NAME and (
        all(difflib.get_close_matches(word, words, 1, 0.75) for word in _WORDS)
        or (joined.startswith(_WORDS[0]) and bool(difflib.get_close_matches(joined, ["".join(_WORDS)], 1, 0.8)))
    )


# -- the kubelet's rules ----------------------------------------------------------------------------------------------


def _quote(item: Any) -> str:
    """What is reported of a value that is not a string where one is required."""
    kind = {bool: "a boolean", int: "a number", float: "a number", dict: "a mapping", list: "a list"}.get(type(item))
    meant = argument_text(item)
    return f"{kind or 'null'}, expected a string" + (f': write "{meant}"' if meant else "")


class _Checker:
    """Goes through one document and notes what the kubelet refuses."""

    def __init__(self, document: Document, version: tuple[int, int] | None) -> None:
        self._document = document
        self._version = version
        self._later = True
        self.refusals: list[Refusal] = []

    def _refuse(self, path: tuple[str | int, ...], reason: str) -> None:
        self.refusals.append(Refusal(Origin(self._document.file, self._document.line(*path)), reason))

    def providers(self, position: int) -> list[Provider]:
        """The entries; ``position`` is that of the first among those of all files."""
        value = self._document.value
        if not isinstance(value, dict):
            self._refuse((), "it is empty" if value is None else "not a mapping with apiVersion, kind and providers")
            return []
        value = self._known(value, (), ROOT_KEYS)
        version = value.get("apiVersion")
        if not is_config(version):
            self._refuse(("apiVersion",), f"apiVersion is {version!r}, not {API_VERSION}")
        if value.get("kind") != KIND:
            self._refuse(("kind",), f"kind is {value.get('kind')!r}, not {KIND}")
        # The older forms of the configuration know no tokenAttributes.
        self._later = text_of(version).rpartition("/")[2] not in OLDER_VERSIONS
        entries = value.get("providers")
        if not isinstance(entries, list) or not entries:
            self._refuse(("providers",), "providers is missing or empty")
            return []
        found: list[Provider] = []
        for at, entry in enumerate(entries):
            path: tuple[str | int, ...] = ("providers", at)
            if isinstance(entry, dict):
                found.append(self._provider(entry, path, position + len(found)))
            else:
                self._refuse(path, "an entry of providers is not a mapping")
        return found

    def _known(self, value: dict[str, Any], path: tuple[str | int, ...], names: tuple[str, ...]) -> dict[str, Any]:
        """The mapping with typing mistakes in its keys put right; each unknown key is a refusal."""
        known = {key: item for key, item in value.items() if key in names}
        for key, item in value.items():
            if key in names:
                continue
            missing = [name for name in names if name not in known]
            lower = {name.lower(): name for name in missing}
            close = difflib.get_close_matches(key.lower(), lower, 1, 0.8)
            meant = lower[close[0]] if close else ""
            self._refuse((*path, key), f"unknown key {key!r}" + (f"; did you mean {meant}?" if meant else ""))
            if meant:
                known[meant] = item
                self._alias((*path, meant), (*path, key))
        return known

    def _alias(self, path: tuple[str | int, ...], written: tuple[str | int, ...]) -> None:
        """Lets lines be found under the name that was meant."""
        lines = self._document.lines
        found = {(*path, *at[len(written) :]): line for at, line in lines.items() if at[: len(written)] == written}
        lines.update(found)

    def _provider(self, entry: dict[str, Any], path: tuple[str | int, ...], position: int) -> Provider:
        names = ENTRY_KEYS if self._later else ENTRY_KEYS[:-1]
        value = self._known(entry, path, names)
        if not self._later and "tokenAttributes" in entry:
            value["tokenAttributes"] = entry["tokenAttributes"]
        self._name(value, path)
        self._list(value, path, "matchImages", required=True)
        for at, pattern in _texts(value.get("matchImages")):
            if reason := pattern_fault(pattern):
                self._refuse((*path, "matchImages", at), f"matchImages {pattern!r}: {reason}")
        seconds = duration(value.get("defaultCacheDuration"))
        if value.get("defaultCacheDuration") is None:
            self._refuse(path, "defaultCacheDuration is missing")
        elif seconds is None or seconds < 0:
            what = value["defaultCacheDuration"]
            self._refuse((*path, "defaultCacheDuration"), f"defaultCacheDuration {what!r} is not a duration such as 0s")
        if not value.get("apiVersion"):
            self._refuse(path, "apiVersion is missing")
        elif value["apiVersion"] not in PROTOCOLS:
            self._refuse((*path, "apiVersion"), f"apiVersion is {value['apiVersion']!r}, not {PROTOCOL}")
        self._list(value, path, "args", required=False)
        self._environment(value, path)
        if value.get("tokenAttributes") is not None:
            self._token_attributes(value, (*path, "tokenAttributes"))
        return Provider(self._document, path, value, position)

    def _name(self, value: dict[str, Any], path: tuple[str | int, ...]) -> None:
        name = value.get("name")
        if not isinstance(name, str) or not name:
            self._refuse((*path, "name"), "the provider's name is missing")
        elif not is_name(name):
            self._refuse(
                (*path, "name"), f"the name {name!r} is not a valid file name: it has a slash or a space, or is . or .."
            )

    def _list(self, value: dict[str, Any], path: tuple[str | int, ...], key: str, *, required: bool) -> None:
        items = value.get(key)
        if items is None or items == []:
            if required:
                self._refuse((*path, key), f"{key} is missing or empty")
            return
        if not isinstance(items, list):
            self._refuse((*path, key), f"{key} is not a list")
            return
        for at, item in enumerate(items):
            if item is None:
                self._refuse((*path, key, at), f"{key} has an empty entry")
            elif not isinstance(item, str):
                self._refuse((*path, key, at), f"{key} has {_quote(item)}")

    def _environment(self, value: dict[str, Any], path: tuple[str | int, ...]) -> None:
        entries = value.get("env")
        if entries is None:
            return
        if not isinstance(entries, list):
            self._refuse((*path, "env"), "env is not a list")
            return
        for at, entry in enumerate(entries):
            place = (*path, "env", at)
            if not isinstance(entry, dict):
                self._refuse(place, "an entry of env is not a mapping of name and value")
                continue
            for key, item in self._known(entry, place, VARIABLE_KEYS).items():
                if not isinstance(item, str):
                    self._refuse((*place, key), f"env has {_quote(item)}")

    def _token_attributes(self, value: dict[str, Any], path: tuple[str | int, ...]) -> None:
        if not isinstance(value["tokenAttributes"], dict):
            self._refuse(path, "tokenAttributes is not a mapping")
            return
        attributes = value["tokenAttributes"] = self._known(value["tokenAttributes"], path, TOKEN_KEYS)
        if value.get("apiVersion") in PROTOCOLS[1:]:
            have = value["apiVersion"]
            self._refuse(path, f"tokenAttributes needs the provider's apiVersion to be {PROTOCOL}, not {have}")
        audience = attributes.get("serviceAccountTokenAudience")
        if not audience:
            self._refuse(path, "serviceAccountTokenAudience is missing")
        elif not isinstance(audience, str):
            self._refuse(
                (*path, "serviceAccountTokenAudience"),
                "serviceAccountTokenAudience is not a string: it takes one audience",
            )
        required = attributes.get("requireServiceAccount")
        if not isinstance(required, bool):
            here = path if required is None else (*path, "requireServiceAccount")
            self._refuse(here, "requireServiceAccount is missing or not true or false")
        cache_type = attributes.get("cacheType")
        is_known = self._version is None or self._version >= CACHE_TYPE_SINCE
        if cache_type is not None and cache_type not in CACHE_TYPES and is_known:
            self._refuse((*path, "cacheType"), f"cacheType is {cache_type!r}, not {' or '.join(CACHE_TYPES)}")
        self._annotations(attributes, path)

    def _annotations(self, attributes: dict[str, Any], path: tuple[str | int, ...]) -> None:
        keys: dict[str, list[str]] = {}
        for kind in ANNOTATION_KEYS:
            self._list(attributes, path, kind, required=False)
            keys[kind] = [text for _, text in _texts(attributes.get(kind))]
            for at, key in _texts(attributes.get(kind)):
                if not is_annotation_key(key):
                    self._refuse((*path, kind, at), f"{kind} has {key!r}, which is not a valid annotation name")
            if len(set(keys[kind])) < len(keys[kind]):
                self._refuse((*path, kind), f"{kind} has a duplicate key")
        required, optional = keys.values()
        if both := set(required) & set(optional):
            self._refuse(path, f"the annotation {min(both)!r} is both required and optional")
        if required and attributes.get("requireServiceAccount") is False:
            self._refuse((*path, ANNOTATION_KEYS[0]), "requireServiceAccount must be true with required annotations")
