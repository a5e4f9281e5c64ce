"""The command as a person uses it, and what must hold of all its findings. The broken nodes are in test_gallery.py."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from credentialproviderconfig import ENTRY
from crio_credential_provider.commands import doctor, output
from crio_credential_provider.doctor import Given, cluster, examine
from crio_credential_provider.doctor.accounts import find_accounts
from crio_credential_provider.doctor.catalogue import AREAS, CATALOGUE, SEVERITIES
from crio_credential_provider.doctor.checks.cluster import check_audience, check_node_rights, check_reachable
from crio_credential_provider.doctor.checks.config import bare_pattern
from crio_credential_provider.doctor.checks.runtime import _why_unwritable
from crio_credential_provider.doctor.cluster import Answers, Located
from crio_credential_provider.doctor.finding import Finding, find
from crio_credential_provider.errors import ClusterError
from crio_credential_provider.kubernetes.endpoint import Endpoint
from crio_credential_provider.node.facts import gather
from node import COMMAND, ENVIRONMENT, SOURCES, TESTS, write
from rollout_node import lay
from servers import Behave, Peer, close_in_tls, hang, refused_port, say

pytestmark = pytest.mark.process

ROOT = TESTS.parent
RECIPE = (TESTS / "gallery/recipe/root/etc/kubernetes/credential-provider-config.yaml").read_text()
MIRROR = '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.internal.company.com"\n'


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "doctor", *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | environment,
        timeout=60,
        check=False,
    )


@pytest.fixture
def recipe(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "config.yaml").write_text(RECIPE)
    (tmp_path / "registries.conf").write_text(MIRROR)
    return "--config", str(tmp_path / "config.yaml"), "--registries-conf", str(tmp_path / "registries.conf")


def report(*arguments: str) -> tuple[int, Any]:
    done = run("--output", "json", *arguments)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


# -- the recipe -------------------------------------------------------------------------------------------------------


def test_a_recipe_gets_all_its_faults_at_once_and_a_file_that_has_none(recipe: tuple[str, ...]) -> None:
    status, found = report(*recipe)
    assert status == 3
    assert {finding["code"]: finding["line"] for finding in found["findings"]} == {
        "token-attributes-missing": 4,
        "match-images-mirror": 6,
        "match-images-glob-path": 6,
        "match-images-incomplete": 5,
        "default-cache-duration": 7,
    }
    (corrected,) = found["correctedFiles"]
    assert corrected["file"] == recipe[1] and Path(recipe[1]).read_text() == RECIPE
    Path(recipe[1]).write_text(corrected["content"])
    for more in ((), ("--kubernetes", "1.34"), ("--kubernetes", "1.36")):
        status, found = report(*recipe, *more)
        assert (status, found["findings"], found["correctedFiles"]) == (0, [], [])
    status, found = report(*recipe, "--kubernetes", "1.33")
    assert [finding["code"] for finding in found["findings"]] == ["cache-type-unknown"]
    Path(recipe[1]).write_text(found["correctedFiles"][0]["content"])
    assert report(*recipe, "--kubernetes", "1.33")[1]["findings"] == []


def test_a_recipe_is_corrected_without_its_registries_conf(recipe: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "registries.conf").write_text("")
    report = json.loads(run(*recipe, "--kubernetes=1.34", "--output=json").stdout)
    assert {finding["code"]: finding["severity"] for finding in report["findings"]} == {
        "token-attributes-missing": "error",
        "match-images-glob-path": "error",
        "match-images-mirror": "warning",
        "default-cache-duration": "warning",
    }
    (corrected,) = report["correctedFiles"]
    assert "  - mirror.internal.company.com\n" in corrected["content"]
    assert any("pods use mirror.internal.company.com directly" in text for text in corrected["assumed"])


def test_the_text_has_the_verdict_first_and_the_file_to_paste(recipe: tuple[str, ...]) -> None:
    done = run(*recipe)
    # A long path goes to the next line.
    assert " ".join(done.stdout.partition("\n\n")[0].split()) == f"4 errors, 1 warning on {recipe[1]}"
    lines = done.stdout.splitlines()
    assert done.returncode == 3 and done.stderr == ""
    start = lines.index("apiVersion: kubelet.config.k8s.io/v1")
    assert "  - docker.io" in lines[start:] and "    cacheType: Token" in lines[start:]
    assert "Not checked" in lines


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    (
        (("--root", "/nowhere"), "--root: /nowhere: no such directory"),
        (("--config", "/nowhere"), "--config: /nowhere: no such file or directory"),
        (("--kubernetes", "new"), "not a version"),
        (("--explain", "match-images-mirrors"), "match-images-mirror"),
        (("--root", "/", "--config", "/etc"), "not allowed"),
        (("--config", "/dev/stdin"), "--config: /dev/stdin: not a file"),
        (("--config", "/dev/null"), "write its content to a file, and name that"),
        (("--config", "-"), "--config: -: not a file"),
        (("--registries-conf", "/dev/null"), "--registries-conf: /dev/null: not a file"),
        (("--config", "/bin/bash"), "larger than"),
    ),
)
def test_wrong_usage(arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and done.stdout == "" and says in done.stderr and "Traceback" not in done.stderr


def test_an_empty_image_is_no_healthy_node(tmp_path: Path) -> None:
    status, found = report("--root", str(tmp_path))
    assert status == 3 and [finding["code"] for finding in found["findings"]] == ["kubelet-not-found"]
    [finding] = found["findings"]
    assert "process" not in finding["evidence"][0]["text"] and "give --root the root" in finding["remedy"]
    assert {"the CredentialProviderConfig, and matchImages in it", "CRI-O"} <= {e["what"] for e in found["notExamined"]}


def test_what_cannot_be_read_is_told_by_the_node_s_paths(tmp_path: Path) -> None:
    lay("kubeadm", tmp_path)
    write(tmp_path, "etc/kubernetes/credential-provider-config.yaml", RECIPE)
    write(tmp_path, "etc/crio/auth/in-use", "")
    unit = "etc/systemd/system/kubelet.service.d/20-plugin.conf"
    flags = "--image-credential-provider-config=/etc/kubernetes/credential-provider-config.yaml"
    write(tmp_path, unit, f"[Service]\nExecStart=\nExecStart=/usr/bin/kubelet {flags}\n")
    told = {each["what"]: each["why"] for each in report("--root", str(tmp_path))[1]["notExamined"]}
    assert told["files in /etc/crio/auth/in-use"] == "Not a directory"


def test_names_in_files_do_not_reach_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(ENTRY.replace("docker.io", '"\\e]0;owned\\a"').replace("cacheType", '"\\e[2J"'))
    done = run("--config", str(file))
    assert done.returncode == 3 and "owned" in done.stdout and "\x1b" not in done.stdout


@pytest.mark.parametrize("code", CATALOGUE)
def test_each_finding_has_its_story(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = CATALOGUE[code]
    assert entry.severity in SEVERITIES and all(entry)
    assert doctor.run(["--explain", code]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(" ".join(text.split()) in told for text in (entry.consequence, entry.story, entry.signs, entry.remedy))
    assert doctor.run(["--explain", code, "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["severity"] == entry.severity


def test_no_code_is_in_two_areas() -> None:
    assert sum(map(len, AREAS.values())) == len(CATALOGUE) > 40


def test_every_code_is_found_by_some_check() -> None:
    """And no check finds another one: each call of find() names its code literally."""
    named: set[str] = set()
    for path in (SOURCES / "crio_credential_provider/doctor/checks").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "find":
                assert isinstance(node.args[0], ast.Constant), path
                named.add(str(node.args[0].value))
    assert named == set(CATALOGUE)


def test_the_page_has_the_findings_of_today(tmp_path: Path) -> None:
    page = tmp_path / "doctor.md"
    page.write_text((ROOT / "docs/reference/findings.md").read_text())
    subprocess.run([sys.executable, ROOT / "tools/findings.py", page], check=True)
    assert page.read_text() == (ROOT / "docs/reference/findings.md").read_text(), "run tools/findings.py"


# -- what the gallery cannot show -------------------------------------------------------------------------------------


def node_with(root: Path, entry: str = ENTRY) -> Given:
    write(
        root,
        "/etc/systemd/system/kubelet.service",
        "[Service]\nExecStart=/usr/bin/kubelet \\\n"
        " --image-credential-provider-config=/c.yaml --image-credential-provider-bin-dir=/bin\n",
    )
    write(root, "/c.yaml", entry)
    write(root, "/etc/containers/registries.conf", MIRROR)
    return Given(root=str(root), live=False, kubernetes=(1, 34))


def codes(given: Given) -> list[str]:
    return [finding.code for finding in examine(given).findings]


def test_one_fault_has_no_followers(tmp_path: Path) -> None:
    write(tmp_path, "/bin/crio-credential-provider", "#!/bin/sh\n")
    os.chmod(tmp_path / "bin/crio-credential-provider", 0o755)
    if os.geteuid():
        pytest.skip("a node's files belong to root")
    assert codes(node_with(tmp_path)) == []
    for change, code in (
        (("crio-credential-provider", "other"), ["plugin-missing", "provider-missing"]),
        (("tokenAttributes", "tokenAtributes"), ["config-refused"]),
        (("      - docker.io", "      - quay.io"), ["match-images-incomplete"]),
        (("      - docker.io", "      - docker.io/*"), ["match-images-glob-path"]),
        (("      - docker.io", "      - mirror.internal.company.com"), ["match-images-mirror"]),
    ):
        assert codes(node_with(tmp_path, ENTRY.replace(*change))) == code


def test_a_file_of_many_providers_keeps_the_others(tmp_path: Path) -> None:
    other = (
        "  # theirs\n  - name: ecr\n    apiVersion: credentialprovider.kubelet.k8s.io/v1\n"
        "    matchImages: ['*.ecr.example']  # theirs\n    defaultCacheDuration: 12h\n"
    )
    (tmp_path / "config.yaml").write_text(ENTRY.replace("      - docker.io", "      - docker.io/*") + other)
    (tmp_path / "registries.conf").write_text(MIRROR)
    given = Given(config=str(tmp_path / "config.yaml"), registries_conf=str(tmp_path / "registries.conf"))
    corrected = examine(given).corrected
    assert corrected is not None and corrected.content.endswith(other)


def test_a_remedy_that_the_corrected_file_does_not_have_says_so(tmp_path: Path) -> None:
    entry = ENTRY.replace("requireServiceAccount: true", "requireServiceAccount: false")
    entry = entry.replace("    defaultCache", "    args: [--registries-conf-dir=/etc/theirs.d]\n    defaultCache")
    given = node_with(tmp_path, entry.replace("      cacheType: Token\n", ""))
    write(tmp_path, "/etc/systemd/system/crio.service", "[Service]\nExecStart=/usr/bin/crio\n")
    report = examine(given)
    assert report.corrected is not None and "--registries-conf-dir" in report.corrected.content
    remedies = {finding.code: finding.remedy for finding in report.findings}
    assert remedies["cache-type-missing"] == "cacheType: Token   (see the corrected file)"
    assert remedies["require-service-account"] == "not in the corrected file: requireServiceAccount: true"
    assert remedies["registries-conf-mismatch"] == (
        "not in the corrected file: remove --registries-conf-dir from args, then: systemctl restart kubelet"
    )
    assert not any("corrected file" in text for code, text in remedies.items() if code.startswith("plugin-"))


def test_without_a_corrected_file_no_remedy_refers_to_it(tmp_path: Path) -> None:
    given = node_with(tmp_path, ENTRY.replace("requireServiceAccount: true", "requireServiceAccount: false"))
    report = examine(given)
    assert report.corrected is None and report.findings
    assert not any("corrected file" in finding.remedy for finding in report.findings)


def located() -> Located:
    return Located("/k", Endpoint("api.example", 6443, "/k"), None, None, None)


@pytest.mark.parametrize(
    ("skew", "found"),
    ((0.0, []), (-59.0, []), (61.0, [("clock-skew", "warning")]), (-301.0, [("clock-skew", "error")])),
)
def test_the_clock(skew: float, found: list[tuple[str, str]], tmp_path: Path) -> None:
    facts = gather(node_with(tmp_path))
    results = check_reachable(facts, Answers(located(), skew=skew))
    assert [(r.code, r.severity) for r in results if isinstance(r, Finding)] == found


@pytest.mark.parametrize(
    ("message", "code"),
    (
        ("the API server https://x cannot be trusted: its certificate has expired", "apiserver-certificate"),
        ("the API server https://x does not speak TLS; the token was not sent", "apiserver-certificate"),
        ("no answer from the API server https://x: Connection refused", "apiserver-unreachable"),
        ("the API server https://x did not answer within 15 s", "apiserver-unreachable"),
    ),
)
def test_why_the_api_server_cannot_be_asked(message: str, code: str, tmp_path: Path) -> None:
    """The words are those of apiserver, which a test of the gallery sees from real servers."""
    assert (
        message.partition("https://x ")[2].split(":")[0].split(";")[0]
        in (SOURCES / "crio_credential_provider/kubernetes/apiserver.py").read_text()
        or "did not answer" in message
        or "no answer" in message
    )
    facts = gather(node_with(tmp_path))
    results = check_reachable(facts, Answers(located(), ClusterError(message)))
    assert [result.code for result in results if isinstance(result, Finding)] == [code]


@pytest.mark.parametrize(
    ("behave", "code", "says"),
    (
        (hang, "apiserver-unreachable", "did not answer within"),
        (close_in_tls, "apiserver-unreachable", "closed the connection during TLS"),
        (say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "apiserver-certificate", "does not speak TLS"),
    ),
)
def test_a_server_at_localhost_that_takes_connections_is_not_a_wrong_address(
    behave: Behave, code: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control-plane node without static pods, or a load balancer on each node."""
    monkeypatch.setattr(cluster, "_DEADLINE", 1.0)
    facts = gather(node_with(tmp_path))
    with Peer(behave) as peer:
        endpoint = Endpoint("127.0.0.1", peer.port, "/k")
        answers = cluster.ask(facts, Located("/k", endpoint, None, None, None))
    (found,) = (result for result in check_reachable(facts, answers) if isinstance(result, Finding))
    assert found.code == code and says in found.evidence[0].text
    assert ("curl -k --max-time 15 https://127.0.0.1:" in found.remedy) == (behave is hang)


def test_an_address_at_localhost_where_nothing_listens_is_the_wrong_one(tmp_path: Path) -> None:
    facts = gather(node_with(tmp_path))
    with refused_port() as port:
        endpoint = Endpoint("127.0.0.1", port, "/k")
        answers = cluster.ask(facts, Located("/k", endpoint, None, None, None))
    (found,) = (result for result in check_reachable(facts, answers) if isinstance(result, Finding))
    assert found.code == "apiserver-localhost" and "Connection refused" in found.evidence[1].text


def test_a_wrong_audience_is_told_once(tmp_path: Path) -> None:
    facts = gather(node_with(tmp_path))
    own = ("https://kubernetes.default.svc.cluster.local",)
    answers = Answers(located(), has_audience=False, has_accounts=True)
    results = (*check_audience(facts, answers, own, "/t"), *check_node_rights(facts, answers, own))
    assert [result.code for result in results if isinstance(result, Finding)] == ["audience-rejected"]


def pod(namespace: str, account: str, image: str, *, waiting: str = "", mirror: bool = False) -> dict[str, Any]:
    annotations = {"kubernetes.io/config.mirror": "x"} if mirror else {}
    status = {"containerStatuses": [{"state": {"waiting": {"reason": waiting}}}]} if waiting else {}
    metadata = {"namespace": namespace, "name": "p", "uid": "u", "annotations": annotations}
    return {
        "metadata": metadata,
        "spec": {"serviceAccountName": account, "containers": [{"image": image}]},
        "status": status,
    }


def test_accounts_whose_pods_cannot_pull_come_first_and_those_of_the_cluster_last(tmp_path: Path) -> None:
    facts = gather(node_with(tmp_path))
    pods = [
        pod("kube-system", "proxy", "docker.io/a"),
        pod("beta", "default", "nginx"),
        pod("zeta", "default", "nginx", waiting="ImagePullBackOff"),
        pod("beta", "default", "redis"),
        pod("gamma", "default", "quay.io/x/y"),
        pod("static", "default", "nginx", mirror=True),
        pod("../x", "default", "nginx"),
        {},
        pod("delta", "default", "UPPER CASE"),
    ]
    found = find_accounts(facts, {"items": pods})
    assert [account.namespace for account in found] == ["zeta", "beta", "kube-system"]


@pytest.mark.parametrize(
    ("pattern", "bare"),
    (("docker.io", "docker.io"), ("docker.io/*", "docker.io"), ("a/b/c*/d", "a/b"), ("*.a", "*.a"), ("a/", "a/")),
)
def test_a_pattern_without_its_glob(pattern: str, bare: str) -> None:
    assert bare_pattern(pattern) == bare


# -- registries.conf --------------------------------------------------------------------------------------------------

HUB = '[[registry]]\nlocation = "docker.io"\n'
TABLES: dict[str, tuple[str, list[str], str]] = {
    # -- mirrors that CRI-O can use, or for some images alone
    "Docker Hub as the last mirror of Quay": (
        '[[registry]]\nlocation = "quay.io"\n[[registry.mirror]]\nlocation = "docker.io"\n',
        ["mirror-location-unusable note 4"],
        "quay.io/image",
    ),
    "Docker Hub as the last mirror of a wildcard": (
        '[[registry]]\nprefix = "*.corp.example"\n[[registry.mirror]]\nlocation = "docker.io"\n',
        ["mirror-location-unusable note 4"],
        "x.corp.example/image",
    ),
    "a mirror of itself": (f'{HUB}[[registry.mirror]]\nlocation = "docker.io"\n', [], ""),
    "Docker Hub for a part of Quay": (
        '[[registry]]\nlocation = "quay.io/team"\n[[registry.mirror]]\nlocation = "docker.io"\n',
        ["mirror-location-unusable error 4"],
        'write location = "docker.io/team"',
    ),
    "Docker Hub by its old name as a mirror": (
        f'{HUB}[[registry.mirror]]\nlocation = "index.docker.io"\n',
        ["mirror-location-unusable error 4"],
        'write location = "docker.io"',
    ),
    "Docker Hub by its old name as the location": (
        '[[registry]]\nprefix = "docker.io"\nlocation = "index.docker.io"\n',
        ["mirror-location-unusable error 3"],
        'write location = "docker.io"',
    ),
    "a port of six digits": (
        f'{HUB}[[registry.mirror]]\nlocation = "mirror.corp.example:500000/hub"\n',
        ["mirror-unreachable error 4"],
        "the port 500000 is above 65535",
    ),
    "the API's own path in a location": (
        f'{HUB}[[registry.mirror]]\nlocation = "mirror.corp.example:5000/v2/hub"\n',
        ["mirror-location-unusable warning 4"],
        'write location = "mirror.corp.example:5000/hub"',
    ),
    "prefix and location swapped": (
        '[[registry]]\nprefix = "mirror.corp.example:5000/hub"\nlocation = "docker.io"\n',
        ["registries-table-swapped warning 2"],
        'prefix = "docker.io", location = "mirror.corp.example:5000/hub"',
    ),
    # -- tables that no image has
    "Docker Hub by its old name": (
        '[[registry]]\nlocation = "index.docker.io"\n[[registry.mirror]]\nlocation = "m.example"\n',
        ["registries-table-unmatched warning 2"],
        'write location = "docker.io"',
    ),
    "Docker Hub by its server": (
        '[[registry]]\nprefix = "registry-1.docker.io"\nlocation = "m.example"\n',
        ["registries-table-unmatched warning 2"],
        'write prefix = "docker.io"',
    ),
    "Docker Hub's server blocked": ('[[registry]]\nlocation = "registry-1.docker.io"\nblocked = true\n', [], ""),
    "a tag": (
        '[[registry]]\nprefix = "docker.io/library/nginx:1.27"\nlocation = "m.example"\n',
        ["registries-table-unmatched warning 2"],
        'write prefix = "docker.io/library/nginx"',
    ),
    "a digest": (
        '[[registry]]\nprefix = "quay.io/a/b@sha256:00"\nlocation = "m.example"\n',
        ["registries-table-unmatched warning 2"],
        'write prefix = "quay.io/a/b"',
    ),
    "typographic quotes within the quotes": (
        '[[registry]]\nlocation = "\u201cdocker.io\u201d"\n',
        ["registries-table-unmatched warning 2"],
        'write location = "docker.io"',
    ),
    "a star for everything": (
        '[[registry]]\nprefix = "*"\nlocation = "m.example"\n',
        ["registries-table-unmatched warning 2"],
        "only *. at the beginning",
    ),
    "a star in the path": (
        '[[registry]]\nprefix = "docker.io/*"\nlocation = "m.example"\n',
        ["registries-table-unmatched warning 2"],
        'write prefix = "docker.io"',
    ),
    "a short name": (
        '[[registry]]\nprefix = "library/nginx"\nlocation = "m.example"\n',
        ["registries-table-unmatched warning 2"],
        'write prefix = "docker.io/library/nginx"',
    ),
    "upper case": (
        '[[registry]]\nprefix = "quay.io/Team"\nlocation = "m.example"\n',
        ["registries-table-unmatched warning 2"],
        'write prefix = "quay.io/team"',
    ),
    "a host without a dot, for its ports": ('[[registry]]\nprefix = "mirror"\nlocation = "m.example"\n', [], ""),
    "an organisation of Docker Hub": ('[[registry]]\nprefix = "docker.io/bitnami"\nlocation = "m.example"\n', [], ""),
}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_said_of_a_table(name: str, tmp_path: Path) -> None:
    conf, expected, says = TABLES[name]
    patterns = "\n".join(f"      - {host}" for host in ("docker.io", "quay.io", "'*.corp.example'", "mirror"))
    write(tmp_path, "/c.yaml", ENTRY.replace("      - docker.io", patterns))
    write(tmp_path, "/r.conf", conf)
    given = Given(config=str(tmp_path / "c.yaml"), registries_conf=str(tmp_path / "r.conf"))
    found = [finding for finding in examine(given).findings if finding.code != "no-mirrors"]
    assert [f"{f.code} {f.severity} {f.evidence[0].line}" for f in found] == expected
    assert not found or says in f"{found[0].evidence[0].text} {found[0].remedy}"


# -- the plugin's arguments -------------------------------------------------------------------------------------------

ARGUMENTS: dict[str, tuple[str, str, str]] = {
    "a plural": ("[--secrets-from=pods]", "--secrets-from=pod", ""),
    "a capital letter": ("[--secrets-from=Pod]", "--secrets-from=pod", ""),
    "an underscore": ("[--secrets-from=service_account]", "--secrets-from=service-account", ""),
    "two mirrors in one": ("['--mirror-registry=a.example,b.example']", "--mirror-registry=b.example", ""),
    "a mapping": ("[--secrets-from: pod]", "--secrets-from=pod", "a mapping, expected a string"),
    "a number without quotes": ("[--deadline, 20]", "20", 'write "20"'),
    "a glob as the mirror": ("['--mirror-registry=*.corp.example']", "", "without wildcards"),
    "an unknown word as the mode": ("[--secrets-from=everything]", "", "namespace, pod, service-account"),
    "a relative auth directory": ("[--auth-dir=auth]", "", "an absolute path"),
    "a relative kubeconfig": ("[--kubeconfig, ~/.kube/config]", "", "an absolute path"),
    "a mirror misspelled and impossible": ("['--miror-registry=*.corp.example']", "", "unknown flag"),
    "no TLS and the node's identity": ("[--secrets-from=pod, --insecure-skip-tls-verify]", "", "remove it from"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_limits_credentials_stays_in_the_corrected_file(name: str, tmp_path: Path) -> None:
    args, kept, says = ARGUMENTS[name]
    write(tmp_path, "/c.yaml", ENTRY.replace("    defaultCacheDuration", f"    args: {args}\n    defaultCacheDuration"))
    write(tmp_path, "/r.conf", f'{HUB}[[registry.mirror]]\nlocation = "b.example"\n')
    found = examine(Given(config=str(tmp_path / "c.yaml"), registries_conf=str(tmp_path / "r.conf")))
    (told,) = (finding for finding in found.findings if finding.severity == "error")
    assert says in f"{told.evidence[0].text} {told.remedy}" and "; then: systemctl restart kubelet" in told.remedy
    assert f"{tmp_path}/c.yaml:" in told.remedy
    assert (found.corrected is not None and kept in found.corrected.content) == bool(kept)
    assert bool(found.uncorrected) != bool(kept)


def test_an_argument_that_is_taken_out_is_told(tmp_path: Path) -> None:
    write(tmp_path, "/c.yaml", ENTRY.replace("    defaultCache", "    args: [get-credentials]\n    defaultCache"))
    write(tmp_path, "/r.conf", MIRROR)
    done = run("--config", str(tmp_path / "c.yaml"), "--registries-conf", str(tmp_path / "r.conf"))
    assert "   args: removed get-credentials, which the plugin refuses" in done.stdout


def test_a_password_among_the_arguments_is_not_told(tmp_path: Path) -> None:
    for args in ("--password=CANARY", "--token, CANARY", "--mirror-registry=https://u:CANARY@h.example/x"):
        write(tmp_path, "/c.yaml", ENTRY.replace("    defaultCache", f"    args: [{args}]\n    defaultCache"))
        write(tmp_path, "/r.conf", MIRROR)
        for form in ("text", "json"):
            files = ("--config", str(tmp_path / "c.yaml"), "--registries-conf", str(tmp_path / "r.conf"))
            done = run(*files, "--output", form)
            assert done.returncode == 3 and "CANARY" not in done.stdout + done.stderr, done.stdout


# -- the kubeconfig, and what is not YAML ------------------------------------------------------------------------------

KUBECONFIG = (
    "clusters:\n- name: c\n  cluster:\n    server: https://api.example:6443\ncontexts:\n- name: x\n"
    "  context: {cluster: c}\ncurrent-context: x\n"
)


@pytest.mark.parametrize(
    ("old", "new", "found", "says"),
    (
        ("", "", "", ""),
        ("server:", "insecure-skip-tls-verify: true\n    server:", "kubeconfig-doubtful warning 4", "cluster's CA"),
        ("current-context: x\n", "", "kubeconfig-doubtful warning 0", "write current-context: x in /k"),
        ("    server:", "\tserver:", "kubeconfig-broken error 4", "in /k:4 replace the tab with spaces"),
        ("    server: https://api.example:6443", "    x: y", "kubeconfig-broken error 0", "write server: https://"),
        ("https://", "http://", "kubeconfig-broken error 4", "names the API server"),
    ),
)
def test_what_is_said_of_a_kubeconfig(old: str, new: str, found: str, says: str, tmp_path: Path) -> None:
    given = node_with(tmp_path)
    unit = tmp_path / "etc/systemd/system/kubelet.service"
    unit.write_text(unit.read_text().replace("kubelet \\", "kubelet --kubeconfig=/k \\"))
    write(tmp_path, "/k", KUBECONFIG.replace(old, new, 1))
    told = [finding for finding in examine(given).findings if finding.code.startswith("kubeconfig")]
    assert [f"{one.code} {one.severity} {one.evidence[0].line}" for one in told] == [found][: bool(found)]
    if told:
        assert says in f"{told[0].evidence[0].text} {told[0].remedy}" and str(tmp_path) not in str(told[0])
        assert not told[0].evidence[0].text.startswith("/k")


def test_a_kubeconfig_of_the_plugin_that_is_missing_is_to_be_removed(tmp_path: Path) -> None:
    given = node_with(tmp_path, ENTRY.replace("    defaultCache", "    args: [--kubeconfig=/nope]\n    defaultCache"))
    (told,) = (finding for finding in examine(given).findings if finding.code == "kubeconfig-broken")
    assert told.remedy.startswith("remove it from /c.yaml:8, ")


@pytest.mark.parametrize(
    ("content", "line", "says"),
    (
        (ENTRY.replace("    tokenAttributes", "   tokenAttributes").encode(), 9, "indented like the lines above it"),
        (ENTRY.encode("utf-16"), 1, "save it as UTF-8"),
        (ENTRY.replace("    tokenAttributes", "\ttokenAttributes").encode(), 9, "replace the tab with spaces"),
    ),
)
def test_a_file_that_is_not_yaml_is_to_be_corrected_there(content: bytes, line: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    (told,) = examine(Given(config=str(tmp_path / "c.yaml"))).findings
    assert (told.code, told.evidence[0].line) == ("config-refused", line) and says in told.evidence[0].text
    assert told.remedy.startswith(f"correct {tmp_path}/c.yaml:{line}; then: ")


def test_an_entry_in_a_second_document_is_told(tmp_path: Path) -> None:
    first = ENTRY.replace("crio-credential-provider", "ecr-credential-provider")
    (tmp_path / "c.yaml").write_text(f"# one\n---\n{first}---\n{ENTRY}")
    found = examine(Given(config=str(tmp_path / "c.yaml"))).findings
    (told,) = (finding for finding in found if finding.code == "provider-missing")
    assert "a second YAML document begins here" in told.evidence[0].text
    assert told.evidence[0].line == first.count("\n") + 3


@pytest.mark.parametrize(("blocks", "inodes", "what"), [(0, 9, "space"), (9, 0, "inodes"), (9, 9, "")])
def test_an_auth_directory_on_a_full_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, inodes: int, what: str
) -> None:
    (tmp_path / "etc/crio/auth").mkdir(parents=True)
    write(tmp_path, "/proc/self/mountinfo", "")
    write(tmp_path, "/proc/1/mountinfo", "")
    full = SimpleNamespace(f_bfree=blocks, f_files=99, f_ffree=inodes)
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    node = gather(Given(root=str(tmp_path)))
    node = node._replace(given=node.given._replace(live=True))
    found = _why_unwritable(node, "/etc/crio/auth")
    assert (found[0].text if found else "") == (f"its file system has no {what} left" if what else "")


def test_what_is_pasted_is_not_wrapped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A comment that went on in the next line without its # would keep a kubelet from starting, and a command that was
    cut in two would grant more than it says."""
    comment = "# " + "the platform team rolls this file out, ask them before it is changed; " * 3
    write(tmp_path, "/c.yaml", ENTRY.replace("  - name", f"  {comment}\n  - name", 1).replace("Token", "token"))
    arguments = ["--config", str(tmp_path / "c.yaml")]
    doctor.run([*arguments, "--output", "json"])
    report = json.loads(capsys.readouterr().out)
    doctor.run(arguments)
    text = capsys.readouterr().out
    (corrected,) = report["correctedFiles"]
    assert len(comment) > 200 and comment.rstrip() in corrected["content"]
    assert all(line.rstrip() in text.splitlines() for line in corrected["content"].splitlines())


def test_no_line_of_a_remedy_is_cut_in_two(capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        "kubectl -n team-alpha create role pull-secrets-of-default --verb=get --resource=secrets --resource-name=mirror"
    )
    output.write(*doctor._finding_as_text(1, find("auth-dir-mode", remedy=f"as an administrator:\n{line}")))
    assert f"     {line}" in capsys.readouterr().out.splitlines()
