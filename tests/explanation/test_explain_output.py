"""``explain`` on the screen: what never shows, long lists, terminals and pipes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from fcntl import ioctl

import pytest

from commandline import typed
from conftest import NodeMaker
from crio_credential_provider.testbed.cluster import ApiServer
from explaining import CANARY, CONF, FORMS, MIRROR, SOURCE, Place, assert_clean, entry, secret
from node import COMMAND, ENVIRONMENT, NGINX_HASH, PROGRAM, basic, recorded_request

pytestmark = pytest.mark.process


@pytest.fixture
def place(make_node: NodeMaker, cluster: ApiServer) -> Place:
    return Place(make_node(*COMMAND, journald=False), cluster)


# -- what never shows -------------------------------------------------------------------------------------------------


def test_names_cannot_move_the_cursor(place: Place) -> None:
    """Keys come from tenants, tables from files that others may have written."""
    place.node.write(place.node.registries_conf_dir / "x.conf", '[[registry]]\nlocation = "docker.io/\\u001b[2J"\n')
    keys = {**entry(f"{MIRROR}/\x1b]0;\ntitle\x07"), f"{MIRROR}\u202e": {}, **entry("docker.io")}
    place.cluster.add_secret("team-beta", "creds", {"auths": keys})
    done = place.run("nginx:1.27", "-n", "team-beta", "--pod=web")
    assert done.status == 3
    assert "docker.io/\\x1b[2J" in done.flat and f"{MIRROR}/..." in done.flat and "title" not in done.flat
    assert place.beta().status == 3


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (f"https://user:{CANARY}@{MIRROR}/v2/", f"https://***@{MIRROR}/v2/"),
        (f"https://{MIRROR}/user:{CANARY}@x", f"https://{MIRROR}/..."),
        (f"https://{MIRROR}/?password={CANARY}", f"https://{MIRROR}/..."),
        (f"https://user:{CANARY}@{MIRROR}/a://b", f"https://***@{MIRROR}/..."),
        (f"https://{MIRROR}/{CANARY}", f"https://{MIRROR}/..."),
        (f"{MIRROR}/{CANARY}", f"{MIRROR}/..."),
        (f"{MIRROR}/hub:{CANARY}", f"{MIRROR}/..."),
        (f"{MIRROR}/v2/{CANARY}", f"{MIRROR}/..."),
        (f"mirror.corp:{CANARY}", "mirror.corp:..."),
        (f"mirror.corp:{CANARY}/x@y", "mirror.corp:..."),
        (f"{CANARY}://{MIRROR}", "(not a host)"),
        (f"*.corp:5000/{CANARY}", "*.corp:5000/..."),
    ],
)
@pytest.mark.parametrize("member", [{}, {"auth": "x"}, *entry("").values()])
def test_a_password_in_a_key_never_shows(place: Place, key: str, shown: str, member: dict[str, str]) -> None:
    place.cluster.add_secret("team-beta", "creds", {"auths": {key: member}})
    done = place.beta()
    text = place.run("nginx:1.27", "-n", "team-beta", "--pod=web")
    assert CANARY.lower() not in (done.out + text.out).lower()
    source = done.source(SOURCE)
    told_keys = [(source["credential"] or {}).get("key"), *(other["key"] for other in source["others"])]
    assert shown in told_keys and done.status in (0, 3)


def test_a_key_with_a_password_is_told_what_to_write_instead(place: Place) -> None:
    place.cluster.add_secret("team-beta", "creds", {"auths": {f"https://user:{CANARY}@{MIRROR}/v2/": {}}})
    assert f"a key has no user name: write {MIRROR}" in place.beta().report["verdict"]["text"]


def test_blanks_around_a_key_are_seen(place: Place) -> None:
    items = [secret("a", entry(f" {MIRROR}"))]
    done = place.run("nginx", "-n", "team-alpha", "--secrets", place.write_objects(FORMS["list"](items)))
    assert f"Secret a has the key ' {MIRROR}': it has leading or trailing spaces" in done.flat
    assert f"in place of ' {MIRROR}'" in done.flat and f"not secret a, key ' {MIRROR}':" in done.flat


def test_near_misses_are_told_nearest_first(place: Place) -> None:
    auths = {**entry("mirror.corp"), **entry("docker.io"), **entry("quay.io"), **entry(f"{MIRROR}/hub2")}
    place.cluster.add_secret("team-beta", "creds", {"auths": auths})
    source = place.beta().source(SOURCE)
    assert [other["key"] for other in source["others"]] == [f"{MIRROR}/hub2", "docker.io", "mirror.corp"]
    assert source["othersLeft"] == 1


def test_why_the_others_lost(place: Place) -> None:
    keys = ("*.corp:5000", f"https://{MIRROR}/v1/", MIRROR, f"{MIRROR}/hub")
    for name in ("b", "c"):
        auths = {key: value for key in keys for value in entry(key).values()}
        place.cluster.add_secret("team-beta", name, {"auths": auths})
    source = place.beta().source(SOURCE)
    assert source["credential"] == {"from": "secret", "secret": "b", "key": f"{MIRROR}/hub"}
    assert [(other["secret"], other["key"], other["why"]) for other in source["others"]] == [
        ("c", f"{MIRROR}/hub", "same key, and secret b comes first"),
        ("b", MIRROR, f"it is less specific than {MIRROR}/hub"),
        ("c", MIRROR, f"it is less specific than {MIRROR}/hub"),
        ("b", keys[1], "a key written as a URL or with another name of the host comes after an exact key"),
        ("c", keys[1], "a key written as a URL or with another name of the host comes after an exact key"),
    ]
    assert source["othersLeft"] == 2


def test_entries_without_a_credential_are_told(place: Place) -> None:
    auths = {SOURCE: {}, f"{MIRROR}/hub": {"auth": "!"}, MIRROR: {"auth": basic("user", CANARY)}}
    place.cluster.add_secret("team-beta", "creds", {"auths": auths})
    others = [(other["key"], other["why"]) for other in place.beta().source(SOURCE)["others"]]
    assert others == [(SOURCE, "it has no credential"), (f"{MIRROR}/hub", "it has an auth that is not base64")]


def test_many_secrets_are_told_of_in_few_lines(place: Place) -> None:
    for number in range(40):
        auths = {**entry(MIRROR), **entry(f"{MIRROR}/hub{number}")}
        place.cluster.add_secret("team-alpha", f"s{number:02}", {"auths": auths})
    source = place.alpha().source(SOURCE)
    assert (source["credential"]["secret"], len(source["others"]), source["othersLeft"]) == ("creds", 5, 35)
    assert source["others"][0] == {"secret": "s00", "key": MIRROR, "why": "same key, and secret creds comes first"}


def test_many_secrets_and_tables_fit_on_a_screen(place: Place) -> None:
    tables = [f'[[registry]]\nlocation = "docker.io/team{number:03}"\n' for number in range(300)]
    place.node.write_registries_conf(CONF + "\n".join(tables))
    junk = [{**secret(f"j{number:03}", entry(MIRROR)), "data": {}} for number in range(300)]
    helm = [{**secret(f"h{number:03}", entry(MIRROR)), "type": "helm.sh/release.v1"} for number in range(300)]
    good = [secret(f"s{number:03}", entry("other.corp")) for number in range(300)]
    path = place.write_objects(FORMS["list"]([*junk, *helm, *good]))
    arguments = ("docker.io/team123x/app", "-n", "team-alpha", "--secrets", path)
    done = place.run(*arguments)
    assert len(done.out.splitlines()) < 100
    assert "s018, s019 and 280 more" in done.flat and "h018, h019 and 280 more are of type helm.sh" in done.flat
    assert "not used: 280 more, which --output json shows" in done.flat
    report = place.json(*arguments).report
    assert (len(report["secrets"]["looked"]), len(report["secrets"]["skipped"])) == (300, 300)
    assert [other["prefix"] for other in report["registries"]["others"]][:2] == [
        "docker.io/team123",
        "docker.io/team120",
    ]


def test_a_file_name_keeps_its_letters(place: Place) -> None:
    (place.node.root / "objects.yaml").write_text(json.dumps(secret("a", entry(MIRROR))))
    with contextlib.chdir(place.node.root):
        out = place.run("nginx", "-n", "team-alpha", "--pod=p", "--secrets-from=pod", "--secrets", "objects.yaml").out
    assert "objects.yaml has no Pod team-alpha/p" in out


# -- terminals and pipes ----------------------------------------------------------------------------------------------


def command(place: Place, *arguments: str) -> list[str]:
    return [
        *COMMAND,
        "explain",
        "nginx:1.27",
        "-n",
        "team-alpha",
        "--pod=web",
        "--root",
        str(place.node.root),
        *arguments,
    ]


def environment(**more: str) -> dict[str, str]:
    return {**ENVIRONMENT, "TERM": "xterm-256color", **more}


def on_terminal(place: Place, columns: int, **more: str) -> str:
    """What the command writes to a terminal of that width."""
    try:
        leader, follower = pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminal can be made here: {error}")
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command(place), stdout=follower, stderr=subprocess.PIPE, env=environment(**more))
    os.close(follower)
    data = b"".join(_read_all(leader))
    assert process.wait(30) == 0
    assert process.communicate()[1] == b""
    return data.decode().replace("\r\n", "\n")


def _read_all(descriptor: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError), open(descriptor, "rb", buffering=0) as file:
        while block := file.read(65536):
            yield block


def test_a_terminal_of_40_columns(place: Place) -> None:
    text = on_terminal(place, 40)
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    # Only a word that does not fit is longer: paths and keys are copied.
    assert [line for line in plain.splitlines() if len(line) > 40 and len(line.split()[-1]) < 20] == []
    assert f"/team-alpha-{NGINX_HASH}.json" in plain, "nothing is cut off, or in two"
    assert_clean(plain)


def test_no_color(place: Place) -> None:
    assert "\x1b[3" not in on_terminal(place, 100, NO_COLOR="1")


def test_a_pipe_gets_no_colour_and_may_close(place: Place) -> None:
    done = subprocess.run(command(place), capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for arguments in ([], ["--output=json"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            command(place, *arguments), stdout=writer, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_is_told(place: Place) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(place), stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )
    assert (done.returncode, "No space left" in done.stderr) == (1, True)


def test_standard_input_may_be_the_request_or_the_secrets(place: Place) -> None:
    base = [*COMMAND, "explain", "--root", str(place.node.root), "--output=json"]
    runs = (
        (["--request", "-"], recorded_request("request-static-pod"), 3),
        (["nginx", "-n", "team-alpha", "--secrets", "-"], json.dumps(secret("a", entry(MIRROR))).encode(), 0),
    )
    for arguments, stdin, status in runs:
        done = subprocess.run([*base, *arguments], input=stdin, capture_output=True, env=environment(), check=False)
        assert (done.returncode, done.stderr) == (status, b"")


@pytest.mark.skipif(bool(PROGRAM), reason="what ships takes no PYTHONIOENCODING")
@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", b"h\\xfcb\\u65e5"), ("latin-1", b"h\xfcb\\u65e5"), ("utf-8", b"h\xc3\xbcb\xe6\x97\xa5")],
)
def test_an_encoding_that_lacks_a_letter(place: Place, encoding: str, shown: bytes) -> None:
    table = '[[registry]]\nlocation = "docker.io/h\u00fcb\u65e5"\n'
    place.node.write(place.node.registries_conf_dir / "x.conf", table)
    variables = environment(PYTHONIOENCODING=encoding)
    done = subprocess.run(command(place), capture_output=True, env=variables, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown in done.stdout


def test_the_help_has_examples_and_exit_statuses() -> None:
    done = typed("explain", "--help")
    assert done.status == 0
    for words in ("Examples:", "Exit status:", "--secrets FILE", "--token-file FILE", "--config FILE", "-n NAMESPACE"):
        assert words in done.out
