"""Whatever bytes come in, a value or a ProviderError comes out, in bounded time and memory.

Each test's first line says what must hold. What hypothesis finds slowly or never, fuzz/ looks for with coverage
(`make fuzz`).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import conformance
from crio_credential_provider import settings as provider_settings
from crio_credential_provider.errors import ProviderError
from crio_credential_provider.images import dockerconfig, reference
from crio_credential_provider.images.dockerconfig import DockerConfig
from crio_credential_provider.kubernetes import credentialprovider, endpoint, pullsecrets, serviceaccount
from crio_credential_provider.pull import decision, keyring
from crio_credential_provider.runtimes.crio import registries
from crio_credential_provider.runtimes.pullsource import PullSource
from crio_credential_provider.testbed import crio
from node import TESTS
from pulls import NAMESPACE, TOKEN, Site, secret_list

VECTORS = TESTS / "vectors"
NAMES = ["docker.io/library/nginx", "quay.io/a/b", "a.example.com:5000/x", "example.com/a"]

bounded = settings(max_examples=2 * settings().max_examples, deadline=None, suppress_health_check=list(HealthCheck))


def holds(function: Callable[..., Any], *arguments: Any) -> Any:
    """The value, or None for a ProviderError, which must fit into a log line; anything else comes through."""
    try:
        return function(*arguments)
    except ProviderError as error:
        assert error.message
        assert len(str(error)) < 4000
        return None


# -- what to feed -----------------------------------------------------------------------------------------------------


def _corpus(kind: str, text: Callable[[dict[str, Any]], bytes | None]) -> list[bytes]:
    found = (text(case["input"]) for case in conformance.load(VECTORS / f"{kind}.jsonl"))
    return sorted({data for data in found if data is not None}, key=lambda data: (len(data), data))


def _conf(given: dict[str, Any]) -> bytes | None:
    return base64.b64decode(given["conf_b64"]) if "conf_b64" in given else (given["conf"] or "").encode()


CONFS = _corpus("registries", _conf)
AUTH_FILES = _corpus("auth", conformance.auth_file)


def mutated(corpus: list[bytes], tokens: list[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes near those of a corpus: cut, repeated, overwritten, spliced, with words of the format put in."""

    def mutate(start: bytes, other: bytes, seed: int, rounds: int) -> bytes:
        dice = random.Random(seed)
        data = bytearray(start)
        for _ in range(rounds):
            position, length = dice.randint(0, len(data)), dice.randint(0, 12)
            kind = dice.randrange(6)
            if kind == 0:
                del data[position : position + length]
            elif kind == 1:
                data[position:position] = dice.choice(tokens)
            elif kind == 2:
                data[position : position + 1] = bytes([dice.randrange(256)])
            elif kind == 3:
                data[position:position] = data[position : position + length] * dice.randint(1, 4)
            elif kind == 4:
                at = dice.randint(0, len(other))
                data[position:] = other[at : at + 200]
            else:
                data[position : position + len(dice.choice(tokens))] = dice.choice(tokens)
        return bytes(data[:20_000])

    one = st.sampled_from(corpus)
    return st.one_of(
        st.binary(max_size=60),
        st.builds(mutate, one, one, st.integers(0, 2**32), st.integers(1, 8)),
    )


TOML_TOKENS = [
    *(
        b"[[registry]]\n",
        b"[[registry.mirror]]\n",
        b"[aliases]\n",
        b"[registries.search]\n",
        b"registries=",
        b"[",
        b"]",
    ),
    *(b"location=", b"prefix=", b"blocked=", b"insecure=", b"mirror=", b"pull-from-mirror=", b"short-name-mode="),
    *(
        b"unqualified-search-registries=",
        b"credential-helpers=",
        b"*.",
        b'"',
        b"'",
        b'"""',
        b"{",
        b"}",
        b"=",
        b".",
        b",",
    ),
    *(b"\n", b"\r\n", b"#", b"\\u0000", b"\\ud800", b"\xff\xfe", b"\xef\xbb\xbf", b"true", b"1e400", b"nan", b"-0x1"),
    *(b"9223372036854775808", b"0000-00-00", b"07:32", b"2026-13-32T25:61:61Z", b"a.b.c", b"K", b"\xe2\x84\xaa"),
]
JSON_TOKENS = [
    *(
        b'"auths":',
        b'"auth":',
        b'"identitytoken":',
        b'"credHelpers":',
        b'"username":',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
    ),
    *(
        b'"dTpw"',
        b'"\\ud800"',
        b'"\\u0000"',
        b"null",
        b"true",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-",
        b"\\",
        b"\xff",
        b'""',
    ),
    *(b'"https://h/v1/":{}', b'"*.corp":{}', b'"h":{"auth":"="}', b"\xef\xbb\xbf", b"123456789012345678901234567890"),
]
confs, auth_files = mutated(CONFS, TOML_TOKENS), mutated(AUTH_FILES, JSON_TOKENS)

# Lone surrogates come out of JSON's \ud800.
texts = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["\ud800", "h.corp", "*.corp", "https://h.corp/v1/", "dTpw"]
)
plain = st.none() | st.booleans() | st.integers() | st.floats() | texts


def documents(*keys: str) -> st.SearchStrategy[Any]:
    """JSON values whose objects have these keys more often than not."""
    names = st.sampled_from(keys) | texts
    return st.recursive(
        plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5), max_leaves=20
    )


# -- the invariant ----------------------------------------------------------------------------------------------------


@given(confs, st.lists(confs, max_size=2), st.sampled_from(NAMES))
@bounded
def test_registries_conf(conf: bytes, drop_ins: list[bytes], name: str) -> None:
    """Any bytes in registries.conf and drop-ins give a configuration with pull sources or a ProviderError."""
    contents = [("/main", conf), *((f"/{n}.conf", data) for n, data in enumerate(drop_ins))]
    config = holds(registries.loads, contents, "/main")
    if config is not None:
        kept = registries._from_kept(json.loads(json.dumps(registries._to_kept(config))))
        image = reference.parse(name)
        assert holds(decision.find_sources, kept, image) == holds(decision.find_sources, config, image)


@given(st.text(max_size=80) | st.text(alphabet="aA0.-_/:@*[]", max_size=80))
@bounded
def test_references(text: str) -> None:
    """Any text is a reference that can be looked up and named again, or a ProviderError."""
    parsed = holds(reference.parse, text)
    if parsed is not None:
        assert reference.parse(str(parsed)) == parsed
        holds(decision.find_sources, registries.Configuration(), parsed)
    holds(reference.parse_literal, text)


@given(auth_files, st.sampled_from([*NAMES, "h/a", "", "/", "a//b"]))
@bounded
def test_auth_files(data: bytes, key: str) -> None:
    """Any bytes as auth file give a login, none, or a ProviderError."""
    holds(crio.find_login, data, key, ["containers-auth.json"])
    holds(dockerconfig.loads_dockercfg, data)


def read_back(config: DockerConfig) -> None:
    """What is selected from a docker config can be written, and is what CRI-O then finds."""
    sources = [PullSource(f"{name}:latest", name, "", False, False, False, ("tag",)) for name in NAMES]
    selection = keyring.select(sources, [pullsecrets.PullSecret("s", config)], config, lambda source: True)
    data = dockerconfig.dumps({c.source.name: c.credential for c in selection.choices}, selection.cred_helpers)
    for choice in selection.choices:
        if dockerconfig.host_of(choice.source.name) not in selection.cred_helpers:
            assert crio.find_login(data, choice.source.name, ["containers-auth.json"]) is not None


@given(auth_files)
@bounded
def test_secret_data(data: bytes) -> None:
    """Any bytes in a secret give a keyring whose choices CRI-O can read back, or a reason to skip it."""
    item = {"metadata": {"name": "s"}, "type": pullsecrets.DOCKER_CONFIG_JSON}
    item["data"] = {".dockerconfigjson": base64.b64encode(data).decode()}
    found = pullsecrets.loads([item], NAMESPACE)
    assert len(found.secrets) + len(found.skipped) == 1
    for secret in found.secrets:
        read_back(secret.config)


entries = documents("auth", "identitytoken", "username", "password")
maps = st.dictionaries(
    st.sampled_from(["https://index.docker.io/v1/", *NAMES, "quay.io", "*.io", "*.*"]) | texts, entries
)


@given(st.fixed_dictionaries({"auths": maps}))
@bounded
def test_secret_documents(document: Any) -> None:
    """Any document in a secret, well formed or not, gives a keyring that CRI-O can read back, or a ProviderError."""
    config = holds(dockerconfig.loads, json.dumps(document).encode())
    if config is not None:
        read_back(config)


SECRET_KEYS = ("metadata", "name", "namespace", "type", "data", ".dockerconfigjson", ".dockercfg", "items", "continue")
items = documents(*SECRET_KEYS) | st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries({"name": texts, "namespace": st.just(NAMESPACE) | plain}) | plain,
        "type": st.sampled_from([pullsecrets.DOCKER_CONFIG_JSON, pullsecrets.DOCKER_CFG]) | plain,
        "data": st.dictionaries(st.sampled_from([".dockerconfigjson", ".dockercfg"]), plain) | plain,
    }
)
CONF = '[[registry]]\nlocation="docker.io"\n[[registry.mirror]]\nlocation="mirror.corp"\n'


@example([], {"continue": "\ud800"})
@given(st.lists(items, max_size=4), documents("continue"))
@bounded
def test_secret_lists(found: list[Any], metadata: Any) -> None:
    """Any items in a SecretList, and any metadata, give a resolution or a ProviderError."""

    class Cluster:
        def __init__(self) -> None:
            self.pages = 3

        def get(self, path: str, token: str = "") -> dict[str, Any]:
            self.pages -= 1
            path.encode("ascii")
            return secret_list(found) | ({"metadata": metadata} if self.pages else {})

    with tempfile.TemporaryDirectory() as scratch:
        Site(Path(scratch), conf=CONF)
        given_settings = provider_settings.loads([f"--root={scratch}"], {})
        holds(decision.resolve, credentialprovider.Request(NAMES[0], TOKEN), given_settings, Cluster)


REQUEST_KEYS = ("kind", "apiVersion", "image", "serviceAccountToken", "serviceAccountAnnotations")
requests = documents(*REQUEST_KEYS) | st.fixed_dictionaries(
    {
        "kind": st.just("CredentialProviderRequest") | plain,
        "apiVersion": st.just(credentialprovider.API_VERSION) | plain,
        "image": texts | plain,
        "serviceAccountToken": texts | plain,
    }
)


@given(st.binary(max_size=80) | requests.map(lambda document: json.dumps(document).encode()))
@bounded
def test_requests(data: bytes) -> None:
    """Any bytes on standard input give a request that can be resolved, or a ProviderError."""
    request = holds(credentialprovider.loads, data)
    if request is not None:
        with tempfile.TemporaryDirectory() as scratch:
            holds(decision.resolve, request, provider_settings.loads([f"--root={scratch}"], {}), lambda: None)


def jwt(payload: bytes) -> str:
    return f"h.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.s"


claims = documents("kubernetes.io", "namespace", "serviceaccount", "name", "pod", "uid", "aud", "exp")
bound = st.fixed_dictionaries(
    {
        "kubernetes.io": st.fixed_dictionaries(
            {"namespace": st.just("a") | plain, "serviceaccount": st.just({"name": "b"}) | plain, "pod": claims}
        ),
        "aud": claims,
        "exp": plain,
    }
)


@given(
    texts
    | st.builds("{}.{}.{}".format, texts, texts, texts)
    | st.binary(max_size=40).map(jwt)
    | (claims | bound).map(lambda document: jwt(json.dumps(document).encode()))
)
@bounded
def test_tokens(token: str) -> None:
    """Any token gives names that are safe in a path and a URL, or a ProviderError."""
    account = holds(serviceaccount.loads, token)
    if account is not None:
        for name in (account.namespace, account.name, account.pod):
            assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
        assert ".." not in account.namespace + account.name + account.pod


YAML_TOKENS = [
    *(
        b"!!int ",
        b"!!bool x",
        b"!!timestamp x",
        b"!!float ",
        b"!!binary ",
        b"!!set ",
        b"!!python/none ",
        b"!!omap ",
        b"- ",
        b": ",
    ),
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"? ",
        b"|\n",
        b">\n",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\t",
        b"'",
        b'"',
        b"%YAML 9\n",
        b"--- ",
        b"...\n",
    ),
    *(
        b"2026-13-32",
        b"0b",
        b"1:99",
        b"0x",
        b"~",
        b"server: ",
        b"https://[::1",
        b"clusters:\n",
        b"current-context: 5\n",
    ),
]
KUBECONFIG = (
    b"current-context: c\ncontexts:\n- name: c\n  context: {cluster: k, user: u}\nclusters:\n- name: k\n  cluster:\n"
    b"    server: https://10.0.0.1:6443\n    certificate-authority-data: aGFsbG8=\nusers:\n- name: u\n  user: {}\n"
)


def find_endpoint(kubeconfig: bytes) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "kubeconfig").write_bytes(kubeconfig)
        flags = [f"--root={scratch}", f"--kubeconfig={scratch}/kubeconfig"]
        holds(endpoint.find_endpoint, provider_settings.loads(flags, {}))


@given(mutated([KUBECONFIG, b"{}"], YAML_TOKENS))
@bounded
def test_kubeconfigs(data: bytes) -> None:
    """Any bytes as kubeconfig give an API server or a ProviderError."""
    find_endpoint(data)


ODD_TAGS = [
    "!!int ''",
    "!!int '-'",
    "!!float ''",
    "!!bool x",
    "!!timestamp x",
    "!!binary '%'",
    "!!set [a]",
    "!!omap [a]",
]


@pytest.mark.parametrize("value", ODD_TAGS)
def test_kubeconfigs_with_tags_that_do_not_fit(value: str) -> None:
    """A YAML tag that its value does not fit, for which PyYAML raises what it likes, is a ProviderError."""
    find_endpoint(f"current-context: {value}\n".encode())


@given(
    st.binary(max_size=80) | mutated([b"KUBERNETES_SERVICE_HOST='h'\nKUBERNETES_SERVICE_PORT=1\n"], [b"[", b":", b"="])
)
@bounded
def test_environment_files(data: bytes) -> None:
    """Any bytes in apiserver-url.env give an API server or a ProviderError."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "etc/kubernetes/apiserver-url.env")
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
        holds(endpoint.find_endpoint, provider_settings.loads([f"--root={scratch}"], {}))


# -- known killers ----------------------------------------------------------------------------------------------------

MEGA = 1_000_000


def load_registries(data: bytes) -> Any:
    return registries.loads([("/main", data)], "/main")


def load_and_look_up(data: bytes) -> Any:
    return crio.find_login(data, "h.corp/a/b", ["containers-auth.json"])


def match_glob(pattern: str) -> Any:
    return [keyring.matches_host(pattern, host) for host in ("a" * 63 + ".corp", "a" * MEGA, "a." * 1000)]


def parse_both(text: str) -> None:
    holds(reference.parse, text)
    holds(reference.parse_literal, text)
    reference.is_domain(text)


TABLES = b"".join(
    b'[[registry]]\nlocation = "r%d.example"\n[[registry.mirror]]\nlocation = "mirror.corp/%d"\n' % (n, n)
    for n in range(100_000)
)

KILLERS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "toml-10MB-brackets": (load_registries, b"[" * 10 * MEGA),
    "toml-10MB-array": (load_registries, b"a=" + b"[" * 10 * MEGA),
    "toml-10MB-inline-tables": (load_registries, b"a=" + b"{a=" * 3 * MEGA),
    "toml-10MB-dotted-key": (load_registries, b"a." * 5 * MEGA + b"a=1"),
    "toml-10MB-dotted-header": (load_registries, b"[" + b"a." * 5 * MEGA + b"a]"),
    "toml-long-dotted-keys": (load_registries, b"".join(b"k%d.%sa=1\n" % (n, b"a." * 900) for n in range(200))),
    "toml-10MB-x": (load_registries, b"x" * 10 * MEGA),
    "toml-10MB-blank": (load_registries, b"\n" * 10 * MEGA),
    "toml-10MB-open-string": (load_registries, b'a="' + b"x" * 10 * MEGA),
    "toml-10MB-escapes": (load_registries, b'a="' + b"\\\\" * 5 * MEGA),
    "toml-10MB-quotes": (load_registries, b'a="""' + b'"x' * 5 * MEGA),
    "toml-10MB-digits": (load_registries, b"a=" + b"1" * 10 * MEGA),
    "toml-10MB-hex": (load_registries, b"a=0x" + b"f" * 10 * MEGA),
    "toml-10MB-fraction": (load_registries, b"a=1." + b"1" * 10 * MEGA),
    "toml-10MB-location": (load_registries, b'[[registry]]\nlocation="http://' + b"x" * 10 * MEGA + b'"'),
    "toml-10MB-alias": (load_registries, b'[aliases]\n"' + b"a-" * 5 * MEGA + b'"="a.b/c"'),
    "toml-100000-tables": (load_registries, TABLES),
    "toml-100000-tables-of-one-location": (load_registries, b'[[registry]]\nlocation="a.b"\n' * 100_000),
    "toml-100000-mirrors": (
        load_registries,
        b'[[registry]]\nlocation="a.b"\n' + b'[[registry.mirror]]\nlocation="a.b"\n' * 100_000,
    ),
    "json-10MB-brackets": (load_and_look_up, b"[" * 10 * MEGA),
    "json-10MB-objects": (load_and_look_up, b'{"auths":' * MEGA),
    "json-10MB-closed-brackets": (load_and_look_up, b"[" * 5 * MEGA + b"]" * 5 * MEGA),
    "json-10MB-digits": (load_and_look_up, b'{"auths":' + b"1" * 10 * MEGA + b"}"),
    "json-10MB-fraction": (load_and_look_up, b'{"auths":1.' + b"1" * 10 * MEGA + b"}"),
    "json-10MB-open-string": (load_and_look_up, b'{"' + b"a" * 10 * MEGA),
    "json-10MB-auth-file": (
        load_and_look_up,
        json.dumps({"auths": {f"h{n}.corp/p": {"auth": "dTpw" * 10} for n in range(130_000)}}).encode(),
    ),
    "json-10MB-equal-keys": (load_and_look_up, b'{"auths":{' + b'"h.corp":{"auth":"dTpw"},' * 400_000 + b'"h":{}}}'),
    "json-10MB-auth": (load_and_look_up, b'{"auths":{"h.corp":{"auth":"' + b"dTpw" * 2_500_000 + b'"}}}'),
    "json-10MB-line-breaks": (load_and_look_up, b'{"auths":{"h.corp":{"auth":"' + b"\\n" * 5 * MEGA + b'"}}}'),
    **{
        f"reference-1MB-{name}": (parse_both, text)
        for name, text in {
            "slashes": "/" * MEGA,
            "dots": "." * MEGA,
            "dashes": f"a{'-' * MEGA}a",
            "underscores": f"a{'_' * MEGA}a",
            "colons": ":" * MEGA,
            "ats": "@" * MEGA,
            "components": "a/" * (MEGA // 2) + "a",
            "labels": "a." * (MEGA // 2) + "a/b",
            "separators": "a__a-a." * (MEGA // 7) + "a",
            "separators-that-end-badly": "a-" * (MEGA // 2) + "!",
        }.items()
    },
    "glob-stars": (match_glob, "*a*a*a*a*b"),
    "glob-stars-in-many-labels": (match_glob, "*a*a*a*a*b." * 1000),
    "glob-1MB": (match_glob, "*a" * (MEGA // 2) + "b"),
    "request-10MB-brackets": (credentialprovider.loads, b"[" * 10 * MEGA),
    "request-1MB-image": (parse_both, "docker.io/" + "a" * MEGA),
    "token-10MB": (serviceaccount.loads, "a" * 10 * MEGA),
    "token-10MB-dots": (serviceaccount.loads, "." * 10 * MEGA),
    "token-deep-claims": (serviceaccount.loads, jwt(b"[" * MEGA)),
}

# Measured: at most 4 s (toml-10MB-hex, toml-100000-tables) on two cores of a cloud machine. What is not linear in these
# sizes takes minutes at least.
LIMIT = 30


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Without coverage's tracer, which takes ten times as long as what is measured."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLERS)
def test_no_input_takes_more_than_a_few_seconds(name: str) -> None:
    """Known killers of parsers are answered in bounded time."""
    function, data = KILLERS[name]
    with untraced():
        start = time.process_time()
        holds(function, data)
        took = time.process_time() - start
    assert took < LIMIT, f"{name}: {took:.1f} s of CPU, at most {LIMIT} s"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["toml-10MB-brackets", "toml-10MB-dotted-key", "toml-100000-tables", "json-10MB-auth-file"]
)
def test_no_input_takes_more_than_its_share_of_memory(name: str) -> None:
    """A 10 MB file is answered in 1 GiB of address space, start-up included: beyond it is a MemoryError."""
    places = f"{TESTS}:{Path(__file__).parent}"
    code = (
        "import resource, sys; sys.path[:0] = sys.argv[1].split(':'); import test_fuzz as t; "
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); "
        "function, data = t.KILLERS[sys.argv[2]]; t.holds(function, data)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", code, places, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("depth", [10, 100, 500, 900, 990, 1500, 100_000])
def test_deep_nesting_is_a_value_or_an_error(depth: int) -> None:
    """No depth of nesting gets past the parsers to where it could do harm."""
    nested = b"[" * depth + b"]" * depth
    holds(load_and_look_up, b'{"auths": {}, "x": ' + nested + b"}")
    holds(load_and_look_up, b'{"auths": {"h.corp": ' + nested + b"}}")
    holds(load_registries, b"x = " + nested)
    holds(load_registries, b"x." * depth + b"x = 1")
    holds(serviceaccount.loads, jwt(b'{"kubernetes.io": ' + nested + b"}"))
    content = base64.b64encode(b'{"auths": ' + nested + b"}").decode()
    item: dict[str, Any] = {"metadata": {"name": "s"}, "type": pullsecrets.DOCKER_CONFIG_JSON}
    assert pullsecrets.loads([item | {"data": {".dockerconfigjson": content}}], NAMESPACE).skipped
    try:
        deep = json.loads(nested)
    except RecursionError:
        return
    assert pullsecrets.loads([item | {"type": deep}, item | {"data": deep}, deep], NAMESPACE).skipped
