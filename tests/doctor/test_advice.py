"""What a person is told to do is done, by the letter, and the pull then finds its credential.

Each file is one that somebody wrote: explain is asked, its ``To do`` is carried out in the file or the secret that it
names, and so on until there is nothing to do.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from crio_credential_provider.commands import doctor, explain, manifests
from crio_credential_provider.explanation import near
from crio_credential_provider.images.dockerconfig import AuthEntry, DockerConfig
from crio_credential_provider.kubernetes.pullsecrets import PullSecret
from crio_credential_provider.pull import keyring

MIRROR = "mirror.corp.example:5000"
CONF = "etc/containers/registries.conf"


class Advised:
    """A root with one registries.conf, and the secrets of a namespace as a file."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], conf: str, auths: dict[str, Any]) -> None:
        self.root = root
        self._capsys = capsys
        self.conf = root / CONF
        self.conf.parent.mkdir(parents=True)
        self.conf.write_text(conf)
        self.auths = auths

    def explain(self, image: str) -> dict[str, Any]:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "a", "namespace": "team-alpha"},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": json.dumps({"auths": self.auths})},
        }
        file = self.root / "secrets.json"
        file.write_text(json.dumps(secret))
        explain.run([image, "-n", "team-alpha", f"--root={self.root}", f"--secrets={file}", "--output=json"])
        report: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return report

    def lines(self) -> list[str]:
        return self.conf.read_text().splitlines()

    def mend(self, remedy: str, text: str) -> None:
        """Does to the file what the remedy says."""
        lines = self.lines()
        numbers = [int(number) for number in re.findall(rf"{re.escape(str(self.conf))}:(\d+)", remedy)]
        assert numbers, f"no FILE:LINE in: {remedy}"
        here = numbers[0] - 1
        bare = re.sub(rf"{re.escape(str(self.conf))}:\d+", "@", remedy).removesuffix(", the value in double quotes")
        bare = bare.removesuffix(", and reload CRI-O").removeprefix("if that is not found there, ")
        if found := re.match(r"above @ write (\[\[registry\]\]) and (location = \"[^\"]+\")", bare):
            lines[here:here] = [found[1], found[2]]
        elif bare.startswith("write [[registry]] above @"):
            lines[here:here] = ["[[registry]]"]
        elif found := re.match(r"write (location = \"[^\"]+\") below @", bare):
            lines[here + 1 : here + 1] = [found[1]]
        elif bare.startswith("remove one of the two tables"):
            end = next((n for n in range(numbers[1], len(lines)) if "[[registry]]" in lines[n]), len(lines))
            del lines[numbers[1] - 1 : end]
        elif bare.startswith("move what is missing there from @ to @"):
            # The second table's mirrors follow the first's.
            end = next((n for n in range(here + 1, len(lines)) if "[[registry]]" in lines[n]), len(lines))
            moved = [line for line in lines[here:end] if "prefix" not in line]
            mirrors = moved[next(n for n, line in enumerate(moved) if "mirror]]" in line) :]
            del lines[here:end]
            after = next((n for n in range(numbers[1], len(lines)) if "[[registry]]" in lines[n]), len(lines))
            lines[after:after] = mirrors
        elif bare.startswith("move "):
            line = lines.pop(here)
            lines.insert(numbers[1] - 1, line)
        elif found := re.match(r"in @ write ([\w-]+) in place of ([\w-]+)$", bare):
            lines[here] = re.sub(rf"\b{found[2]}\b", found[1], lines[here], flags=re.IGNORECASE)
        elif found := re.match(r"in @ write (unqualified-search-registries = .*?\]) above every table in place", bare):
            del lines[here : here + 2]
            lines.insert(0, found[1])
        elif bare.startswith("in @ write [["):
            lines[here] = bare.removeprefix("in @ write ").partition(" in place of ")[0]
        elif found := re.match(r"in @ write ([\w-]+) = (.+?)( and insecure = true.*| in place of [\w-]+)?$", bare):
            key = (
                found[1] if re.search(rf"\b{found[1]}\b", lines[here], re.IGNORECASE) else (found[3] or "")[13:].strip()
            )
            assert key, f"{bare}: {lines[here]}"
            added = "\ninsecure = true" if "insecure = true" in (found[3] or "") else ""
            pattern = rf"""(^\s*)?\b{re.escape(key)}(\s*[=:]+\s*|\s+)(\[.*\]|".*?"|[^\s,;}}]+)([,;]$)?"""
            setting = f"{found[1]} = {found[2]}".replace("\\", "\\\\")
            lines[here] = re.sub(pattern, setting, lines[here], count=1, flags=re.IGNORECASE) + added
        elif found := re.match(r'in @ write (".*")$', bare):
            wrong = re.search(r": '([^']*)' (?:must be|is no)", text)
            assert wrong, text
            lines[here] = lines[here].replace(f'"{wrong[1]}"', found[1])
        elif found := re.match(r"in @ remove ([\w-]+)", bare):
            assert found[1] in lines[here]
            del lines[here]
        else:
            raise AssertionError(f"what is to be done here? {remedy}")
        self.conf.write_text("\n".join(lines) + "\n")


HUB = '[[registry]]\nlocation = "docker.io"\n'
A_MIRROR = f'[[registry.mirror]]\nlocation = "{MIRROR}"\n'
SEARCH = 'unqualified-search-registries = ["docker.io"]\n'

FILES: dict[str, tuple[str, str]] = {
    "a mirror before any registry": (A_MIRROR + "insecure = true\n", "docker.io/x/y"),
    "url in place of location": (
        '[[registry]]\nurl = "https://docker.io"\nprefix = "docker.io"\n\n'
        f'[[registry.mirror]]\nurl = "http://{MIRROR}"\ninsecure = true\n',
        "docker.io/x/y",
    ),
    "a location with https:// and /v2/": (
        f'{HUB}[[registry.mirror]]\nlocation = "https://{MIRROR}/v2/"\n',
        "docker.io/x/y",
    ),
    "a location with http://": (f'{HUB}[[registry.mirror]]\nlocation = "http://{MIRROR}/hub"\n', "docker.io/x/y"),
    "within a line": (
        f'registry = [\n {{location = "docker.io", mirror = [\n  {{location = "https://{MIRROR}"}}\n ]}}\n]\n',
        "docker.io/x/y",
    ),
    "a prefix with a scheme": (
        f'[[registry]]\nprefix = "https://docker.io/"\nlocation = "docker.io"\n{A_MIRROR}',
        "docker.io/x/y",
    ),
    "Docker Hub by its old URL": (
        f'[[registry]]\nprefix = "docker.io"\nlocation = "https://index.docker.io/v1/"\n{A_MIRROR}',
        "docker.io/x/y",
    ),
    "two files joined": (
        f'{SEARCH}[[registry]]\n  prefix=""\n  location = "quay.io"\n  blocked = false\n\n  {A_MIRROR}'
        '[[registry]]\n  prefix=""\n  location = "quay.io"\n  blocked = true\n',
        "quay.io/x/y",
    ),
    "a misspelled location": (f'{HUB}[[registry.mirror]]\nlocaton = "{MIRROR}"\n', "docker.io/x/y"),
    "a server": (f'{HUB}[[registry.mirror]]\nserver = "https://{MIRROR}"\n', "docker.io/x/y"),
    "one bracket for the registry": (f'[registry]\nlocation = "docker.io"\n{A_MIRROR}', "docker.io/x/y"),
    "one bracket for the mirror": (f'{HUB}[registry.mirror]\nlocation = "{MIRROR}"\n', "docker.io/x/y"),
    "two s": (f'[[registries]]\nlocation = "docker.io"\n{A_MIRROR}', "docker.io/x/y"),
    "a boolean in quotes": (f'{HUB}blocked = "false"\n{A_MIRROR}insecure = "true"\n', "docker.io/x/y"),
    "a mirror of text": (f'{HUB}mirror = ["{MIRROR}"]\n', "docker.io/x/y"),
    "a location in a list": (f'{HUB}[[registry.mirror]]\nlocation = ["{MIRROR}"]\n', "docker.io/x/y"),
    "no location beside the prefix": (f'[[registry]]\nprefix = "docker.io"\n{A_MIRROR}', "docker.io/x/y"),
    "an empty location": (f'[[registry]]\nprefix = "docker.io"\nlocation = ""\n{A_MIRROR}', "docker.io/x/y"),
    "a misspelled registry": (f'[[registy]]\nlocation = "docker.io"\n{A_MIRROR}', "docker.io/x/y"),
    "a search registry of text": (f'unqualified-search-registries = "docker.io"\n{HUB}{A_MIRROR}', "nginx"),
    "a search registry with a scheme": (f'unqualified-search-registries = ["https://docker.io"]\n{HUB}{A_MIRROR}', "x"),
    "a search registry with a path": (f'unqualified-search-registries = ["docker.io/library"]\n{HUB}{A_MIRROR}', "x"),
    "a short-name-mode of another spelling": (f'short-name-mode = "Permisive"\n{HUB}{A_MIRROR}', "docker.io/x/y"),
    "digest_only": (f'{HUB}{A_MIRROR}pull-from-mirror = "tag_only"\n', "docker.io/x/y"),
    "pull-from-mirror of the registry": (f'{HUB}pull-from-mirror = "all"\n{A_MIRROR}', "docker.io/x/y"),
    "a wildcard with a path": (
        f'[[registry]]\nprefix = "*.corp.example/team"\nlocation = "x.example"\n{A_MIRROR}',
        "a.corp.example/team/y",
    ),
    "version 1 and 2": (f'[registries.search]\nregistries = ["docker.io"]\n{HUB}{A_MIRROR}', "nginx"),
    # What is no TOML.
    **{
        f"{boolean} for a boolean": (f"{HUB}{A_MIRROR}{boolean}\n", "docker.io/x/y")
        for boolean in (
            *("insecure = True", "insecure = yes", "insecure=TRUE", "insecure = on # why", "insecure: true"),
            *("insecure =\u00a0true", "\u00a0insecure = true", "insecure true", "insecure = false,", "insecure = No;"),
        )
    },
    "True within a line": (
        f'registry = [{{location = "docker.io", insecure = True, mirror = [{{location = "{MIRROR}"}}]}}]\n',
        "docker.io/x/y",
    ),
    **{
        f"{location} for a location": (f"[[registry]]\n{location}\n{A_MIRROR}", "docker.io/x/y")
        for location in (
            *('location: "docker.io"', "location: docker.io", "location = docker.io", "location docker.io"),
            *("location = \u201cdocker.io\u201d", 'location =\u00a0"docker.io"', 'location = "docker.io",'),
            *('location = "docker.io', "location = https://index.docker.io/v1/"),
        )
    },
    "a wildcard without quotes": (f"[[registry]]\nprefix = *.corp\n{A_MIRROR}", "a.corp/x/y"),
    "a bracket too few": (f"{HUB}{A_MIRROR}".replace("[[registry.mirror]]", "[[registry.mirror]"), "docker.io/x/y"),
    "two brackets too few": (f"{HUB}{A_MIRROR}[registry.mirror\nlocation = 'm.corp'\n", "docker.io/x/y"),
    "search registries without quotes": (
        f"unqualified-search-registries = [docker.io]\n{HUB}{A_MIRROR}",
        "docker.io/x/y",
    ),
    # What CRI-O takes and reads past.
    "keys after a mirror": (f'{HUB}{A_MIRROR}\n{SEARCH}short-name-mode = "permissive"\n', "nginx"),
    "keys after a registry": (f"{HUB}{SEARCH}{A_MIRROR}", "nginx"),
    "mirrors": (f'{HUB}[[registry.mirrors]]\nlocation = "{MIRROR}"\n', "docker.io/x/y"),
    "mirror at the top": (f'{HUB}[[mirror]]\nlocation = "{MIRROR}"\n', "docker.io/x/y"),
    "a second table with the mirrors": (
        f'{HUB}[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n{A_MIRROR}',
        "q/y",
    ),
    # What no image has.
    "a prefix with Docker Hub's old name": (
        f'[[registry]]\nprefix = "index.docker.io"\nlocation = "docker.io"\n{A_MIRROR}',
        "docker.io/library/nginx",
    ),
    "a prefix with a tag": (
        f'[[registry]]\nprefix = "docker.io/library/nginx:1.27"\nlocation = "docker.io/library/nginx"\n'
        f'[[registry.mirror]]\nlocation = "{MIRROR}/hub"\n',
        "docker.io/library/nginx:1.27",
    ),
    "a prefix with typographic quotes": (
        f'[[registry]]\nprefix = "\u201cdocker.io\u201d"\nlocation = "docker.io"\n{A_MIRROR}',
        "docker.io/library/nginx",
    ),
    # What comes of it at a pull.
    "a credential helper alone": (f'credential-helpers = ["ecr-login"]\n{HUB}{A_MIRROR}', "docker.io/x/y"),
    "v2 before a path": (f'{HUB}[[registry.mirror]]\nlocation = "{MIRROR}/v2/hub"\n', "docker.io/x/y"),
    "v2 alone": (f'{HUB}[[registry.mirror]]\nlocation = "{MIRROR}/v2"\n', "docker.io/x/y"),
    "a path in upper case": (f'{HUB}[[registry.mirror]]\nlocation = "{MIRROR}/Hub"\n', "docker.io/x/y"),
    "a blank": (f'{HUB}[[registry.mirror]]\nlocation = "{MIRROR} "\n', "docker.io/x/y"),
    "a scheme in upper case": (f'{HUB}[[registry.mirror]]\nlocation = "HTTPS://{MIRROR}"\n', "docker.io/x/y"),
    "a tag": (f'{HUB}[[registry.mirror]]\nlocation = "{MIRROR}/hub:latest"\n', "docker.io/x/y"),
    "a host without a dot": (f'{HUB}[[registry.mirror]]\nlocation = "mirror/hub"\n', "docker.io/x/y"),
    "Docker Hub for a part of it": (
        f'[[registry]]\nprefix = "docker.io/library"\nlocation = "docker.io"\n{A_MIRROR}',
        "docker.io/library/alpine",
    ),
    "a user": (f'{HUB}[[registry.mirror]]\nlocation = "user@{MIRROR}"\n', "docker.io/x/y"),
}


@pytest.mark.parametrize("name", FILES)
def test_doing_what_it_says_mends_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    conf, image = FILES[name]
    image = f"docker.io/{image}" if image == "q/y" else image
    place = Advised(tmp_path, capsys, conf, {host: {"auth": "dTpw"} for host in (MIRROR, "mirror:443")})
    steps = 0
    while (report := place.explain(image))["verdict"]["remedy"] is not None:
        steps += 1
        assert steps < 6
        assert "CRI-O" not in report["verdict"]["remedy"].removesuffix(", and reload CRI-O"), (
            "a consequence, and no remedy"
        )
        place.mend(report["verdict"]["remedy"], report["verdict"]["text"])
    assert steps > 0, f"nothing was to be done: {report['verdict']}"
    assert report["verdict"]["status"] == "passed", (place.conf.read_text(), report["verdict"])
    assert report["sources"][0]["credential"]["secret"] == "a", (place.conf.read_text(), report["verdict"])


# What can be told and not mended without knowing more: what the To do has to say, with its line.
TOLD: dict[str, tuple[str, int, str]] = {
    "a mirror above its registry": (
        f'{A_MIRROR}[[registry]]\nlocation = "docker.io"\n',
        1,
        "below the [[registry]] that it mirrors",
    ),
    "no quotes": ("[[registry]]\nlocation = docker.io\n", 2, "in double quotes"),
    "curly quotes": ("[[registry]]\nlocation = \u201cdocker.io\u201d\n", 2, "in double quotes"),
    "a line of signs": (f"{HUB}==>\n", 3, "correct "),
    "a comment of C": ("// hub\n" + HUB, 1, "write # in place of //"),
    "a password without quotes": (
        f"[[registry]]\nlocation = https://user:canary@{MIRROR}\n",
        2,
        f'write location = "{MIRROR}"',
    ),
    "two settings in a line": ('[[registry]]\nlocation = "x.example" prefix = "x"\n', 2, "on a line of its own"),
    "YAML": ("unqualified-search-registries:\n- docker.io\n", 1, "write [[registry]] tables"),
    "YAML of tables": ("registry:\n- location: docker.io\n", 1, "write [[registry]] tables"),
    "UTF-16": (HUB.encode("utf-16-le").decode(), 1, "save it as UTF-8"),
    "a key twice": (f'{HUB}location = "docker.io"\n', 3, "remove one of the two"),
    "Docker's daemon.json": ('{"registry-mirrors": ["https://x.example"]}', 1, "write [[registry]] tables"),
    "containerd's hosts.toml": (
        f'server = "https://docker.io"\n[host."https://{MIRROR}"]\n',
        1,
        "write [[registry]] and [[registry.mirror]]",
    ),
    "an IPv6 address": (
        f'{HUB}[[registry.mirror]]\nlocation = "[fd00::1]:5000"\n',
        4,
        "no image reference has an IPv6",
    ),
    "an underscore": (f'{HUB}[[registry.mirror]]\nlocation = "hub_cache:5000"\n', 4, "without an underscore"),
    "a mirror without its location": (f"{HUB}[[registry.mirror]]\ninsecure = true\n", 3, "write location = "),
    "a mirror of text at the top": (f'mirror = ["{MIRROR}"]\n{HUB}', 1, "below its [[registry]]"),
    "a user with a password": (
        f'{HUB}[[registry.mirror]]\nlocation = "https://user:canary@{MIRROR}"\n',
        4,
        f'write location = "{MIRROR}"',
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_to_do_names_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    conf, line, words = TOLD[name]
    place = Advised(tmp_path, capsys, conf, {})
    report = place.explain("docker.io/library/alpine")
    remedy = report["verdict"]["remedy"]
    assert f"{place.conf}:{line}" in remedy and words in remedy
    assert "canary" not in json.dumps(report)


# -- keys of a secret -------------------------------------------------------------------------------------------------

PLACES = (MIRROR, f"{MIRROR}/hub", "mirror.corp.example", "mirror.corp.example/v2/app")
"""Locations of the mirror."""

PREFIXES = (
    "",
    "docker://",
    "HTTPS://",
    "Https://",
    "oci://",
    "//",
    "/",
    " ",
    "user@",
    "https://user:canary@",
    "http://",
)
SUFFIXES = (
    "",
    "/",
    "//",
    "/v2/",
    "/v2",
    "/v1/",
    "/v2/_catalog",
    "/hub/",
    "/hub",
    "/Hub",
    "/hub:latest",
    " ",
    "/ ",
    "?x=y",
)
HOSTS = (
    *(MIRROR, MIRROR.upper(), "mirror.corp.example", "mirror.corp.example:443", "miror.corp.example:5000"),
    *("*.corp.example", "*.example", "mirror.corp.example:5001"),
)
ODD_KEYS = tuple(
    dict.fromkeys(f"{prefix}{host}{suffix}" for host in HOSTS for prefix in PREFIXES for suffix in SUFFIXES)
)


def test_a_key_with_v2_and_a_slash_is_to_be_the_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = f'{HUB}[[registry.mirror]]\nlocation = "{MIRROR}/hub"\n'
    place = Advised(tmp_path, capsys, conf, {f"{MIRROR}/v2/": {"auth": "dTpw"}})
    verdict = place.explain("docker.io/library/alpine")["verdict"]
    assert verdict["text"].endswith(f"its v2 is read as the path of a repository: write {MIRROR}")
    assert verdict["remedy"].startswith(f"in secret a write the key {MIRROR} in place of {MIRROR}/v2/; or create ")
    place.auths = {MIRROR: {"auth": "dTpw"}}
    assert place.explain("docker.io/library/alpine")["verdict"]["status"] == "passed"


@pytest.mark.parametrize("location", PLACES)
def test_every_key_that_it_says_to_write_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], location: str
) -> None:
    """All odd keys at once as secrets' entries would hide each other: each is asked for by itself, in the core."""
    place = Advised(tmp_path, capsys, f'{HUB}[[registry.mirror]]\nlocation = "{location}"\n', {})
    repository = f"{location}/library/alpine"
    told: set[str] = set()
    for key in ODD_KEYS:
        ring = keyring.Keyring([PullSecret("a", DockerConfig({key: AuthEntry("dTpw", "", "", "")}, {}))])
        found = None if list(ring.candidates(repository)) else near.why_key(key, repository, "docker.io")
        if found is not None and ": write " in found[1]:
            assert "canary" not in found[1]
            told.add(found[1].rpartition(": write ")[2])
        elif found is None and key.lower().strip("/ ").endswith(MIRROR) and location.startswith(MIRROR):
            assert list(ring.candidates(repository)), f"{key!r} neither serves nor is told"
    assert told
    for written in told:
        place.auths = {written: {"auth": "dTpw"}}
        report = place.explain("docker.io/library/alpine")
        assert report["verdict"]["status"] == "passed", (written, report["verdict"])
        assert report["sources"][0]["credential"]["key"] == written


def test_the_command_that_it_gives_makes_a_key_that_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, location in enumerate((*PLACES, "docker.io/team", "192.0.2.1:80/x")):
        conf = f'[[registry]]\nlocation = "quay.io"\n[[registry.mirror]]\nlocation = "{location}"\n'
        place = Advised(tmp_path / str(number), capsys, conf, {})
        remedy = place.explain("quay.io/x/alpine")["verdict"]["remedy"]
        server = re.search(r"--docker-server=(\S+)", remedy)
        assert server
        place.auths = {server[1]: {"auth": "dTpw"}}
        assert place.explain("quay.io/x/alpine")["verdict"]["status"] == "passed"


def test_a_drop_in_of_another_suffix_is_to_be_renamed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Advised(tmp_path, capsys, SEARCH, {MIRROR: {"auth": "dTpw"}})
    drop_ins = tmp_path / "etc/containers/registries.conf.d"
    drop_ins.mkdir(parents=True, exist_ok=True)
    (drop_ins / "README").write_text("not TOML: [")
    (drop_ins / "mirror.toml").write_text(HUB + A_MIRROR)
    verdict = place.explain("docker.io/x/y")["verdict"]
    assert "mirror.toml: its name does not end in .conf" in verdict["text"] and "README" not in verdict["text"]
    assert verdict["remedy"] == f"rename {drop_ins}/mirror.toml to {drop_ins}/mirror.conf, or remove it"


# -- passwords in registries.conf -------------------------------------------------------------------------------------

USERS = {
    "user and password": "robot:CANARY@mirror.corp.example/hub",
    "a token alone": "CANARY@mirror.corp.example",
    "a scheme": "https://robot:CANARY@mirror.corp.example",
    "a scheme in upper case": "HTTPS://robot:CANARY@mirror.corp.example/hub",
    "two schemes": "http://https://robot:CANARY@mirror.corp.example",
    "a scheme of the password": "CANARY://x@mirror.corp.example",
    "a slash in the password": "https://robot:a/CANARY@mirror.corp.example",
    "a token with a slash": "CANARY/b@mirror.corp.example",
    "an @ in the password": "robot:CANARY@b@mirror.corp.example",
    "an @ in the path": "robot:CANARY@mirror.corp.example/x@y",
    "a blank and quotes": "robot:'CANARY \\\"b@mirror.corp.example",
    "a wildcard": "*.robot:CANARY@mirror.corp.example",
    "a query": "https://mirror.corp.example/?password=CANARY",
    "a digest": f"robot:CANARY@mirror.corp.example/x@sha256:{'0' * 64}",
}
WRITTEN = {
    "a mirror": f'{HUB}[[registry.mirror]]\nlocation = "@"\n',
    "an insecure mirror": f'{HUB}[[registry.mirror]]\nlocation = "@"\ninsecure = true\n',
    "a location": '[[registry]]\nprefix = "docker.io"\nlocation = "@"\n',
    "a prefix": f'[[registry]]\nprefix = "@"\nlocation = "{MIRROR}"\n',
    "two tables": '[[registry]]\nlocation = "@"\n[[registry]]\nlocation = "@"\nbogus = 1\n',
    "a conflict": '[[registry]]\nlocation = "@"\n[[registry]]\nlocation = "@"\ninsecure = true\n',
    "a blocked table": f'{HUB}[[registry.mirror]]\nlocation = "@"\n[[registry]]\nlocation = "@"\nblocked = true\n',
    "a prefix without a location": '[[registry]]\nprefix = "@"\n',
    "a mirror of a location by another name": f'{HUB}[[registry.mirror]]\nurl = "@"\n',
    "a mirror of text": f'{HUB}mirror = "@"\n',
    "mirrors of text": f'{HUB}mirror = ["@"]\n',
    "a location in a list": '[[registry]]\nlocation = ["@"]\n',
    "a search registry": 'unqualified-search-registries = ["@"]\n',
    "a search registry of text": 'unqualified-search-registries = "@"\n',
    "an alias": '[aliases]\nnginx = "@"\n',
    "an alias's name": '[aliases]\n"@" = "docker.io/x/y"\n',
    "an alias of a list": '[aliases]\n"@" = []\n',
    "the short name mode": 'short-name-mode = "@"\n',
    "a mirror's kinds": f'{HUB}{A_MIRROR}pull-from-mirror = "@"\n',
    "an unknown key": f'"@" = 1\n{HUB}',
    "an unknown key of a table": f'{HUB}"@" = 1\n',
    "a key twice": f'{HUB}"@" = 1\n"@" = 2\n',
    "version 1": '[registries.search]\nregistries = ["@"]\n',
    "version 1 blocked": '[registries.block]\nregistries = ["@"]\n',
    "both versions": f'[registries.search]\nregistries = ["@"]\n[registries.block]\nregistries = ["@"]\n{HUB}',
}


@pytest.mark.parametrize("place", WRITTEN)
@pytest.mark.parametrize("user", USERS)
def test_a_password_in_registries_conf_is_never_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], user: str, place: str
) -> None:
    advised = Advised(tmp_path, capsys, WRITTEN[place].replace("@", USERS[user]), {})
    told = json.dumps(advised.explain("docker.io/library/nginx"))
    explain.run(["nginx", "-n", "team-alpha", f"--secrets={tmp_path}/secrets.json", f"--root={tmp_path}"])
    for command in (doctor, manifests):
        command.run([f"--root={tmp_path}"])
    told += "".join(capsys.readouterr())
    assert "CANARY" not in told.upper()
