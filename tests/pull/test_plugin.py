"""The plugin as the kubelet runs it: a request on standard input becomes an auth file, an answer and an exit status."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import NodeMaker
from crio_credential_provider.testbed.certificates import Authority, Identity
from crio_credential_provider.testbed.cluster import ApiServer, Exchange
from crio_credential_provider.testbed.loopback import CHUNK, Request, chunk
from faults import BROKEN_REQUESTS, BROKEN_TOML, JWT
from node import (
    NGINX,
    NGINX_HASH,
    SOURCES,
    TESTS,
    Node,
    Run,
    basic,
    recorded_answer,
    recorded_request,
    request,
)
from servers import replaying

pytestmark = pytest.mark.process

ANSWER = (
    b'{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1",'
    b'"cacheKeyType":"Image","cacheDuration":"0s"}\n'
)
ANSWER_WITH_RECORD = ANSWER.replace(b'"0s"}', b'"0s","auth":{"docker.io/library/nginx":{"username":"","password":""}}}')

ALPHA_FILE = f"team-alpha-{NGINX_HASH}.json"
MIRROR_ENTRY = {"mirror.corp:5000/hub/library/nginx": {"auth": basic("alpha", "alphapw")}}


def assert_fault(run: Run, node: Node, *words: str, status: int = 1) -> None:
    """One line on stderr with these words; nothing on stdout, no file, and the same line in the journal."""
    assert run.status == status, run
    assert run.stdout == b""
    assert run.stderr.count("\n") == 1 and run.stderr.endswith("\n"), run.stderr
    assert run.stderr.startswith("crio-credential-provider: ")
    for word in words:
        assert word in run.stderr, f"{word!r} is not in: {run.stderr}"
    assert node.auth_file_names() == []
    assert run.entry["MESSAGE"] == run.stderr.removeprefix("crio-credential-provider: ").rstrip("\n")
    assert run.entry["PRIORITY"] == "3"
    assert run.entry["OUTCOME"].startswith("fault-")


def assert_nothing_to_do(run: Run, node: Node, *words: str) -> None:
    """Answered without credentials; no file; the reason in the journal."""
    assert (run.status, run.stdout, run.stderr) == (0, ANSWER, "")
    assert node.auth_file_names() == []
    assert run.entry["OUTCOME"] == "nothing-to-do"
    assert run.entry["PRIORITY"] in ("6", "4")
    for word in words:
        assert word in run.entry["REASON"], run.entry
        assert word in run.entry["MESSAGE"], run.entry


# -- the main job, on recorded input ----------------------------------------------------------------------------------


@pytest.fixture
def recorded(authority: Authority, identity: Identity) -> Iterator[str]:
    """URL of a server that replays a real API server's SecretList, byte for byte, chunked over TLS."""
    head, body = recorded_answer("list-secrets-200")
    assert b"Transfer-Encoding: chunked" in head
    answer = head + b"".join(chunk(body[start : start + CHUNK]) for start in range(0, len(body), CHUNK)) + chunk(b"")
    token = json.loads(recorded_request())["serviceAccountToken"]

    def replay(asked: Request) -> bytes:
        assert asked.method == "GET"
        assert asked.path == (
            "/api/v1/namespaces/team-alpha/secrets?fieldSelector=type%3Dkubernetes.io%2Fdockerconfigjson"
        )
        assert asked.headers["authorization"] == f"Bearer {token}"
        assert asked.headers["host"] == f"127.0.0.1:{server.port}"
        return answer

    with replaying(replay, identity) as server:
        yield f"https://127.0.0.1:{server.port}"


RECORDED_MIRRORS = ("localhost:5000/hub", "mirror.corp.example/dockerhub", "nobody.example/hub")


def test_the_recorded_pull_of_team_alpha(node: Node, recorded: str, authority: Authority) -> None:
    node.write_mirrors("docker.io", *RECORDED_MIRRORS)
    node.write_kubeconfig(recorded, authority.certificate_pem)
    run = node.run(recorded_request())
    assert (run.status, run.stdout, run.stderr) == (0, ANSWER_WITH_RECORD, "")

    assert node.auth_file_names() == [f"team-alpha-{NGINX_HASH}.json"]
    path = node.auth_dir / f"team-alpha-{NGINX_HASH}.json"
    # Exactly one entry per source that has a credential: two mirrors and, from the secret for Docker Hub, the primary.
    assert json.loads(path.read_bytes()) == {
        "auths": {
            "localhost:5000/hub/library/nginx": {"auth": basic("alpha", "alphapw")},
            "mirror.corp.example/dockerhub/library/nginx": {"auth": basic("u", "p")},
            "docker.io/library/nginx": {"auth": basic("alpha-hub", "hubpw")},
        }
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(node.auth_dir.stat().st_mode) == 0o700


def test_the_journal_entry_is_an_audit_record(node: Node, recorded: str, authority: Authority) -> None:
    node.write_mirrors("docker.io", *RECORDED_MIRRORS)
    node.write_kubeconfig(recorded, authority.certificate_pem)
    run = node.run(recorded_request())
    path = str(node.auth_dir / f"team-alpha-{NGINX_HASH}.json")
    assert len(run.entries) == 1
    entry = run.entries[0]
    # The line that OpenShift's end-to-end test looks for (docs/reference/contracts.md, 2).
    assert entry["MESSAGE"].startswith(f"Wrote auth file to {path}")
    assert int(entry.pop("DURATION_US")) in range(1, int(run.seconds * 1_000_000) + 1)
    del entry["MESSAGE"], entry["PROVIDER_VERSION"]
    assert entry == {
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "crio-credential",
        "OUTCOME": "auth-file-written",
        "AUTH_FILE": path,
        "IMAGE": NGINX,
        "NAMESPACE": "team-alpha",
        "SERVICE_ACCOUNT": "default",
        "POD": "rec1",
        "POD_UID": "a0ef58b4-4dbe-483e-a641-20c44839bf73",
        "SOURCES": "localhost:5000/hub/library/nginx mirror.corp.example/dockerhub/library/nginx "
        "nobody.example/hub/library/nginx docker.io/library/nginx",
        "SECRETS": "mirror-creds hollow hub",
        "CREDENTIALS": "localhost:5000/hub/library/nginx=mirror-creds "
        "mirror.corp.example/dockerhub/library/nginx=hollow docker.io/library/nginx=hub",
    }


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_file_is_0600_whatever_the_umask(node: Node, cluster: ApiServer, alpha: str, umask: int) -> None:
    node.join(cluster)
    node.auth_dir.mkdir(parents=True, mode=0o700)
    node.cache_dir.mkdir(parents=True, mode=0o700)
    assert node.run(request(token=alpha), umask=umask).status == 0
    assert stat.S_IMODE((node.auth_dir / ALPHA_FILE).stat().st_mode) == 0o600


def test_no_pull_record_leaves_the_entry_out_of_the_answer(node: Node, cluster: ApiServer, alpha: str) -> None:
    node.join(cluster)
    run = node.run(request(token=alpha), "--no-pull-record")
    assert (run.status, run.stdout) == (0, ANSWER)
    assert node.auth_files() == {ALPHA_FILE: {"auths": MIRROR_ENTRY}}


def test_nothing_but_the_auth_file_and_the_cache_is_written(node: Node, cluster: ApiServer, alpha: str) -> None:
    node.join(cluster)
    before = files(node.root)
    assert node.run(request(token=alpha)).status == 0
    new = [path for path in files(node.root) if path not in before]
    assert f"etc/crio/auth/{ALPHA_FILE}" in new
    others = [path for path in new if not path.startswith(("etc/crio/auth/", "run/crio-credential-provider"))]
    assert set(others) <= {"etc/crio", "etc/crio/auth"}


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_the_global_auth_file_serves_what_no_secret_does(node: Node, cluster: ApiServer, alpha: str) -> None:
    node.write_mirrors("docker.io", "mirror.corp:5000/hub", "other.example/hub")
    node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    unrelated = {
        "auths": {"other.example": {"auth": basic("n", "npw")}, "elsewhere.example": {"auth": basic("e", "x")}}
    }
    node.write("var/lib/kubelet/config.json", json.dumps(unrelated))
    assert node.run(request(token=alpha)).status == 0
    assert node.auth_files()[ALPHA_FILE] == {
        "auths": {**MIRROR_ENTRY, "other.example/hub/library/nginx": {"auth": basic("n", "npw")}}
    }


def test_a_broken_global_auth_file_is_a_warning(node: Node, cluster: ApiServer, alpha: str) -> None:
    node.join(cluster)
    node.write("var/lib/kubelet/config.json", "{no json")
    run = node.run(request(token=alpha))
    assert (run.status, run.stdout, run.stderr) == (0, ANSWER_WITH_RECORD, "")
    assert run.entry["PRIORITY"] == "4"
    assert "/var/lib/kubelet/config.json is ignored" in run.entry["MESSAGE"]


def test_mirror_registry_serves_an_image_that_lies_there(node: Node, cluster: ApiServer, alpha: str) -> None:
    node.write_kubeconfig(cluster.url, cluster.authority.certificate_pem)
    run = node.run(request("mirror.corp:5000/team/app", alpha), "--mirror-registry", "mirror.corp:5000/team")
    assert run.status == 0
    (found,) = node.auth_files().values()
    assert found == {"auths": {"mirror.corp:5000/team/app": {"auth": basic("alpha", "alphapw")}}}


# -- two at once, and killed ones -------------------------------------------------------------------------------------


def test_two_namespaces_at_once_get_each_its_own(node: Node, cluster: ApiServer, alpha: str) -> None:
    """Neither run is answered before both have asked."""
    cluster.add_secret("team-beta", "theirs", {"auths": {"mirror.corp:5000": {"auth": basic("beta", "betapw")}}})
    cluster.add_pod("team-beta", "web", "node1")
    cluster.allow("team-beta", "default")
    beta = cluster.mint_token("team-beta", "default", "web")
    node.join(cluster)
    both = threading.Barrier(2, timeout=10)

    def wait_for_the_other(exchange: Exchange) -> bool:
        both.wait()
        return False

    cluster.fault = wait_for_the_other
    for _ in range(5):
        with ThreadPoolExecutor() as pool:
            alpha_run, beta_run = pool.map(node.run, (request(token=alpha), request(token=beta)))
        assert (alpha_run.stdout, beta_run.stdout) == (ANSWER_WITH_RECORD, ANSWER_WITH_RECORD)
        assert node.auth_files() == {
            ALPHA_FILE: {"auths": MIRROR_ENTRY},
            f"team-beta-{NGINX_HASH}.json": {
                "auths": {"mirror.corp:5000/hub/library/nginx": {"auth": basic("beta", "betapw")}}
            },
        }
        for file in node.auth_dir.iterdir():
            file.unlink()


def assert_whole_or_nothing(node: Node) -> bool:
    """Whether the file is there; AssertionError if half of it is. `auth_files` parses what lies under final names."""
    found = node.auth_files()
    assert found in ({}, {ALPHA_FILE: {"auths": MIRROR_ENTRY}})
    return bool(found)


def test_killed_at_any_time_it_leaves_no_half_file(node: Node, cluster: ApiServer, alpha: str) -> None:
    node.join(cluster)
    whole = min(node.run(request(token=alpha)).seconds for _ in range(3))
    chance = random.Random(20260101)
    killed = finished = 0
    for _ in range(110):
        for name in node.auth_file_names():
            (node.auth_dir / name).unlink()
        started = node.start()
        assert started.process.stdin
        started.process.stdin.write(request(token=alpha))
        started.process.stdin.close()
        started.process.stdin = None
        time.sleep(chance.uniform(0, whole * 1.2))
        started.process.kill()
        started.process.communicate()
        killed += started.process.returncode == -signal.SIGKILL
        finished += assert_whole_or_nothing(node)
    # Delays that are all too short or too long would show nothing.
    assert killed > 20 and finished > 5


def test_killed_at_each_step_of_writing_it_leaves_no_half_file(
    module_node: Node, cluster: ApiServer, alpha: str
) -> None:
    """tests/killed.py ends a run by SIGKILL before each instruction of authfile.write in turn."""
    node = module_node
    node.join(cluster)
    outcomes = []
    asked = node.write("request", request(token=alpha))
    command = [sys.executable, str(TESTS / "killed.py"), str(asked), *node.flags]
    helper = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(SOURCES)}
    )
    with helper:
        assert helper.stdin and helper.stdout
        while (status := helper.stdout.readline().strip()) != "0":
            assert status == "-9", status
            outcomes.append(assert_whole_or_nothing(node))
            for name in node.auth_file_names():
                if not name.endswith(".lock"):
                    (node.auth_dir / name).unlink()
            helper.stdin.write("next\n")
            helper.stdin.flush()
        assert assert_whole_or_nothing(node)
        helper.stdin.close()
    # Killed before and after the rename.
    assert outcomes.count(False) > 50 and True in outcomes


def test_a_killed_run_does_not_hinder_the_next(node: Node, cluster: ApiServer, alpha: str) -> None:
    node.join(cluster)
    node.auth_dir.mkdir(parents=True, mode=0o700)
    # What a kill between open and rename leaves behind, of a process with any id.
    (node.auth_dir / f".{ALPHA_FILE}.1.tmp").write_bytes(b'{"auths"')
    assert node.run(request(token=alpha)).status == 0
    assert assert_whole_or_nothing(node)


# -- the disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 40])
def test_a_full_disk_is_a_fault_and_leaves_no_half_file(node: Node, cluster: ApiServer, alpha: str, size: int) -> None:
    node.join(cluster)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    run = node.run(request(token=alpha), preexec_fn=limit)
    assert (run.status, run.stdout) == (1, b"")
    assert run.stderr.count("\n") == 1
    assert "cannot write the auth file" in run.stderr and os.strerror(errno.EFBIG) in run.stderr
    assert [name for name in node.auth_file_names() if not name.endswith(".lock")] == []


def make_writable_for_others(node: Node) -> None:
    node.auth_dir.mkdir(parents=True)
    node.auth_dir.chmod(0o777)


def make_writable_for_the_group(node: Node) -> None:
    node.auth_dir.mkdir(parents=True)
    node.auth_dir.chmod(0o770)


def make_a_file(node: Node) -> None:
    node.write("etc/crio/auth", "")


def make_the_parent_a_file(node: Node) -> None:
    node.write("etc/crio", "")


def make_the_final_name_a_directory(node: Node) -> None:
    (node.auth_dir / ALPHA_FILE).mkdir(parents=True)
    node.auth_dir.chmod(0o700)


def make_a_dangling_link(node: Node) -> None:
    node.auth_dir.parent.mkdir(parents=True)
    node.auth_dir.symlink_to("/nonexistent/auth")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (make_writable_for_others, ("users other than its owner can write", "mode 0777", "chmod 0700")),
        (make_writable_for_the_group, ("users other than its owner can write", "mode 0770", "chmod 0700")),
        (make_a_file, ("cannot write the auth file", "--auth-dir")),
        (make_the_parent_a_file, ("cannot write the auth file", "--auth-dir")),
        (make_the_final_name_a_directory, ("cannot write the auth file", os.strerror(errno.EISDIR))),
        (make_a_dangling_link, ("cannot write the auth file", "--auth-dir")),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_an_auth_directory_that_will_not_do_is_a_fault(
    node: Node, cluster: ApiServer, alpha: str, spoil: Callable[[Node], None], words: tuple[str, ...]
) -> None:
    node.join(cluster)
    spoil(node)
    before = files(node.auth_dir)
    run = node.run(request(token=alpha))
    assert (run.status, run.stdout, run.stderr.count("\n")) == (1, b"", 1)
    for word in words:
        assert word in run.stderr, run.stderr
    assert "/etc/crio/auth" in run.stderr
    assert [name for name in files(node.auth_dir) if not name.endswith(".lock")] == before
    assert run.entry["OUTCOME"] == "fault-auth-file"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of somebody else")
def test_an_auth_directory_of_somebody_else_is_a_fault(node: Node, cluster: ApiServer, alpha: str) -> None:
    node.join(cluster)
    node.auth_dir.mkdir(parents=True, mode=0o700)
    os.chown(node.auth_dir, 65534, 65534)
    assert_fault(node.run(request(token=alpha)), node, "belongs to user 65534", "chown root")


# -- nothing to do ----------------------------------------------------------------------------------------------------


def test_without_a_token_there_is_nothing_to_do(ready: Node, cluster: ApiServer) -> None:
    run = ready.run(recorded_request("request-static-pod"))
    assert_nothing_to_do(run, ready, "no service account token", "static pod", "tokenAttributes")
    assert cluster.requests == []


def test_without_a_mirror_there_is_nothing_to_do(ready: Node, cluster: ApiServer, alpha: str) -> None:
    run = ready.run(request("quay.io/team/app", alpha))
    assert_nothing_to_do(run, ready, "no table of registries.conf sends this image to a mirror")
    assert cluster.requests == []
    assert (run.entry["NAMESPACE"], run.entry["IMAGE"]) == ("team-alpha", "quay.io/team/app")


def test_without_any_registries_conf_there_is_nothing_to_do(node: Node, alpha: str) -> None:
    assert_nothing_to_do(node.run(request(token=alpha)), node, "no table of registries.conf")


def test_without_a_fitting_secret_there_is_nothing_to_do(ready: Node, cluster: ApiServer, alpha: str) -> None:
    cluster.add_secret("team-alpha", "mirror-creds", {"auths": {"mirror.corp:5001": {"auth": basic("a", "b")}}})
    run = ready.run(request(token=alpha))
    assert_nothing_to_do(run, ready, "no pull secret of namespace team-alpha has a credential")


def test_without_any_secret_there_is_nothing_to_do(ready: Node, cluster: ApiServer, alpha: str) -> None:
    cluster.delete_secret("team-alpha", "mirror-creds")
    assert_nothing_to_do(ready.run(request(token=alpha)), ready, "no pull secret of namespace team-alpha")


def test_the_global_auth_file_alone_is_no_reason_to_write(ready: Node, cluster: ApiServer, alpha: str) -> None:
    """CRI-O reads it anyway where there is no file of ours, and the kubelet must not record the pod's account."""
    cluster.delete_secret("team-alpha", "mirror-creds")
    ready.write("var/lib/kubelet/config.json", json.dumps({"auths": {"mirror.corp:5000": {"auth": basic("n", "p")}}}))
    assert_nothing_to_do(ready.run(request(token=alpha)), ready, "no pull secret of namespace team-alpha")


def test_another_namespace_s_secret_never_serves(ready: Node, cluster: ApiServer, alpha: str) -> None:
    cluster.delete_secret("team-alpha", "mirror-creds")
    cluster.add_secret("team-beta", "mirror-creds", {"auths": {"mirror.corp:5000": {"auth": basic("beta", "betapw")}}})
    assert_nothing_to_do(ready.run(request(token=alpha)), ready)


def test_where_cri_o_reads_no_auth_file_there_is_nothing_to_do(ready: Node, cluster: ApiServer, alpha: str) -> None:
    text = ready.registries_conf.read_text()
    ready.write_registries_conf('credential-helpers = ["secretservice"]\n' + text)
    run = ready.run(request(token=alpha))
    assert_nothing_to_do(run, ready, "credential-helpers", "containers-auth.json", "CRI-O reads no auth file")
    assert cluster.requests == []


def test_a_blocked_mirror_is_nothing_to_do(ready: Node, cluster: ApiServer, alpha: str) -> None:
    ready.write_registries_conf(
        ready.registries_conf.read_text() + '[[registry]]\nlocation = "mirror.corp:5000"\nblocked = true\n'
    )
    assert_nothing_to_do(ready.run(request(token=alpha)), ready, "blocked in registries.conf")
    assert cluster.requests == []


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "cannot be used"),
        (b"{no json", "cannot be used"),
        (b"[]", "cannot be used"),
        (b'{"auths":{"mirror.corp:5000":{}}}', "has no credential"),
        (b'{"auths":{"mirror.corp:5000":{"auth":"***"}}}', "not base64"),
        (b'{"auths":{"mirror.corp:5000":{"auth":"YWxwaGE="}}}', "not USER:PASSWORD"),
    ],
)
def test_a_bad_secret_is_skipped_with_a_reason(
    ready: Node, cluster: ApiServer, alpha: str, payload: bytes, reason: str
) -> None:
    cluster.add_secret("team-alpha", "a-bad", payload)
    run = ready.run(request(token=alpha))
    assert (run.status, run.stdout, run.stderr) == (0, ANSWER_WITH_RECORD, "")
    assert ready.auth_files() == {ALPHA_FILE: {"auths": MIRROR_ENTRY}}
    assert run.entry["SECRETS"] == "mirror-creds"
    assert run.entry["SKIPPED"].startswith("a-bad: ") and reason in run.entry["SKIPPED"]


def test_the_one_secret_that_cannot_be_used_is_in_the_journal(ready: Node, cluster: ApiServer) -> None:
    cluster.add_secret("team-gamma", "wrapped", {"value": json.dumps({"auths": MIRROR_ENTRY})})
    cluster.add_service_account("team-gamma")
    cluster.add_pod("team-gamma", "web", "node1")
    cluster.allow("team-gamma", "default")
    run = ready.run(request(token=cluster.mint_token("team-gamma", "default", "web")))
    reason = 'it has no "auths", but "value" instead'
    told = f"; secret wrapped is not used: its .dockerconfigjson cannot be used: {reason}"
    assert run.entry["REASON"].endswith(told) and run.entry["MESSAGE"].endswith(told)
    lists = [asked for asked in cluster.requests if asked.path.partition("?")[0].endswith("/secrets")]
    assert len(lists) == 1, "no run looks for secrets of other types"


def test_a_password_with_a_line_break_at_its_end_is_used_and_told(ready: Node, cluster: ApiServer, alpha: str) -> None:
    echoed = {"mirror.corp:5000/hub": {"auth": basic("alpha", "alphapw\n")}}
    cluster.add_secret("team-alpha", "echoed", {"auths": echoed})
    run = ready.run(request(token=alpha))
    written = {"mirror.corp:5000/hub/library/nginx": {"auth": basic("alpha", "alphapw\n")}}
    assert ready.auth_files() == {ALPHA_FILE: {"auths": written}}
    assert "secret echoed, key 'mirror.corp:5000/hub': the password ends with a newline" in run.entry["MESSAGE"]
    assert run.entry["PRIORITY"] == "4" and "alphapw" not in str(run.entry)


def test_a_mirror_whose_host_is_none_takes_no_credential_from_the_others(ready: Node, alpha: str) -> None:
    ready.write_mirrors("docker.io", "hub_cache.corp.example", "mirror.corp:5000/hub")
    run = ready.run(request(token=alpha))
    assert ready.auth_files() == {ALPHA_FILE: {"auths": MIRROR_ENTRY}}
    assert run.entry["SOURCES"].split()[0] == "hub_cache.corp.example/library/nginx"


# -- requests that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BROKEN_REQUESTS)
def test_a_request_that_is_none_is_a_fault(module_node: Node, name: str) -> None:
    node = module_node
    node.write_mirrors("docker.io", "mirror.corp:5000/hub")
    # Where nothing listens: a run that asks the API server in spite of it gets another message.
    node.write_kubeconfig("https://127.0.0.1:1")
    broken, words = BROKEN_REQUESTS[name]
    run = node.run(broken, "--deadline", "1s")
    assert_fault(run, node, *words)
    assert run.entry["OUTCOME"] == "fault-request"
    for part in JWT.split("."):
        assert part not in run.stderr + str(run.entries)


def test_a_request_of_more_than_a_mebibyte_is_a_fault(node: Node) -> None:
    started = node.start()
    with contextlib.suppress(BrokenPipeError):
        assert started.process.stdin
        started.process.stdin.write(b" " * (2 << 20))
    with contextlib.suppress(BrokenPipeError):
        assert started.process.stdin
        started.process.stdin.close()
    started.process.stdin = None
    assert_fault(started.finish(b""), node, "larger than 1 MiB")


def test_a_kubelet_that_does_not_read_is_a_fault(node: Node, cluster: ApiServer, alpha: str) -> None:
    node.join(cluster)
    started = node.start()
    assert started.process.stdout
    started.process.stdout.close()
    started.process.stdout = None
    run = started.finish(request(token=alpha))
    assert run.status == 1
    assert "cannot write the answer to the kubelet" in run.stderr


def test_closed_standard_streams_leave_no_traceback(node: Node) -> None:
    """A kubelet never does this; a person's shell script may."""
    environment = {"PATH": "/usr/bin:/bin"}
    command = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *node.command, *node.flags]
    assert subprocess.run(command, env=environment, check=False, timeout=20).returncode == 1


def test_an_answer_that_nobody_can_get_is_a_fault(node: Node, cluster: ApiServer, alpha: str) -> None:
    """And nothing that is opened in the run, as the journal's socket is, gets it instead."""
    node.join(cluster)
    node.command = ["sh", "-c", 'exec "$0" "$@" >&-', *node.command]
    run = node.run(request(token=alpha))
    assert (run.status, run.stdout) == (1, b"")
    assert run.stderr == "crio-credential-provider: cannot write the answer to the kubelet: Bad file descriptor\n"
    assert run.entry["OUTCOME"] == "fault-request"


UNUSABLE_STREAMS = {
    "<&-": "cannot read standard input: Bad file descriptor",
    ">&-": "cannot write the answer to the kubelet: Bad file descriptor",
    ">/dev/full": "cannot write the answer to the kubelet: No space left on device",
    "--help >&-": "cannot write to standard output: Bad file descriptor",
    "--version >&-": "cannot write to standard output: Bad file descriptor",
    "--help >/dev/full": "cannot write to standard output: No space left on device",
    "--version >/dev/full": "cannot write to standard output: No space left on device",
}


@pytest.mark.parametrize("redirection", UNUSABLE_STREAMS)
def test_a_stream_that_cannot_be_used_is_a_line_and_no_traceback(node: Node, redirection: str) -> None:
    script = f'exec "$0" "$@" {redirection}'
    node.command = ["sh", "-c", script, *node.command]
    run = node.run(request())
    assert (run.status, run.stdout) == (1, b"")
    assert run.stderr == f"crio-credential-provider: {UNUSABLE_STREAMS[redirection]}\n"


# -- configuration that is broken -------------------------------------------------------------------------------------

SENTENCE = "CRI-O refuses this configuration as well, and every pull on this node fails"


@pytest.mark.parametrize("name", BROKEN_TOML)
def test_broken_toml_is_a_fault_that_says_where(module_node: Node, name: str) -> None:
    node = module_node
    text, words = BROKEN_TOML[name]
    node.write(node.registries_conf, text)
    run = node.run(request(token=JWT))
    assert_fault(run, node, *words, SENTENCE)
    assert run.entry["OUTCOME"] == "fault-config"


def test_a_broken_drop_in_is_named(node: Node) -> None:
    node.write_mirrors("docker.io", "mirror.corp:5000/hub")
    node.write(node.registries_conf_dir / "50-team.conf", "[[registry]\n")
    assert_fault(node.run(request(token=JWT)), node, "registries.conf.d/50-team.conf", "line 1", SENTENCE)


def test_an_unreadable_drop_in_is_a_fault(make_node: NodeMaker, plugin: Path) -> None:
    node = make_node(str(plugin))
    node.registries_conf_dir.mkdir(parents=True)
    (node.registries_conf_dir / "a.conf").symlink_to("a.conf")
    assert_fault(node.run(request(token=JWT)), node, "registries.conf.d/a.conf")


def test_a_bug_is_told_by_its_place_alone(module_node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw may quote anything, so that its text is never shown."""
    node = module_node
    # sitecustomize is imported by every python -m: the bug is planted there.
    node.write(
        "site/sitecustomize.py",
        "import crio_credential_provider.pull.decision as p\n"
        "def complete(*args):\n    raise KeyError('canary-of-a-bug')\n"
        "p.complete = complete\n",
    )
    # The node puts its own PYTHONPATH in; the helper's directory goes before it.
    command = [sys.executable, "-c", "from crio_credential_provider.__main__ import main; main()", *node.flags]
    env = {**node.environment, "PYTHONPATH": f"{node.root}/site:{SOURCES}"}
    done = subprocess.run(command, input=request(token=JWT), env=env, capture_output=True, check=False)
    assert done.returncode == 1
    line = done.stderr.decode()
    assert line.count("\n") == 1 and "internal error: KeyError at " in line and "sitecustomize.py:3" in line
    assert node.journal
    node.journal.flush()
    assert "canary" not in line + str(node.journal.entries)
    assert node.journal.entries[-1]["OUTCOME"] == "fault-bug"


# -- after the answer: housekeeping decides nothing --------------------------------------------------------------------

RUN_MAIN = "from crio_credential_provider.__main__ import main\nmain()\n"


def planted(make_node: NodeMaker, cluster: ApiServer, code: str) -> Node:
    """A node whose plugin has a fault planted in it, and which has something to sweep."""
    node = make_node(sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(SOURCES)!r})\n{code}{RUN_MAIN}")
    node.join(cluster)
    stale = node.write(node.auth_dir / f"team-gone-{NGINX_HASH}.json", "{}")
    node.auth_dir.chmod(0o700)
    os.utime(stale, (0, 0))
    return node


FAILURES = {
    "a bug": "raise KeyError('canary')",
    "no memory": "raise MemoryError('canary')",
    "too deep": "(lambda f: f(f))(lambda f: f(f))",
    "the disk": "raise OSError(5, 'canary')",
    "a value": "int('9' * 5000)",
    "interrupted": "raise KeyboardInterrupt('canary')",
    "an exit": "raise SystemExit('canary')",
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("place", ["sweep.find_stale", "sweep.remove_stale", "plugin._has_files", "sweep.sweep"])
def test_a_failing_sweep_costs_neither_the_answer_nor_the_entry(
    make_node: NodeMaker, cluster: ApiServer, alpha: str, place: str, failure: str
) -> None:
    code = "from crio_credential_provider.pull import plugin, sweep\n"
    node = planted(make_node, cluster, f"{code}def fail(*_, **__):\n    {FAILURES[failure]}\n{place} = fail\n")
    run = node.run(request(token=alpha))
    assert (run.status, run.stdout, run.stderr) == (0, ANSWER_WITH_RECORD, "")
    assert run.entry["OUTCOME"] == "auth-file-written" and run.entry["PRIORITY"] == "4"
    assert run.entry["AUTH_FILE"] and run.entry["IMAGE"] == NGINX and run.entry["POD"] == "web"
    assert "; then, while removing stale files: internal error: " in run.entry["MESSAGE"]
    assert "canary" not in str(run.entries) and "Exceeds" not in str(run.entries)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("name", ["Audit._log", "_fields", "decisions"])
def test_a_failing_log_costs_neither_the_answer_nor_the_entry(
    make_node: NodeMaker, cluster: ApiServer, alpha: str, name: str, failure: str
) -> None:
    code = "import crio_credential_provider.pull.audit as audit\n"
    node = planted(make_node, cluster, f"{code}def fail(*_, **__):\n    {FAILURES[failure]}\naudit.{name} = fail\n")
    run = node.run(request(token=alpha), "--log-level=debug")
    assert (run.status, run.stdout, run.stderr) == (0, ANSWER_WITH_RECORD, "")
    assert run.entry["OUTCOME"] == "auth-file-written" and run.entry["AUTH_FILE"]
    assert "; then, while logging: internal error: " in run.entry["MESSAGE"]
    assert "canary" not in str(run.entries) and "Exceeds" not in str(run.entries)


def test_where_nothing_can_be_logged_the_answer_is_all_that_is_seen(
    make_node: NodeMaker, cluster: ApiServer, alpha: str
) -> None:
    code = "from crio_credential_provider.platform.journal import Journal\n"
    code += "def fail(*_, **__):\n    raise KeyError('canary')\n"
    run = planted(make_node, cluster, f"{code}Journal.send = fail\n").run(request(token=alpha))
    assert (run.status, run.stdout, run.stderr) == (0, ANSWER_WITH_RECORD, "")


def test_a_failing_sweep_after_a_fault_leaves_the_fault_as_it_was(
    make_node: NodeMaker, cluster: ApiServer, alpha: str
) -> None:
    code = "import crio_credential_provider.pull.plugin as plugin\ndef fail(*_, **__):\n    raise KeyError('canary')\n"
    node = planted(make_node, cluster, f"{code}plugin._has_files = fail\n")
    run = node.run(b"{}")
    assert run.status == 1 and run.stderr.count("\n") == 1
    assert run.entry["OUTCOME"] == "fault-request" and run.entry["PRIORITY"] == "3"
    assert "while removing stale files: internal error: KeyError at " in run.entry["MESSAGE"]
    assert "internal error" not in run.stderr


def test_what_a_finalizer_or_a_thread_raises_is_not_printed(
    make_node: NodeMaker, cluster: ApiServer, alpha: str
) -> None:
    """The interpreter prints it by itself, with what the exception says."""
    code = (
        "import _thread, time\nimport crio_credential_provider.pull.plugin as plugin\nsweep = plugin._sweep\n"
        "class Broken:\n    def __del__(self):\n        raise KeyError('canary')\n"
        "def fail():\n    raise KeyError('canary')\n"
        "def both(*run):\n    Broken()\n    _thread.start_new_thread(fail, ())\n    time.sleep(0.2)\n    sweep(*run)\n"
        "plugin._sweep = both\n"
    )
    run = planted(make_node, cluster, code).run(request(token=alpha))
    assert (run.status, run.stdout, run.stderr) == (0, ANSWER_WITH_RECORD, "")


@pytest.mark.parametrize("name", ["loads", "unknown_variables", "Audit", "Audit.fail"])
def test_a_bug_where_nothing_is_known_yet_is_one_line(
    make_node: NodeMaker, cluster: ApiServer, alpha: str, name: str
) -> None:
    code = (
        "import crio_credential_provider.pull.plugin as plugin\nfrom crio_credential_provider.platform import journal\n"
    )
    code += f"def fail(*_, **__):\n    raise KeyError('canary')\nplugin.{name} = fail\n"
    run = planted(make_node, cluster, code).run(b"{}")
    assert run.status == 1
    assert run.stderr.startswith("crio-credential-provider: internal error: KeyError at ")
    assert run.stderr.count("\n") == 1 and "canary" not in run.stderr
