"""``--pod-events``: one Event for each pod and reason, written as the node after the answer, and never in its way."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crio_credential_provider.pull.podevent import COMPONENT, FAILED, FORBIDDEN, NOT_FOUND
from crio_credential_provider.testbed import cluster as demo
from crio_credential_provider.testbed.certificates import Identity
from crio_credential_provider.testbed.cluster import ApiServer, Exchange
from node import NGINX, Node, Run, basic, request

pytestmark = pytest.mark.process

CURRENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"
Event = dict[str, Any]


class Site:
    """A node that may write events, and pod ``web`` of ``team-alpha`` on it, whose secret is for another mirror."""

    def __init__(self, node: Node, cluster: ApiServer, identity: Identity) -> None:
        self.node = node
        self.cluster = cluster
        cluster.add_secret("team-alpha", "other", {"auths": {"other.corp": {"auth": basic("alpha", "canary-secret")}}})
        cluster.add_service_account("team-alpha", "default", ["other"])
        self.uid = cluster.add_pod("team-alpha", "web", "node1")
        cluster.allow("team-alpha", "default")
        self.token = cluster.mint_token("team-alpha", "default", "web")
        node.write_mirrors("docker.io", "mirror.corp:5000/hub")
        node.write(CURRENT, identity.certificate_pem + identity.key_pem)
        node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
        text = node.kubeconfig.read_text()
        self.write_user(text, f"    client-certificate: {CURRENT}\n    client-key: {CURRENT}\n")

    def write_user(self, text: str, user: str) -> None:
        self._without_user = re.sub(r"(?s)(  user:\n).*", r"\1", text)
        assert self._without_user.endswith("user:\n"), text
        self.node.kubeconfig.write_text(self._without_user + user)

    def run(self, *flags: str, token: str | None = None, image: str = NGINX) -> Run:
        return self.node.run(request(image, token or self.token), "--pod-events", *flags)

    def events(self, count: int = 1) -> list[Event]:
        """Waits until the last has so many occurrences."""
        wait_until(lambda: self.cluster.events and self.cluster.events[-1]["count"] >= count)
        return self.cluster.events

    def told(self, words: str) -> dict[str, str]:
        """The journal entry with these words, once it is there."""
        journal = self.node.journal
        assert journal
        wait_until(lambda: any(words in entry["MESSAGE"] for entry in journal.entries))
        return next(entry for entry in journal.entries if words in entry["MESSAGE"])

    def writers(self) -> list[str]:
        return [asked.user for asked in self.cluster.requests if "/events" in asked.path]


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.01)


@pytest.fixture
def site(node: Node, cluster: ApiServer) -> Site:
    return Site(node, cluster, cluster.node_identity("node1"))


# -- what is written --------------------------------------------------------------------------------------------------


def test_no_secret_fits(site: Site) -> None:
    run = site.run()
    assert (run.status, run.entry["REASON_CODE"]) == (0, "no-credential")
    (event,) = site.events()
    assert event["involvedObject"] == {
        "kind": "Pod",
        "namespace": "team-alpha",
        "name": "web",
        "uid": site.uid,
        "apiVersion": "v1",
    }
    assert (event["type"], event["reason"], event["count"]) == ("Warning", NOT_FOUND, 1)
    assert event["source"] == {"component": COMPONENT, "host": "node1"}
    assert (event["reportingComponent"], event["reportingInstance"]) == (COMPONENT, "node1")
    for words in (
        "docker.io/library/nginx: no pull secret of namespace team-alpha has a credential",
        "kubectl -n team-alpha create secret docker-registry NAME --docker-server=mirror.corp:5000",
    ):
        assert words in event["message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", event["firstTimestamp"])
    assert set(site.writers()) == {"system:node:node1"}


def test_the_role_is_missing(site: Site) -> None:
    site.cluster.revoke("team-alpha", "default")
    assert site.run().status == 1
    (event,) = site.events()
    assert event["reason"] == FORBIDDEN
    assert "crio-credential-provider manifests pull-secrets -n team-alpha --secrets-from=namespace" in event["message"]


def test_a_fault_of_the_node_is_told_without_its_files(site: Site) -> None:
    site.node.write_registries_conf("[[registry]\n")
    run = site.run()
    assert (run.status, run.entry["OUTCOME"]) == (1, "fault-config")
    assert "registries.conf" in run.stderr
    (event,) = site.events()
    assert event["reason"] == FAILED
    assert event["message"] == (
        "Node node1 got no mirror credentials for docker.io/library/nginx (fault-config); an administrator finds the "
        "cause on the node with: crio-credential-provider doctor"
    )


def test_a_credential_that_containerd_would_show_to_others_is_told(site: Site) -> None:
    site.cluster.add_secret("team-alpha", "mirror", {"auths": {"mirror.corp:5000": {"auth": basic("a", "canary")}}})
    certs = '[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d"\n'
    site.node.write("etc/containerd/config.toml", f"version = 2\n{certs}")
    site.node.write("etc/containerd/certs.d/docker.io/hosts.toml", '[host."https://mirror.corp:5000"]\n')
    assert site.run("--runtime=containerd").entry["REASON_CODE"] == "exposed"
    (event,) = site.events()
    assert (event["reason"], event["message"]) == (
        FAILED,
        "Node node1 used no credential for docker.io/library/nginx: containerd would show it to docker.io as well; an "
        "administrator finds what to change on the node with: crio-credential-provider doctor",
    )


def test_retries_are_counted_in_one_object(site: Site) -> None:
    for number in range(1, 6):
        assert site.run().status == 0
        (event,) = site.events(number)
        assert event["count"] == number
    assert event["lastTimestamp"] >= event["firstTimestamp"]


def test_retries_at_the_same_time_are_one_object(site: Site) -> None:
    started = [site.node.start("--pod-events") for _ in range(8)]
    for run in started:
        run.finish(request(NGINX, site.token))
    site.events(4)
    assert len(site.cluster.events) == 1


def test_another_pod_and_another_reason_have_their_own(site: Site) -> None:
    site.run()
    site.events()
    site.cluster.add_pod("team-alpha", "second", "node1")
    site.run(token=site.cluster.mint_token("team-alpha", "default", "second"))
    wait_until(lambda: len(site.cluster.events) == 2)
    site.cluster.revoke("team-alpha", "default")
    site.run()
    wait_until(lambda: len(site.cluster.events) == 3)
    found = {(event["involvedObject"]["name"], event["reason"]) for event in site.cluster.events}
    assert found == {("web", NOT_FOUND), ("second", NOT_FOUND), ("web", FORBIDDEN)}


def test_long_reasons_keep_the_remedy(site: Site) -> None:
    for number in range(60):
        site.cluster.add_secret("team-alpha", f"broken-{'x' * 200}-{number}", b"no json")
    site.run()
    (event,) = site.events()
    assert len(event["message"]) <= 1024 and event["message"].endswith("--docker-password=PASSWORD")


# -- what is not ------------------------------------------------------------------------------------------------------


def settled(site: Site) -> None:
    """A child would have come to its end by now."""
    time.sleep(0.5)
    assert not children(site)


def children(site: Site) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if "--pod-events" in words and str(site.node.root) in words:
            found.append(entry.name)
    return found


def test_a_pull_that_works_has_none(site: Site) -> None:
    site.cluster.add_secret("team-alpha", "fits", {"auths": {"mirror.corp:5000": {"auth": basic("a", "b")}}})
    assert site.run().entry["OUTCOME"] == "auth-file-written"
    assert site.run(image="quay.io/team/app").entry["REASON_CODE"] == "no-mirror"
    settled(site)
    assert site.cluster.events == [] and site.writers() == []


def test_a_mirror_that_the_node_has_a_credential_for_has_none(site: Site) -> None:
    site.node.write(
        "var/lib/kubelet/config.json", json.dumps({"auths": {"mirror.corp:5000": {"auth": basic("n", "p")}}})
    )
    assert site.run().entry["REASON_CODE"] == "no-credential"
    settled(site)
    assert site.cluster.events == []


def test_a_token_without_a_pod_has_none(site: Site) -> None:
    assert site.run(token=site.cluster.mint_token("team-alpha", "default")).entry["REASON_CODE"] == "no-credential"
    assert site.node.run(request(NGINX), "--pod-events").entry["REASON_CODE"] == "no-token"
    settled(site)
    assert site.cluster.events == []


def test_without_the_flag_there_is_none(site: Site) -> None:
    assert site.node.run(request(NGINX, site.token)).entry["REASON_CODE"] == "no-credential"
    settled(site)
    assert site.cluster.events == []


def open_files(process: str) -> list[str]:
    return [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()]


# -- in nobody's way --------------------------------------------------------------------------------------------------


def stall_events(exchange: Exchange) -> bool:
    return "/events" in exchange.request.path and demo.stall(30)(exchange)


def test_no_answer_waits_for_a_stalled_api_server(site: Site) -> None:
    site.cluster.fault = stall_events
    without = min(site.node.run(request(NGINX, site.token)).seconds for _ in range(5))
    # To the end of standard output, for which a kubelet waits as well.
    assert min(site.run().seconds for _ in range(5)) < without + 0.1
    assert children(site)
    assert [held for child in children(site) for held in open_files(child) if "hand-off" in held] == []
    wait_until(lambda: not children(site), 25)
    assert site.cluster.events == []
    # Not of --deadline, which is not the time of these requests.
    assert site.told("cannot write an Event on pod web: ")["MESSAGE"].endswith(" did not answer within 10 s")


def test_an_event_that_cannot_be_written_is_told_in_the_journal(site: Site) -> None:
    site.cluster.fault = lambda exchange: "/events" in exchange.request.path and demo.refuse(403)(exchange)
    assert site.run().status == 0
    entry = site.told("cannot write an Event on pod web: the API server")
    assert entry["PRIORITY"] == "4" and "OUTCOME" not in entry


@pytest.mark.parametrize("kubeconfig", ["gone", "without a certificate"])
def test_without_a_client_certificate_the_run_is_the_same(site: Site, kubeconfig: str) -> None:
    if kubeconfig == "gone":
        text = site.node.kubeconfig.read_text()
        other = site.node.write("etc/other.conf", text)
        site.node.kubeconfig.unlink()
        flags = ["--apiserver", site.cluster.url, "--certificate-authority", str(other.with_name("ca.pem"))]
        other.with_name("ca.pem").write_text(site.cluster.authority.certificate_pem)
    else:
        site.write_user(site.node.kubeconfig.read_text(), "    token: none\n")
        flags = []
    assert (run := site.run(*flags)).status == 0, run.stderr
    assert "--pod-events needs" in site.told("--pod-events")["MESSAGE"] or kubeconfig != "gone"


def test_it_is_refused_without_verified_tls(site: Site) -> None:
    run = site.run("--insecure-skip-tls-verify")
    assert run.status == 2 and "--insecure-skip-tls-verify cannot be used with --pod-events" in run.stderr


def test_no_secret_is_in_any_event(site: Site) -> None:
    sent: list[bytes] = []

    def watch(exchange: Exchange) -> bool:
        sent.append(exchange.request.body if "/events" in exchange.request.path else b"")
        return False

    site.cluster.fault = watch
    canary = "kanarienvogel"
    site.cluster.add_secret("team-alpha", "bad", f'{{"auths":{{"mirror.corp:5000":{{"auth":"{canary}!"}}}}}}'.encode())
    site.cluster.add_secret(
        "team-alpha", "url", {"auths": {f"https://{canary}:{canary}@mirror.corp:5000/": {"auth": "x"}}}
    )
    site.run()
    site.cluster.revoke("team-alpha", "default")
    site.events()
    site.run()
    wait_until(lambda: len(site.cluster.events) == 2)
    text = b"".join(sent) + json.dumps(site.cluster.events).encode()
    parts = [canary, "canary-secret", basic("alpha", "canary-secret"), *site.token.split(".")]
    assert [part for part in parts if part[:14].encode() in text] == []
    assert os.fsencode("mirror.corp:5000") in text
