"""What containerd's own code answered, release by release, held against our readings of the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crio_credential_provider.errors import ConfigError
from crio_credential_provider.platform.parsecache import ParseCache
from crio_credential_provider.runtimes.containerd import config, hosts
from crio_credential_provider.runtimes.containerd.goaddress import is_localhost
from crio_credential_provider.runtimes.containerd.hosts import Host
from crio_credential_provider.runtimes.containerd.readings import READINGS, V1_6, V1_7, V2_0, V2_2, V2_3
from node import TESTS

Case = dict[str, Any]

COUNTS = {"hosts": 492, "config": 330}
RELEASES = {"1.6.20": V1_6, "1.7.34": V1_7, "2.0.11": V2_0, "2.2.7": V2_2, "2.3.4": V2_3}
CASES: dict[str, list[Case]] = {
    kind: [json.loads(line) for line in (TESTS / f"vectors/containerd-{kind}.jsonl").read_text().splitlines()]
    for kind in COUNTS
}
ALL = [case for cases in CASES.values() for case in cases]
NO_CACHE = ParseCache("", "none")
MAIN = "etc/containerd/config.toml"

CERTIFICATES = {"hosts-0185", "hosts-0190", "hosts-0391", "hosts-0392", "hosts-0394", "hosts-0395"}
"""Every pull fails for a certificate's file, and these are not looked at."""
NOT_LOOKED_AT = {f"config-{number:04}" for number in (*range(194, 198), *range(202, 210), 211, 225)}
NOT_LOOKED_AT |= {f"config-{number:04}" for number in (316, 317, 318, 320, 321, 322, 323, 330)}
"""Refused, by some releases or by all, for what says nothing of hosts: credentials, headers, other settings."""
REFUSED_BY_US = {f"config-{number:04}" for number in (*range(32, 35), *range(39, 44), *range(94, 97), 108, 109)}
REFUSED_BY_US |= {"config-0169", "config-0309", "config-0312"}
"""Taken by some releases: other capital letters, a negative version, types that are wrong for the others alone, a byte
order mark."""
MORE_THAN_ASKED = {"hosts-0295", "hosts-0299", "config-0146"}
"""What is no TOML and no URL, of which containerd 1 takes the one host or none that it can connect to, and 2.3 none."""
ON_ONE_LINE = {"hosts-0252", "hosts-0332"}
"""containerd 1 sorts hosts by their lines, and those of one line in no order."""


def tree(case: Case, root: Path) -> Path:
    for path, text in case["input"]["files"].items():
        place = root / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode())
    for path in case["input"].get("directories", ()):
        (root / path[1:]).mkdir(parents=True, exist_ok=True)
    for path, target in case["input"].get("links", {}).items():
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (root / path[1:]).symlink_to(f"{root}{target}")
    return root


def is_for(case: Case, reading: str, root: Path) -> bool:
    """Whether somebody would give the files to a release: none before 2.3 has a version 4, none before 2.0 a version 3,
    though 1.6 does not look."""
    versions = [form["version"] for _, form in config.read(f"{root}/{MAIN}", str(root), NO_CACHE, reading)] or [0]
    if reading == V1_6:
        return max(versions, default=0) <= 2
    return reading == V2_3 or bool(versions[0] <= 3)


def asked(host: Host) -> list[Any]:
    """As a vector has a host."""
    fallback = host.plain_http and host.scheme == "https"
    return [host.scheme, host.host, host.path, [*host.capabilities], host.skip_verify, fallback, [*host.headers]]


def seen(found: list[list[Any]], reading: str) -> list[list[Any]]:
    """What is compared: containerd 1.6 speaks plain HTTP at once where later ones try TLS, and always to localhost."""
    if reading != V1_6:
        return found
    plain = [["http", *host[1:5], False, host[6]] if host[5] else host for host in found]
    return [[*host[1:4], host[6]] if is_localhost(host[1]) else host for host in plain]


def compare(case: Case, answer: Case, reading: str, root: Path) -> list[tuple[str, Any, Any]]:
    """What, ours, containerd's."""
    try:
        outcomes = config.outcomes_of(reading, config.read(f"{root}/{MAIN}", str(root), NO_CACHE, reading))
    except ConfigError as error:
        return [] if "config_error" in answer or case["id"] in REFUSED_BY_US else [("config", str(error), answer)]
    if "config_error" in answer:
        is_known = not outcomes or case["id"] in NOT_LOOKED_AT
        return [] if is_known else [("config", repr(outcomes), answer["config_error"])]
    ours = (outcomes[0].config_path, outcomes[0].mirrors) if outcomes else None
    if ours != (answer["config_path"], answer["mirrors"]):
        return [("config", ours, (answer["config_path"], answer["mirrors"]))]
    configuration = config.Configuration(
        config.directories(ours[0], str(root)), ours[1], "config.toml", insecure=insecure(outcomes[0], reading)
    )
    try:
        domain = case["input"]["domain"]
        directory = hosts.find_directory(configuration.config_path, domain)
        lists = hosts.each_reading(configuration, domain, directory, NO_CACHE, [], [])[reading]
    except ConfigError as error:
        return [] if "error" in answer else [("hosts", str(error), answer["hosts"])]
    if "error" in answer:
        return [] if case["id"] in CERTIFICATES | MORE_THAN_ASKED else [("hosts", lists, answer["error"])]
    expected = seen(answer["hosts"], reading)
    told = [seen([asked(host) for host in found], reading) for found in lists]
    if case["id"] in ON_ONE_LINE:
        expected, told = sorted(expected), [sorted(found) for found in told]
    return [] if expected in told or case["id"] in MORE_THAN_ASKED else [("hosts", told, expected)]


def insecure(outcome: config.Outcome, reading: str) -> tuple[str, ...]:
    configs = outcome.registry.get("configs", {}) if reading in (V1_6, V1_7) else {}
    return tuple(host for host, entry in configs.items() if entry["insecure"])


@pytest.mark.parametrize("kind", COUNTS)
def test_the_corpus_is_whole(kind: str) -> None:
    assert len(CASES[kind]) == COUNTS[kind] == len({case["id"] for case in CASES[kind]})
    for case in CASES[kind]:
        assert set(case) == {"id", "family", "input", "answers"}
        assert set(case["input"]) <= {"files", "domain", "links", "directories"}
        assert sorted(release for answer in case["answers"] for release in answer["of"]) == [*RELEASES]


@pytest.mark.parametrize("family", sorted({case["family"] for case in ALL}))
def test_each_reading_is_that_of_its_release(family: str, tmp_path: Path) -> None:
    disagreements = []
    for case in (case for case in ALL if case["family"] == family):
        root = tree(case, tmp_path / case["id"])
        for answer in case["answers"]:
            for release in answer["of"]:
                reading = RELEASES[release]
                try:
                    if not is_for(case, reading, root):
                        continue
                except ConfigError:
                    pass
                for what, ours, expected in compare(case, answer, reading, root):
                    disagreements.append(f"{case['id']} {release} {what}\n  ours:     {ours}\n  expected: {expected}")
    assert not disagreements, "\n".join(disagreements)


@pytest.mark.parametrize("family", sorted({case["family"] for case in ALL}))
def test_no_release_asks_a_host_that_we_do_not_know_of(family: str, tmp_path: Path) -> None:
    """Whichever release runs: a credential is given away where it asks one that was not thought of."""
    unknown = []
    for case in (case for case in ALL if case["family"] == family):
        root = tree(case, tmp_path / case["id"])
        try:
            configuration = config.load(f"{root}/{MAIN}", str(root), NO_CACHE)
            found = hosts.hosts_for(configuration, case["input"]["domain"], NO_CACHE)
        except ConfigError:
            continue  # no credential is given
        known = {host.host for host in found.hosts}
        for answer in case["answers"]:
            for release in answer["of"]:
                if is_for(case, RELEASES[release], root):
                    # Which way containerd from 2.1 pulls is seen in its configuration.
                    name = "transfer_hosts" if "transfer_hosts" in answer else "hosts"
                    really = {host for _, host, *_ in answer.get(name, ()) if host}
                    unknown += [(case["id"], release, host) for host in really - known]
    assert not unknown


def test_the_exceptions_are_cases() -> None:
    ids = {case["id"] for case in ALL}
    assert ids >= CERTIFICATES | NOT_LOOKED_AT | REFUSED_BY_US | MORE_THAN_ASKED | ON_ONE_LINE
    assert tuple(RELEASES.values()) == READINGS
