"""``audit --output html``, ``sarif`` and ``junit``: valid, complete, bounded, and safe whatever names there are."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import junitparser
import pytest
from sarif_kit import validate

from auditing import (
    CONF,
    FAULTS,
    IMAGE,
    MIRROR,
    PASSWORD,
    USER,
    Ran,
    account,
    cluster_objects,
    docker_config,
    faulty_cluster,
    grant,
    pod,
    run,
    secret,
    workload,
    write_list,
)
from crio_credential_provider.audit.result import NOT_CHECKED, OUTCOMES, REASONS, Audit, Count, Holder, Pull
from crio_credential_provider.commands.auditing import junit, page, sarif

Form = Callable[..., Ran]
OTHER = secret("other", "s", docker_config(MIRROR))
"""So that secrets were read, and somebody has a credential for the mirror."""
HOSTILE = "<script>alert('x')</script>&\"\x1b[31m\x00\x08\ud800\ufffe\u202e\u2028ü]]>"


@pytest.fixture
def form(tmp_path: Path) -> Form:
    """Runs the command on objects with one form of output."""
    conf = tmp_path / "registries.conf"
    conf.write_text(CONF)
    (tmp_path / "none").write_text("{}")

    def of(name: str, objects: Iterable[Any], *flags: str) -> Ran:
        file = write_list(tmp_path / "all.json", objects)
        return run(file, f"--registries-conf={conf}", f"--global-auth-file={tmp_path}/none", "-o", name, *flags)

    return of


def audit_of(number: int, outcome: str = "fails", reason: str = "no-secret") -> Audit:
    """One of so many pulls, each of a namespace of its own."""
    pulls = [
        Pull(
            *(f"namespace-{at:05}", "default", IMAGE, "", outcome, reason, "no secret has a credential", "add one"),
            *((), (), 1, 0, (Holder("Pod", "p"),)),
        )
        for at in range(number)
    ]
    counts = dict.fromkeys(OUTCOMES, Count(0, 0, 0)) | {outcome: Count(number, number, 0)}
    return Audit("all.json", "namespace", number, {"Pod": number}, counts, pulls, ())


def hostile() -> list[Any]:
    """Objects that no API server would have, as a file may."""
    names = account(HOSTILE), secret(HOSTILE, HOSTILE, docker_config(f"{HOSTILE}/x", MIRROR)), *grant(HOSTILE)
    return [*cluster_objects(), *names, pod(HOSTILE, HOSTILE, HOSTILE), workload("Deployment", HOSTILE, "web")]


# -- SARIF ------------------------------------------------------------------------------------------------------------


def sarif_of(ran: Ran) -> Any:
    validate.assert_valid(ran.report)
    [found] = ran.report["runs"]
    return found


def test_sarif_has_a_result_for_each_problem(form: Form) -> None:
    ran = form("sarif", faulty_cluster())
    found = sarif_of(ran)
    assert (ran.status, ran.stderr) == (1, "")
    results = {result["properties"]["namespace"]: result for result in found["results"]}
    assert len(results) == len(found["results"])
    expected = {name: fault for name, fault in FAULTS.items() if fault.outcome not in ("works", "no-mirror")}
    assert {name: result["ruleId"] for name, result in results.items()} == {n: f.reason for n, f in expected.items()}
    levels = {"fails": "error", "node-credentials": "warning"}
    assert {n: r["level"] for n, r in results.items()} == {
        n: levels.get(f.outcome, "note") for n, f in expected.items()
    }
    places = results["no-secret"]["locations"][0]["logicalLocations"]
    name = "no-secret/Deployment/deployment"
    assert {"name": "deployment", "fullyQualifiedName": name, "kind": "resource"} in places
    assert len(places) == 7


def test_sarif_rules_are_all_reasons(form: Form) -> None:
    found = sarif_of(form("sarif", [*cluster_objects(), *FAULTS["works"].objects, pod("works", "p")]))
    rules = found["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(REASONS)
    assert all(rule["help"]["text"] and rule["shortDescription"]["text"] for rule in rules)
    assert found["results"] == []
    for result in sarif_of(form("sarif", faulty_cluster()))["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]


def test_sarif_fingerprints_stay_the_same(form: Form) -> None:
    """Pods come and go, texts and remedies change; the reason, or another image, makes another result."""

    def fingerprints(*objects: Any) -> Counter[str]:
        results = sarif_of(form("sarif", [*cluster_objects(), *objects]))["results"]
        assert all(set(r["partialFingerprints"]) == {"primaryLocationLineHash", "pull/v1"} for r in results)
        return Counter(result["partialFingerprints"]["pull/v1"] for result in results)

    rights = [account("a"), *grant("a")]
    one = fingerprints(*rights, pod("a", "p"))
    assert one == fingerprints(*rights, pod("a", "q"), workload("Deployment", "a", "web"), pod("a", "p"))
    assert not one & fingerprints(*rights, pod("a", "p"), secret("a", "s", docker_config("other.corp")))
    both = fingerprints(*rights, pod("a", "p"), pod("a", "p2", "docker.io/library/redis:7"))
    assert one < both and both.total() == 2


def test_sarif_notes_what_was_not_read(form: Form) -> None:
    found = sarif_of(form("sarif", [pod("a", "p")]))
    assert [result["level"] for result in found["results"]] == ["note"]
    assert found["results"][0]["ruleId"] == "not-read"


# -- JUnit ------------------------------------------------------------------------------------------------------------


def junit_of(text: str) -> list[junitparser.TestSuite]:
    """The suites; their counts are those of their cases."""
    whole = junitparser.JUnitXml.fromstring(text.encode())
    suites = list(whole)
    told = [(suite.tests, suite.failures, suite.skipped) for suite in suites]
    assert (whole.tests, whole.failures, whole.skipped) == tuple(map(sum, zip(*told, strict=True)))
    for suite in suites:
        suite.update_statistics()  # type: ignore[no-untyped-call]
    assert told == [(suite.tests, suite.failures, suite.skipped) for suite in suites]
    return suites


def test_junit_has_a_suite_for_each_namespace(form: Form) -> None:
    ran = form("junit", faulty_cluster())
    suites = junit_of(ran.stdout)
    assert (ran.status, [suite.name for suite in suites]) == (1, sorted(FAULTS))
    for suite in suites:
        [case] = suite
        fault = FAULTS[suite.name]
        assert (case.classname, case.name) == (suite.name, f"{fault.image} as default")
        failures = [result for result in case.result if isinstance(result, junitparser.Failure)]
        assert bool(failures) == (fault.outcome == "fails")
        for failure in failures:
            assert fault.reason is not None and failure.type == fault.reason
            assert failure.message == REASONS[fault.reason].title
            assert "To do: " in failure.text or fault.reason == "blocked"


def test_junit_fails_where_the_exit_status_does(form: Form) -> None:
    objects = [
        *cluster_objects(),
        OTHER,
        *FAULTS["anonymous"].objects,
        pod("anonymous", "p", FAULTS["anonymous"].image),
    ]
    ran = form("junit", objects)
    assert (ran.status, [suite.failures for suite in junit_of(ran.stdout)]) == (0, [0])
    assert "anonymous: " in ran.stdout
    ran = form("junit", objects, "--fail-on=anonymous")
    assert (ran.status, [suite.failures for suite in junit_of(ran.stdout)]) == (1, [1])


def test_junit_skips_what_was_not_checked(form: Form) -> None:
    ran = form("junit", [pod("a", "p")])
    assert (ran.status, [suite.skipped for suite in junit_of(ran.stdout)]) == (0, [1])
    ran = form("junit", [pod("a", "p")], f"--fail-on={NOT_CHECKED}")
    assert (ran.status, [(suite.skipped, suite.failures) for suite in junit_of(ran.stdout)]) == (1, [(0, 1)])


def test_junit_cases_have_different_names(form: Form) -> None:
    """GitLab takes the first of those with the same alone."""
    pods = [pod("a", f"p{number}", secrets=[f"s{number}"]) for number in range(3)]
    ran = form("junit", [*cluster_objects(), account("a"), *pods], "--secrets-from=pod")
    [suite] = junit_of(ran.stdout)
    names = [case.name for case in suite]
    assert len(names) == len(set(names))


# -- HTML -------------------------------------------------------------------------------------------------------------

VOID = ("meta", "br", "input", "rect")


class Page(HTMLParser):
    """What is in a page; every element is closed where it has to be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: dict[str, str] = {}
        self.policy = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attributes
        if ("http-equiv", "Content-Security-Policy") in attributes:
            self.policy = dict(attributes)["content"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts[self.open[-1] if self.open else ""] = self.texts.get(self.open[-1] if self.open else "", "") + data


def assert_is_closed(text: str) -> Page:
    """It fetches nothing and runs nothing but its own script."""
    found = Page(text)
    names = {name for name, _ in found.attributes}
    assert not names & {"src", "href", "srcset", "style", "action", "data", "poster"}
    assert not any(name.startswith("on") for name in names)
    assert not re.search(r"url\(|@import", text)
    assert {tag: found.tags[tag] for tag in ("script", "style")} == {"script": 1, "style": 1}
    hashes = {
        tag: base64.b64encode(hashlib.sha256(found.texts[tag].encode()).digest()).decode()
        for tag in ("script", "style")
    }
    policy = dict(part.strip().split(" ", 1) for part in found.policy.split(";"))
    assert policy == {
        "default-src": "'none'",
        **{f"{tag}-src": f"'sha256-{content}'" for tag, content in hashes.items()},
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return found


def test_the_page_has_all_problems(form: Form) -> None:
    ran = form("html", faulty_cluster())
    found = assert_is_closed(ran.stdout)
    assert ran.status == 1
    assert "14 of 18 pulls of 18 namespaces would fail" in found.texts["title"]
    pulls = ran.stdout.partition('<table id="pulls"')[2]
    for name, fault in FAULTS.items():
        assert (f">{name}</td>" in pulls) == (fault.outcome not in ("works", "no-mirror"))
    assert pulls.index(">blocked<") < pulls.index(">anonymous<")


def test_the_page_of_nothing(form: Form) -> None:
    """Nothing that was audited is not nothing that fails."""
    ran = form("html", cluster_objects())
    assert (ran.status, ran.stdout) == (2, "") and "no pod or workload was read" in ran.stderr


def test_the_page_tells_what_changed(form: Form, tmp_path: Path) -> None:
    base = tmp_path / "base.json"
    rights = [*cluster_objects(), OTHER, *FAULTS["no-secret"].objects]
    base.write_text(form("json", [*rights, pod("no-secret", "p"), pod("no-secret", "q", f"{IMAGE}-old")]).stdout)
    solved = secret("no-secret", "s", docker_config(MIRROR))
    new = [*FAULTS["wrong-key"].objects, pod("wrong-key", "p")]
    ran = form("html", [*rights, solved, pod("no-secret", "p"), *new], f"--baseline={base}")
    assert "Since the baseline: 1 new that fail, 1 solved, 1 gone" in assert_is_closed(ran.stdout).texts["h2"]


def test_the_page_of_a_large_cluster_is_bounded() -> None:
    text = "\n".join(page.lines(audit_of(10_000), 0))
    found = assert_is_closed(text)
    assert len(text) < 1_000_000
    assert found.tags["tr"] < page.MOST_PULLS + page.MOST_NAMESPACES + 20
    assert f"The first {page.MOST_PULLS} of 10000 pulls; --output json lists all." in text
    assert f"The first {page.MOST_NAMESPACES} of 10000 namespaces; --output json lists all." in text


def test_the_page_shows_the_worst_first() -> None:
    many, worst = audit_of(page.MOST_PULLS, "anonymous"), audit_of(1)
    last = worst.pulls[0]._replace(namespace="z-last")
    counts = many.counts | {"fails": Count(1, 1, 0)}
    text = "\n".join(page.lines(many._replace(pulls=[*many.pulls, last], counts=counts), 0))
    rows = text.partition('<table id="pulls"')[2].partition("<tbody>")[2].split("<tr>")
    assert "z-last" in rows[1] and len(rows) == page.MOST_PULLS + 1


# -- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["html", "sarif", "junit", "json", "text"])
def test_hostile_names(form: Form, name: str) -> None:
    """Markup and control characters in names stay text, and what a reader refuses is escaped."""
    ran = form(name, hostile())
    assert ran.status == 1
    assert ran.stdout.isascii() or name == "text"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", ran.stdout)
    if name == "html":
        assert "alert('x')" not in ran.stdout
        assert_is_closed(ran.stdout)
    elif name == "junit":
        assert {suite.name for suite in junit_of(ran.stdout)} == {
            "<script>alert('x')</script>&\"\\x1b[31m\\x00\\x08\\ud800\\ufffe\\u202e\\u2028ü]]>"
        }
        ElementTree.fromstring(ran.stdout)
    elif name == "sarif":
        sarif_of(ran)


def owned(image: str, kind: str, name: str) -> list[Any]:
    """What a tenant may create, though it is no such controller."""
    made = pod("team-a", "p", image)
    made["metadata"]["ownerReferences"] = [{"kind": kind, "name": name, "controller": True}]
    return [*cluster_objects(), made]


def test_a_name_is_no_command(form: Form) -> None:
    """Commands are pasted: they come of remedies alone."""
    command = "kubectl delete namespace team-b --wait=false #"
    objects = owned(f"registry.corp/app: {command}", "ReplicaSet", f"web: {command}")
    told = form("text", objects).stdout
    assert command in told
    assert not [line for line in told.splitlines() if line.strip().startswith("kubectl")]
    page_of_it = form("html", objects).stdout
    assert command in page_of_it and "<code>kubectl" not in page_of_it


def test_commands_of_remedies_stay_on_lines_of_their_own(form: Form) -> None:
    told = form("text", faulty_cluster()).stdout
    assert [line for line in told.splitlines() if line.startswith("    kubectl -n no-role create role ")]


@pytest.mark.parametrize(
    ("kind", "name", "shown"),
    [
        ("Workflow", "a.b-1", "Workflow a.b-1"),
        ("ReplicaSet", "web: df /", "ReplicaSet (invalid name)"),
        ("To do: x", "web", "(invalid name) web"),
    ],
)
def test_an_owner_is_shown_by_a_valid_name_alone(form: Form, kind: str, name: str, shown: str) -> None:
    assert f"1 pod: {shown}\n" in form("text", owned("not valid", kind, name)).stdout


def test_junit_attaches_no_file(form: Form) -> None:
    told = form("junit", owned("[[ATTACHMENT|/etc/passwd]] [[[attachment|/etc/passwd]]", "ReplicaSet", "web")).stdout
    text = "".join(ElementTree.fromstring(told).itertext())
    assert "[ [ATTACHMENT|/etc/passwd]]" in text and "[[ATTACHMENT|" not in text.upper()


def test_sarif_has_no_links(form: Form) -> None:
    [result] = sarif_of(form("sarif", owned("x\\[click](https://evil.example)", "ReplicaSet", "web")))["results"]
    assert r"x\\\[click\](https://evil.example) in namespace team-a" in result["message"]["text"]
    assert result["properties"]["image"] == "x\\[click](https://evil.example)"


@pytest.mark.parametrize("name", ["html", "sarif", "junit", "json", "text"])
def test_no_secret_is_in_any_form(form: Form, name: str) -> None:
    """`run` looks for them; here also in secrets that are broken in every way."""
    broken = [
        secret("a", "plain", f"{USER}:{PASSWORD}".encode()),
        secret("a", "unclosed", docker_config(MIRROR)[:-2]),
        secret("a", "list", json.dumps([PASSWORD]).encode()),
        secret("a", "no-colon", json.dumps({"auths": {MIRROR: {"auth": PASSWORD}}}).encode()),
        secret("a", "opaque", docker_config(MIRROR), "Opaque", "config.json"),
        {"kind": "Secret", "metadata": {"namespace": "a", "name": "raw"}, "type": "kubernetes.io/dockerconfigjson"}
        | {"data": {".dockerconfigjson": PASSWORD}, "stringData": {"x": PASSWORD}},
    ]
    ran = form(name, [*faulty_cluster(), account("a"), *grant("a"), *broken, pod("a", "p")])
    assert ran.status == 1 and "unusable-secret" in ran.stdout


def test_forms_are_written_as_they_are_made() -> None:
    """Not the whole at once: a line for each pull."""
    found = audit_of(5_000)
    assert sum(1 for _ in sarif.lines(found)) > 5_000
    assert sum(1 for _ in junit.lines(found, lambda pull: pull.outcome == "fails")) > 10_000
