"""Near misses: what keeps a table from an image and a key from a source, in words that are true of the core."""

from __future__ import annotations

import pytest

import conformance
from crio_credential_provider.errors import ConfigError
from crio_credential_provider.explanation import near
from crio_credential_provider.images import dockerconfig, reference
from crio_credential_provider.images.dockerconfig import AuthEntry, DockerConfig
from crio_credential_provider.kubernetes.pullsecrets import PullSecret
from crio_credential_provider.pull import keyring
from crio_credential_provider.runtimes.crio import pullsources, registries
from node import NGINX, TESTS

VECTORS = TESTS / "vectors"
SOURCE = "mirror.corp:5000/hub/library/nginx"

TABLES = [
    ("docker.io/lib", NGINX, "it ends within a component of the name"),
    ("docker.i", NGINX, "it ends within a component of the name"),
    ("mirror.corp:500", "mirror.corp:5000/app", "it ends within a component of the name"),
    ("docker.io/nginx", NGINX, "the full path of this image is library/nginx"),
    ("docker.io/library/nginx/deep", NGINX, "it only covers what is below library/nginx"),
    ("docker.io/library/nginx:1.27", NGINX, "it has a tag or digest, and repositories are looked up without"),
    ("docker.io/bitnami", NGINX, "library/nginx does not begin with bitnami"),
    ("Docker.io", NGINX, "upper and lower case must match"),
    ("registry-1.docker.io", NGINX, "Docker Hub images are named docker.io, not registry-1.docker.io"),
    ("*.corp.example", "corp.example/app", "a wildcard matches hosts below corp.example, not corp.example itself"),
    ("*.example.com", "a.example.com.b.example.com/x", "the first .example.com in the host is not its end"),
    ("*corp.example", "acorp.example/app", "only *. at the beginning is a wildcard"),
    ("mirror.corp:5000", "mirror.corp/app", "the port must match: the image's registry is mirror.corp"),
    ("quay.io", NGINX, ""),
    ("*.quay.io", NGINX, ""),
    ("docker.io", "quay.io/x", ""),
]


@pytest.mark.parametrize(("prefix", "name", "why"), TABLES)
def test_why_a_table_does_not_match(prefix: str, name: str, why: str) -> None:
    assert prefix not in pullsources.possible_prefixes(name)
    found = near.why_table(prefix, name)
    assert (found[1] if found else "").startswith(why) and bool(found) == bool(why)


KEYS = [
    ("mirror.corp:5000/hub2", "hub/library/nginx does not begin with hub2"),
    ("mirror.corp:5000/hub/lib", "it ends within a component of the path"),
    ("mirror.corp:5000/hub/nginx", "hub/library/nginx does not begin with hub/nginx"),
    ("mirror.corp:5000/hub/library/nginx/x", "it only covers what is below hub/library/nginx"),
    ("mirror.corp:5000/hub/library/nginx:1.27", "it has a tag or digest"),
    ("mirror.corp:5000/hub/", "a path that ends with a slash never matches: write mirror.corp:5000/hub"),
    ("mirror.corp:5000/v2", "without https:// its v2 is read as the path of a repository: write mirror.corp:5000"),
    ("Mirror.corp:5000", "upper and lower case must match: write mirror.corp:5000"),
    (" mirror.corp:5000 ", "it has leading or trailing spaces"),
    ("mirror.corp", "the port must match: write mirror.corp:5000"),
    ("https://mirror.corp:443/v1/", "the port must match: write mirror.corp:5000"),
    ("*.corp", "the port must match: write *.corp:5000"),
    ("mirror.corp:5000/v2/", "without https:// its v2 is read as the path of a repository: write mirror.corp:5000"),
    ("mirror.corp:5000/v1/", "without https:// its v1 is read as the path of a repository: write mirror.corp:5000"),
    ("mirror.corp:5000/hub2/", "a path that ends with a slash never matches: write mirror.corp:5000"),
    ("docker://mirror.corp:5000", "a key has no docker://: write mirror.corp:5000"),
    ("HTTPS://mirror.corp:5000/v2/", "a key has no HTTPS://: write mirror.corp:5000"),
    ("//mirror.corp:5000/hub", "it has a slash too many: write mirror.corp:5000/hub"),
    ("MIRROR.corp:5000/Hub/", "upper and lower case must match: write mirror.corp:5000/hub"),
    ("mirror.corp:5000/Hub", "the path must match exactly: write mirror.corp:5000/hub"),
    ("*:5000", "a * matches one label of a host"),
    ("*.corp:5000/hub2", "hub/library/nginx does not begin with hub2"),
    ("docker.io", "docker.io is the registry in the pod's image; mirror.corp:5000 needs a key of its own"),
    ("https://index.docker.io/v1/", "index.docker.io is the registry in the pod's image"),
    ("miror.corp:5000", "miror.corp:5000 is similar to mirror.corp:5000, but not the same"),
    ("https://user:secret@mirror.corp:5000", "a key has no user name: write mirror.corp:5000"),
    ("user@mirror.corp:5000/hub", "a key has no user name: write mirror.corp:5000"),
    *(
        (key, f"a path has no wildcard: it covers all below it: write {meant}")
        for key, meant in (
            ("mirror.corp:5000/hub/*", "mirror.corp:5000/hub"),
            ("mirror.corp:5000/h*/library", "mirror.corp:5000"),
            ("mirror.corp:5000/*", "mirror.corp:5000"),
            ("*.corp:5000/hub/*", "*.corp:5000/hub"),
        )
    ),
    *(
        (key, "a key is one host with an optional path: write mirror.corp:5000")
        for key in (
            *("mirror.corp:5000,quay.io", "quay.io, https://mirror.corp:5000/v2/", "mirror.corp:5000 quay.io"),
            *("mirror.corp:5000?x=1", "https://Mirror.corp:5000?x=1", "mirror.corp:5000#hub", "mirror.corp:5000;"),
        )
    ),
    ("quay.io", ""),
    ("ghcr.io/team", ""),
    ("", ""),
]


@pytest.mark.parametrize(("key", "why"), KEYS)
def test_why_a_key_does_not_serve(key: str, why: str) -> None:
    assert serving([key], SOURCE) == []
    found = near.why_key(key, SOURCE, "docker.io")
    assert (found[1] if found else "").startswith(why) and bool(found) == bool(why)


def serving(keys: list[str], repository: str) -> list[str]:
    """The keys that count for a repository, by the core."""
    entries = {key: AuthEntry("dTpw", "", "", "") for key in keys}
    ring = keyring.Keyring([PullSecret("s", DockerConfig(entries, {}))])
    return [candidate.key for candidate in ring.candidates(repository)]


@pytest.mark.parametrize(("key", "why"), [(key, why) for key, why in KEYS if ": write " in why])
def test_what_it_says_to_write_is_right(key: str, why: str) -> None:
    written = why.rpartition(": write ")[2]
    assert serving([written], SOURCE) == [written]


def test_every_table_of_the_vectors() -> None:
    """Whatever the table and the name: an answer without an error, and never that a matching table misses."""
    told = 0
    for case in conformance.load(VECTORS / "registries.jsonl"):
        given = case["input"]
        try:
            name = reference.parse(given["image"]).name
            config = registries.loads([("main", (given["conf"] or "").encode())], "main")
        except (ConfigError, reference.ReferenceSyntaxError):
            continue
        matching = set(pullsources.possible_prefixes(name))
        for prefix in config.prefixes():
            if prefix not in matching and near.why_table(prefix, name):
                told += 1
            if prefix in matching:
                assert pullsources.find_registry(config, name) is not None
    assert told > 50


def test_every_key_of_the_vectors() -> None:
    told = 0
    for case in conformance.load(VECTORS / "auth.jsonl"):
        given = case["input"]
        try:
            keys = list(dockerconfig.loads(conformance.auth_file(given) or b"{}").auths)
        except ConfigError:
            continue
        try:
            repository = str(given["key"]) if "key" in given else reference.parse(given["ref"]).name
        except reference.ReferenceSyntaxError:
            continue
        counting = serving(keys, repository)
        told += sum(
            near.why_key(key, repository, repository.partition("/")[0]) is not None
            for key in keys
            if key not in counting
        )
    assert told > 30
