"""``audit --live``: mirrors are asked once with each credential, and no credential goes anywhere else."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import docker_registry
from auditing import PASSWORD, USER, Ran, account, cluster_objects, docker_config, grant, pod, run, secret, write_list
from crio_credential_provider.commands.auditing import audit as command
from crio_credential_provider.testbed.certificates import Authority
from crio_credential_provider.testbed.loopback import Answer, Connection, LoopbackServer, Request
from crio_credential_provider.testbed.registry import MirrorRegistry
from node import basic
from servers import refused_port

pytestmark = pytest.mark.slow

Objects = list[dict[str, Any]]
Audit = Callable[..., Ran]
NGINX = "docker.io/library/nginx:1.27"
GOOD = ("alpha", "kanarienvogel-alpha-73")


def mirror_of(prefix: str, host: str, more: str = "") -> str:
    return f'[[registry]]\nlocation = "{prefix}"\n[[registry.mirror]]\nlocation = "{host}/hub"\n{more}'


INSECURE = "insecure = true\n"


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """Runs the command with --live on objects, with registries.conf; no password may come out of it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)

    def on(conf: str, objects: Objects, *flags: str) -> Ran:
        (tmp_path / "registries.conf").write_text(conf)
        (tmp_path / "none").write_text("{}")
        file = write_list(tmp_path / "all.json", [*cluster_objects(), *objects])
        own = (f"--registries-conf={tmp_path}/registries.conf", f"--global-auth-file={tmp_path}/none", "--output=json")
        ran = run(file, *own, "--live", "--live-rate=1000", *flags)
        for canary in (GOOD[1], basic(*GOOD), base64.b64encode(GOOD[1].encode()).decode()[:-4]):
            assert canary not in ran.stdout + ran.stderr
        return ran

    return on


def tenant(namespace: str, *hosts: str, login: tuple[str, str] = GOOD, image: str = NGINX) -> Objects:
    """A namespace whose pod pulls with a credential for these hosts."""
    made = secret(namespace, "creds", docker_config(*hosts, user=login[0], password=login[1]))
    return [account(namespace), *grant(namespace), made, pod(namespace, "p", image)]


@pytest.fixture
def mirror() -> Iterator[MirrorRegistry]:
    with MirrorRegistry({GOOD[0]: (GOOD[1], ["hub/library"]), USER: (PASSWORD, ["hub"])}) as made:
        made.add_image("hub/library/nginx", "1.27")
        yield made


def answers(ran: Ran, namespace: str) -> list[str | None]:
    [pull] = [pull for pull in ran.report["pulls"] if pull["namespace"] == namespace]
    return [source["answer"] for source in pull["sources"]]


def test_what_a_real_registry_answers(audit: Audit, authority: Authority, tmp_path: Path) -> None:
    """Debian's docker-registry, over TLS that is verified."""
    identity = authority.issue("r", ip_addresses=["127.0.0.1"])
    (tmp_path / "tls.crt").write_text(identity.certificate_pem)
    (tmp_path / "tls.key").write_text(identity.key_pem)
    http = f", tls: {{certificate: {tmp_path}/tls.crt, key: {tmp_path}/tls.key}}"
    with docker_registry.running(tmp_path, "hub/library/nginx", http=http) as (host, _):
        objects = [
            *tenant("good", host, login=docker_registry.ALPHA),
            *tenant("rotated", host, login=("alpha", PASSWORD)),
            *tenant("other-image", host, login=docker_registry.ALPHA, image="docker.io/team/app:1"),
        ]
        ran = audit(mirror_of("docker.io", host), objects)
        assert {reason for _, reason in ran.found().values()} == {"mirror-unreachable"}
        assert answers(ran, "good")[0] == "tls"
        trusted = tmp_path / "home/.config/containers/certs.d" / host
        trusted.mkdir(parents=True)
        (trusted / "ca.crt").write_text(authority.certificate_pem)
        ran = audit(mirror_of("docker.io", host), objects)
    assert ran.status == 1
    assert {namespace: found for (namespace, _), found in ran.found().items()} == {
        "good": ("works", None),
        "rotated": ("fails", "credential-refused"),
        "other-image": ("works", None),
    }
    assert [answers(ran, name)[0] for name in ("good", "rotated")] == ["ok", "unauthorized"]
    assert "alphapw" not in ran.stdout and basic(*docker_registry.ALPHA) not in ran.stdout
    [rotated] = [pull for pull in ran.report["pulls"] if pull["namespace"] == "rotated"]
    assert "it refuses the credential" in rotated["text"] and "secret creds" in rotated["text"]
    assert "1 mirror asked, 2 questions" in ran.report["notes"]


def test_each_credential_is_shown_once(audit: Audit, mirror: MirrorRegistry) -> None:
    """However many namespaces and images have it."""
    objects: Objects = []
    for number in range(20):
        objects += tenant(f"good{number}", mirror.host)
        objects += tenant(f"bad{number}", mirror.host, login=("alpha", PASSWORD))
        objects.append(pod(f"good{number}", "p2", "docker.io/library/redis:7"))
    ran = audit(mirror_of("docker.io", mirror.host, INSECURE), objects)
    assert {(name[0].rstrip("0123456789"), *found) for name, found in ran.found().items()} == {
        ("good", "works", None),
        ("bad", "fails", "credential-refused"),
    }
    assert "1 mirror asked, 2 questions" in ran.report["notes"]
    shown = [(asked.user, asked.path) for asked in mirror.log if asked.user]
    assert 1 <= len(shown) <= 4, shown


def test_a_repository_that_is_not_allowed(audit: Audit, mirror: MirrorRegistry) -> None:
    """Says nothing of the others that the same credential is for."""
    objects = [*tenant("a", mirror.host, image="docker.io/a-team/secret:1"), pod("a", "p2", NGINX)]
    objects += tenant("b", mirror.host)
    ran = audit(mirror_of("docker.io", mirror.host, INSECURE), objects)
    assert ran.found() == {
        ("a", "docker.io/a-team/secret:1"): ("fails", "not-allowed"),
        ("a", NGINX): ("works", None),
        ("b", NGINX): ("works", None),
    }


def test_a_mirror_that_requires_none(audit: Audit, mirror: MirrorRegistry) -> None:
    """`anonymous` becomes certain: it needs none, or fails."""
    with MirrorRegistry() as free:
        free.add_image("hub/app/app", "1")
        conf = mirror_of("ghcr.io", free.host, INSECURE) + mirror_of("quay.io", mirror.host, INSECURE)
        objects = [account("a"), *grant("a"), secret("a", "s", docker_config("other.corp"))]
        objects += [pod("a", "p", "ghcr.io/app/app:1"), pod("a", "q", "quay.io/library/nginx:1.27")]
        ran = audit(conf, objects)
        assert ran.found() == {
            ("a", "ghcr.io/app/app:1"): ("anonymous", "wrong-key"),
            ("a", "quay.io/library/nginx:1.27"): ("fails", "wrong-key"),
        }
        assert f"{free.host}/hub/app/app requires no credential" in ran.stdout
        assert not [asked for asked in (*free.log, *mirror.log) if asked.user]


def test_one_of_two_mirrors_is_enough(audit: Audit, mirror: MirrorRegistry) -> None:
    with MirrorRegistry({GOOD[0]: ("another", ["hub"])}) as other:
        second = f'[[registry.mirror]]\nlocation = "{mirror.host}/hub"\n{INSECURE}'
        conf = mirror_of("docker.io", other.host, INSECURE + second)
        ran = audit(conf, tenant("a", mirror.host, other.host))
        assert ran.found() == {("a", NGINX): ("works", None)}
        assert answers(ran, "a")[:2] == ["unauthorized", "ok"]


def test_a_mirror_that_is_away_is_asked_once(audit: Audit) -> None:
    """And the pull is neither good nor bad."""
    with refused_port() as port:
        host = f"127.0.0.1:{port}"
        objects = [one for at in range(30) for one in tenant(f"a{at}", host, login=("alpha", f"pw{at}"))]
        ran = audit(mirror_of("docker.io", host), objects)
        assert (ran.status, set(ran.found().values())) == (0, {("not-checked", "mirror-unreachable")})
        assert "1 mirror asked, 1 question" in ran.report["notes"]
        assert audit(mirror_of("docker.io", host), objects, "--fail-on=not-checked").status == 1


def test_a_credential_goes_to_its_own_mirror_alone(audit: Audit, mirror: MirrorRegistry) -> None:
    """Not where registries.conf leads without a key for it, nor to the image's own registry."""
    with MirrorRegistry() as other:
        conf = mirror_of("docker.io", mirror.host, INSECURE) + mirror_of("quay.io", other.host, INSECURE)
        objects = [*tenant("a", mirror.host), pod("a", "q", "quay.io/library/nginx:1.27")]
        objects.append(pod("a", "own", f"{other.host}/team/app:1"))
        audit(conf, objects)
        assert not [asked for asked in other.log if asked.user]
        assert not [asked for asked in other.log if "team/app" in asked.path]
        assert {asked.user for asked in mirror.log} == {None, GOOD[0]}


def test_the_rate_and_the_deadline(audit: Audit, mirror: MirrorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [one for at in range(8) for one in tenant(f"a{at}", mirror.host, login=(USER, f"{PASSWORD}{at}"))]
    conf = mirror_of("docker.io", mirror.host, INSECURE)
    start = time.monotonic()
    audit(conf, objects, "--live-rate=10")
    assert time.monotonic() - start >= 0.7
    # Turns at 0 s and 1 s.
    monkeypatch.setattr(command, "_ASKING", 1.5)
    ran = audit(conf, objects, "--live-rate=1")
    late = [pull for pull in ran.report["pulls"] if "mirror-not-asked" in pull["unchecked"]]
    assert 6 <= len(late) <= 7
    assert {pull["outcome"] for pull in late} == {"works"}
    assert any(f"for {len(late)} pulls, no mirror was asked" in note for note in ran.report["notes"])


def test_many_images_of_one_tenant_let_the_credentials_through(
    audit: Audit, mirror: MirrorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_conf = mirror_of("ghcr.io/open", f"{mirror.host}/open", INSECURE)
    objects = [pod("a", f"p{at}", f"ghcr.io/open/image{at}:1") for at in range(20)]
    monkeypatch.setattr(command, "_ASKING", 1.5)
    conf = mirror_of("docker.io", f"{mirror.host}", INSECURE) + open_conf
    keyed = tenant("z", f"{mirror.host}/hub/library")
    ran = audit(conf, [account("a"), *grant("a"), *objects, *keyed], "--live-rate=1")
    assert sum("mirror-not-asked" in pull["unchecked"] for pull in ran.report["pulls"]) >= 18
    assert answers(ran, "z") == ["ok", None]


def test_a_question_has_its_whole_time(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little is left when it is asked: else the mirror would be called dead, for all pulls."""
    monkeypatch.setattr(command, "_ASKING", 1)

    def slow(request: Request, connection: Connection) -> None:
        time.sleep(1.2 if request.path == "/v2/" else 0)
        connection.send(refused(request).dumps(request.method))

    with LoopbackServer(slow) as server:
        host = f"127.0.0.1:{server.port}"
        objects = [*tenant("a", host), *tenant("b", host, login=("b", "kanarienvogel-b"))]
        ran = audit(mirror_of("docker.io", host, INSECURE), objects)
    assert sorted(found for _, found in ran.found().items()) == [("fails", "credential-refused"), ("works", None)]
    assert any("for 1 pull, no mirror was asked" in note for note in ran.report["notes"])


def refused(request: Request) -> Answer:
    return Answer(401, [("WWW-Authenticate", 'Basic realm="x"'), ("Content-Type", "application/json")], b"{}")


@pytest.mark.parametrize("status", [400, 429, 500, 502])
@pytest.mark.parametrize("has_credentials", [True, False])
def test_what_a_mirror_says_of_one_repository_is_not_said_of_others(
    audit: Audit, status: int, has_credentials: bool
) -> None:
    """Whose namespaces have nothing to do with it."""

    def answer(request: Request, connection: Connection) -> None:
        found = refused(request)
        if "/evil/" in request.path:
            found = Answer(status, [("Content-Type", "application/json")], b"{}")
        connection.send(found.dumps(request.method))

    with LoopbackServer(answer) as server:
        host = f"127.0.0.1:{server.port}"
        keys = (host,) if has_credentials else ("other.corp",)
        # The first by name is asked first.
        objects = tenant("a-evil", *keys, login=("evil", "kanarienvogel-evil"), image="docker.io/evil/app:1")
        objects += tenant("b", *keys)
        ran = audit(mirror_of("docker.io", host, INSECURE), objects)
    assert ran.found() == {
        ("a-evil", "docker.io/evil/app:1"): ("not-checked", "mirror-unreachable"),
        ("b", NGINX): ("fails", "credential-refused" if has_credentials else "wrong-key"),
    }
    [other] = [pull for pull in ran.report["pulls"] if pull["namespace"] == "b"]
    assert "evil" not in str(other)


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "x", "1001"])
def test_a_rate_that_is_none(audit: Audit, rate: str) -> None:
    ran = audit("", [], f"--live-rate={rate}")
    assert ran.status == 2
    assert ran.stderr.endswith(f"--live-rate: {rate!r} is not a number above 0, up to 1000\n")


@pytest.mark.parametrize("form", ["text", "html", "sarif", "junit"])
def test_every_form_tells_it(audit: Audit, mirror: MirrorRegistry, form: str) -> None:
    objects = tenant("rotated", mirror.host, login=("alpha", PASSWORD))
    ran = audit(mirror_of("docker.io", mirror.host, INSECURE), objects, f"--output={form}")
    assert ran.status == 1
    assert "credential-refused" in ran.stdout and "it refuses the credential" in " ".join(ran.stdout.split())
