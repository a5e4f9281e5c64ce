#!/usr/bin/env python3
"""Coverage-guided fuzzing with atheris: `make fuzz`, or python fuzz/fuzz.py TARGET [libFuzzer's options].

Each target's docstring is its invariant. The corpus is made from tests/vectors in a temporary directory; an input that
breaks an invariant is left in build/fuzz/, and `python fuzz/fuzz.py TARGET FILE` runs it again.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
VECTORS = ROOT / "tests" / "vectors"
RECORDINGS = ROOT / "tests" / "recordings"

with atheris.instrument_imports(include=["crio_credential_provider", "tomli"]):
    import tomli  # noqa: F401  # imported by registries only when it is needed

    from crio_credential_provider.errors import ProviderError
    from crio_credential_provider.images import dockerconfig, reference
    from crio_credential_provider.kubernetes import credentialprovider, pullsecrets, serviceaccount
    from crio_credential_provider.pull import decision, keyring
    from crio_credential_provider.runtimes.crio import registries
    from crio_credential_provider.runtimes.pullsource import PullSource
    from crio_credential_provider.testbed import crio

IMAGES = [
    reference.parse(name) for name in ("nginx", "quay.io/a/b", "a.example.com:5000/x", "example.com/a", "localhost/a")
]
NAMES = [image.name for image in IMAGES]
FILE_HELPER = ["containers-auth.json"]
# No file of the formats may hold this byte.
SEPARATOR = b"\x1e"


def holds(function: Callable[..., Any], *arguments: Any) -> Any:
    """The value, or None for a ProviderError."""
    try:
        return function(*arguments)
    except ProviderError as error:
        assert error.message and len(str(error)) < 4000
        return None


# -- targets ----------------------------------------------------------------------------------------------------------


def fuzz_registries(data: bytes) -> None:
    """Any bytes as main file and drop-ins give pull sources, the same from the kept form, or a ProviderError."""
    contents = [(str(number), part) for number, part in enumerate(data.split(SEPARATOR)[:4])]
    config = holds(registries.loads, contents, "0")
    if config is None:
        return
    kept = registries._from_kept(json.loads(json.dumps(registries._to_kept(config))))
    for image in IMAGES:
        found = holds(decision.find_sources, config, image)
        assert found == holds(decision.find_sources, kept, image)
        for source in found[0] if found else ():
            assert reference.parse(source.reference).name == source.name


def fuzz_auth_file(data: bytes) -> None:
    """Any bytes as auth file give a login, none, or a ProviderError."""
    for name in (*NAMES, "h", "h/a/b"):
        holds(crio.find_login, data, name, FILE_HELPER)
    holds(dockerconfig.loads_dockercfg, data)


def fuzz_secret(data: bytes) -> None:
    """Any bytes in a secret give choices that CRI-O reads back from the file, or a reason to skip the secret."""
    item: dict[str, Any] = {"metadata": {"name": "s"}, "type": pullsecrets.DOCKER_CONFIG_JSON}
    item["data"] = {".dockerconfigjson": base64.b64encode(data).decode()}
    found = pullsecrets.loads([item], "n")
    assert len(found.secrets) + len(found.skipped) == 1
    for secret in found.secrets:
        sources = [PullSource(f"{name}:latest", name, "", False, False, False, ("tag",)) for name in NAMES]
        selection = keyring.select(sources, [secret], secret.config, lambda source: True)
        choices = {choice.source.name: choice for choice in selection.choices}
        written = dockerconfig.dumps({name: choice.credential for name, choice in choices.items()}, {})
        for name in choices:
            login = crio.find_login(written, name, FILE_HELPER)
            assert login is not None and login.key == name


def fuzz_request(data: bytes) -> None:
    """Any bytes as request, and any as a token's claims, give a value that is safe in a path, or a ProviderError."""
    request = holds(credentialprovider.loads, data)
    tokens = [f"h.{base64.urlsafe_b64encode(data).rstrip(b'=').decode()}.s"]
    if request is not None:
        tokens.append(request.token)
        holds(reference.parse, request.image)
    for token in tokens:
        account = holds(serviceaccount.loads, token)
        if account is not None:
            names = account.namespace + account.name + account.pod
            assert set(names) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") and ".." not in names


# -- corpora ----------------------------------------------------------------------------------------------------------


def inputs(kind: str) -> Iterator[dict[str, Any]]:
    for line in (VECTORS / f"{kind}.jsonl").read_text().splitlines():
        yield json.loads(line)["input"]


def registries_corpus() -> Iterator[bytes]:
    for given in inputs("registries"):
        main = base64.b64decode(given["conf_b64"]) if "conf_b64" in given else (given["conf"] or "").encode()
        yield SEPARATOR.join([main, *(text.encode() for text in given["dropins"].values())])


def auth_corpus() -> Iterator[bytes]:
    for given in inputs("auth"):
        if "authfile_text" in given:
            yield given["authfile_text"].encode()
        elif "authfile" in given:
            yield json.dumps(given["authfile"]).encode()


def request_corpus() -> Iterator[bytes]:
    for file in sorted((RECORDINGS / "kubelet").glob("*.json")):
        data = file.read_bytes()
        yield data
        payload = json.loads(data).get("serviceAccountToken", "..").split(".")[1]
        yield base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], Iterator[bytes]]]] = {
    "registries": (fuzz_registries, registries_corpus),
    "auth_file": (fuzz_auth_file, auth_corpus),
    "secret": (fuzz_secret, auth_corpus),
    "request": (fuzz_request, request_corpus),
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in TARGETS:
        print(f"usage: fuzz.py {'|'.join(TARGETS)} [FILE | libFuzzer's options]", file=sys.stderr)
        return 2
    target, *options = arguments
    function, corpus = TARGETS[target]
    findings = ROOT / "build" / "fuzz"
    findings.mkdir(parents=True, exist_ok=True)
    limits = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=4096", "-verbosity=0", "-print_final_stats=1"]
    with tempfile.TemporaryDirectory() as seeds:
        for number, data in enumerate(corpus()):
            Path(seeds, f"{number:04}").write_bytes(data)
        if all(option.startswith("-") for option in options):
            options.append(seeds)
        command = [sys.argv[0], f"-artifact_prefix={findings}/{target}-", *limits, *options]
        atheris.Setup(command, function)
        print(f"fuzz: {target}: {function.__doc__}", flush=True)
        # Leaves the process: with 0 after -max_total_time, else with the fault that was found.
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
