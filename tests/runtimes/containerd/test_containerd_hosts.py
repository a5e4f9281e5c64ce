"""containerd's files for people and at a pull: errors with their lines, what is kept, the sources of an image."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crio_credential_provider.errors import ConfigError
from crio_credential_provider.images import reference
from crio_credential_provider.platform.parsecache import ParseCache
from crio_credential_provider.runtimes.containerd import config, goglob, hosts, pullsources
from crio_credential_provider.runtimes.containerd.config import Configuration
from crio_credential_provider.runtimes.containerd.goaddress import clean, parse_url, split_port
from crio_credential_provider.runtimes.containerd.hosts import Found
from crio_credential_provider.runtimes.pullsource import PullSource
from node import SOURCES

NO_CACHE = ParseCache("", "none")
CRI = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n'
IMAGES = 'version = 3\n[plugins."io.containerd.cri.v1.images".registry]\n'
CERTS_D = 'config_path = "/etc/containerd/certs.d"\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "etc/containerd/config.toml", CRI + CERTS_D)
    return tmp_path


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(root: Path, cache: ParseCache = NO_CACHE) -> Configuration:
    return config.load(f"{root}/etc/containerd/config.toml", str(root), cache)


def find(root: Path, domain: str = "docker.io", cache: ParseCache = NO_CACHE) -> Found:
    return hosts.hosts_for(load(root, cache), domain, cache)


def hosts_toml(root: Path, text: str, name: str = "docker.io") -> Path:
    return write(root, f"etc/containerd/certs.d/{name}/hosts.toml", text)


def sources(root: Path, image: str = "nginx") -> tuple[PullSource, ...]:
    parsed = reference.parse(image)
    return pullsources.repository_sources(find(root, parsed.domain), parsed)


# -- config.toml ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule", "line", "message"),
    [
        (f"{CRI}config_path = 1\n", "toml-type", 3, "registry.config_path must be a string"),
        ("version = 2\nx = \n", "toml-syntax", 2, "not valid TOML"),
        ("version = 2\nx = {\na = 1}\n", "toml-syntax", 2, "containerd does not know TOML 1.1"),
        (f'{CRI}Config_Path = "/a"\n', "spelling", 3, "must be written config_path"),
        (f'[plugins.cri]\n{CRI[12:]}config_path = "/a"\n', "unclear", 1, "are the same plugin"),
        ("version = 5\n", "version", 0, "version is 5, and containerd knows 1 to 4"),
        ('version = 2\nimports = ["conf.d/[*.toml"]\n', "import-pattern", 0, "is not a pattern"),
        ('version = 2\nimports = ["other.toml"]\n', "import-missing", 0, "other.toml: no such file, which "),
        (
            f'{CRI}{CERTS_D}[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint = ["a"]\n',
            "mirrors-and-config-path",
            0,
            "registry.mirrors and registry.config_path are both set",
        ),
    ],
)
def test_what_containerd_does_not_start_with(root: Path, text: str, rule: str, line: int, message: str) -> None:
    file = write(root, "etc/containerd/config.toml", text)
    with pytest.raises(ConfigError) as caught:
        load(root)
    assert (caught.value.rule, caught.value.line) == (rule, line)
    assert message in caught.value.message
    assert caught.value.message.partition(": ")[0].startswith(str(file) if line else "") or not line
    assert caught.value.hint
    assert ("no pod of this node" in caught.value.consequence) == (rule not in ("spelling", "unclear"))


def test_a_missing_file_is_the_defaults(tmp_path: Path) -> None:
    found = config.load(f"{tmp_path}/none.toml", str(tmp_path), NO_CACHE)
    assert found.config_path == (f"{tmp_path}/etc/containerd/certs.d", f"{tmp_path}/etc/docker/certs.d")
    assert (found.file, found.version, found.files) == ("", 0, ())
    assert found.unsure.startswith("no file sets config_path")


def test_a_set_path_is_sure(root: Path) -> None:
    found = load(root)
    assert found.config_path == (f"{root}/etc/containerd/certs.d",)
    assert (found.unsure, found.file, found.version) == ("", f"{root}/etc/containerd/config.toml", 2)


def test_the_old_plugin_in_a_new_file_is_unclear(root: Path) -> None:
    """2.3 takes it, and 2.2 the default in its place."""
    write(root, "etc/containerd/config.toml", CRI.replace("2", "3", 1) + 'config_path = "/srv"\n')
    with pytest.raises(ConfigError) as caught:
        load(root)
    assert caught.value.rule == "unclear"
    assert 'write [plugins."io.containerd.cri.v1.images".registry]' in caught.value.hint


def test_several_directories_are_unsure(root: Path) -> None:
    """From 2.1 containerd pulls by its transfer service, which takes the list for one name."""
    write(root, "etc/containerd/config.toml", IMAGES + 'config_path = "/a:/b"\n')
    hosts_path = write(root, "b/docker.io/hosts.toml", 'server = "https://mirror.corp"\n')
    found = find(root)
    assert found.file == str(hosts_path)
    assert [host.host for host in found.hosts] == ["mirror.corp", "registry-1.docker.io"]
    assert "several directories" in found.ignored[0]
    assert found.ignored[0].endswith("and may ask docker.io itself alone")
    local = '[plugins."io.containerd.cri.v1.images"]\nuse_local_image_pull = true\n'
    write(root, "etc/containerd/config.toml", "version = 3\n" + local + IMAGES[12:] + 'config_path = "/a:/b"\n')
    # 2.0 does not know the key, and pulls so anyway.
    assert [host.host for host in find(root).hosts] == ["mirror.corp"]


def test_a_drop_in_without_the_registry_is_unsure_in_version_2(root: Path) -> None:
    """containerd 1 takes the plugin's table from the last file alone, as with a runtime's drop-in."""
    write(root, "etc/containerd/config.toml", 'imports = ["/etc/containerd/conf.d/*.toml"]\n' + CRI + CERTS_D)
    write(
        root,
        "etc/containerd/conf.d/99-nvidia.toml",
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]\nruntime_type = "x"\n',
    )
    found = load(root)
    assert found.config_path == (f"{root}/etc/containerd/certs.d",)
    assert "not every release of containerd takes" in found.unsure
    assert found.files == tuple(f"{root}/etc/containerd/{name}" for name in ("config.toml", "conf.d/99-nvidia.toml"))


def test_no_credential_is_kept(root: Path, tmp_path: Path) -> None:
    cache = ParseCache(str(tmp_path / "cache"), "containerd")
    text = f"""{CRI}{CERTS_D}
[plugins."io.containerd.grpc.v1.cri".registry.configs."a.corp".auth]
username = "robot"
password = "s3cr3t"
[plugins."io.containerd.grpc.v1.cri".registry.auths."https://b.corp"]
auth = "s3cr3t"
[plugins."io.containerd.grpc.v1.cri".registry.headers]
Authorization = ["Basic s3cr3t"]
"""
    old = write(root, "etc/containerd/config.toml", text)
    mirror = hosts_toml(
        root, '[host."https://robot:s3cr3t@a.corp"]\n[host."https://a.corp".header]\nX-Key = "s3cr3t"\n'
    )
    for path in (old, mirror):
        os.utime(path, (1, 1))
    found = load(root, cache)
    assert (found.auths, found.headers) == (("a.corp", "https://b.corp"), ("Authorization",))
    told = find(root, cache=cache)
    assert "s3cr3t" not in repr(found) + repr(told) + repr(sources(root))
    assert [host.headers for host in told.hosts] == [(), ("X-Key",), ()]
    kept = [path.read_text() for path in (tmp_path / "cache").glob("*")]
    assert all("s3cr3t" not in text for text in kept)


# -- hosts.toml -------------------------------------------------------------------------------------------------------


def test_a_file_that_containerd_ignores_is_told_with_its_line(root: Path) -> None:
    file = hosts_toml(root, '[host."https://a.corp"]\ncapabilities = ["pull", "all"]\n')
    found = find(root)
    assert [host.host for host in found.hosts] == ["registry-1.docker.io"]
    assert found.ignored == (
        f"{file}: unknown capability 'all': containerd knows pull, resolve, push: containerd ignores the file",
    )


@pytest.mark.parametrize(
    "table", ["[server]", '[host."https://mirror.corp".client]', '[host."https://mirror.corp".ca]']
)
def test_an_empty_table_in_the_place_of_a_value_is_no_fault_for_containerd_2(root: Path, table: str) -> None:
    """Run: 2.3.4 asks the mirror, and then the registry itself."""
    file = hosts_toml(root, f'[host."https://mirror.corp"]\n{table}\n')
    found = find(root)
    assert {host.host for host in found.hosts} == {"mirror.corp", "registry-1.docker.io"}
    assert found.doubt.startswith(f"{file}: ")


def test_a_key_in_two_spellings_is_decoded_twice(root: Path) -> None:
    """Run: 2.3.4 cannot decode the first, and asks the registry itself."""
    write(root, "etc/containerd/config.toml", IMAGES + CERTS_D)
    hosts_toml(root, 'server = "https://mirror.corp"\nHOST.x = 1\n[host."https://mirror.corp"]\n')
    found = find(root)
    assert {host.host for host in found.hosts} == {"mirror.corp", "registry-1.docker.io"}
    assert "host is there twice" in found.doubt


@pytest.mark.parametrize("key", ['"https://robot:hunter2@mirror.corp"', "'https://mirror.corp?hunter2'"])
def test_what_is_told_of_a_wrong_value_has_no_password(root: Path, key: str) -> None:
    hosts_toml(root, f'[host.{key}]\ncapabilities = "pull"\n')
    assert "hunter2" not in repr(find(root))
    main = write(root, "etc/containerd/config.toml", f"{CRI[:-2]}.mirrors.{key}]\nendpoint = 1\n")
    with pytest.raises(ConfigError) as caught:
        load(root)
    assert "hunter2" not in str(caught.value)
    main.write_text(f"{CRI[:-2]}.configs.{key}.tls]\n{CRI[12:-2]}.auths.{key}]\n")
    assert "hunter2" not in repr(load(root))


def test_a_header_with_escapes_names_a_host_of_containerd_2(root: Path) -> None:
    """Run: 2.3.4 asks both mirrors."""
    write(root, "etc/containerd/config.toml", IMAGES + CERTS_D)
    hosts_toml(root, '[host."https://mirror.corp"]\n["h\\u006fst"."https://second.corp"]\n')
    assert [host.host for host in find(root).hosts][:2] == ["mirror.corp", "second.corp"]


def test_the_value_of_another_key_of_a_broken_file_is_no_host(root: Path) -> None:
    """It may be a secret."""
    header = '[host."https://mirror.corp".header]'
    hosts_toml(root, f'{header}\nX-Server-Token = "hunter2"\nY = "hunter3" = "hunter4"\n')
    assert {host.host for host in find(root).hosts} == {"mirror.corp", "registry-1.docker.io"}


def test_what_a_broken_file_mentions_may_be_asked(root: Path) -> None:
    """Each of containerd's parsers takes some texts that are not TOML."""
    file = hosts_toml(root, 'server = "https://b.corp"\n[host."https://a.corp"]\nx = 1.\n')
    found = find(root)
    assert {host.host for host in found.hosts} == {"a.corp", "b.corp", "registry-1.docker.io"}
    assert found.ignored[0].startswith(f"{file}:3: not valid TOML: ")


def test_a_file_without_hosts_is_unsure_for_containerd_1_6(root: Path) -> None:
    hosts_toml(root, 'server = "https://mirror.corp"\n')
    found = find(root)
    assert [host.host for host in found.hosts] == ["mirror.corp", "registry-1.docker.io"]
    assert "without which containerd 1.6 ignores it" in found.ignored[0]
    # Where the file says what is so without it, nobody need know.
    hosts_toml(root, 'server = "https://quay.io"\n', "quay.io")
    assert ({host.host for host in find(root, "quay.io").hosts}, find(root, "quay.io").ignored) == ({"quay.io"}, ())
    write(root, "etc/containerd/config.toml", IMAGES + CERTS_D)
    assert [host.host for host in find(root).hosts] == ["mirror.corp"]
    assert find(root).ignored == ()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"docker.io": "a file\n"}, "docker.io/hosts.toml: Not a directory"),
        ({"docker.io/hosts.toml/x": ""}, "docker.io/hosts.toml: Is a directory"),
    ],
)
def test_what_fails_the_pull(root: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(root, f"etc/containerd/certs.d/{name}", text)
    with pytest.raises(ConfigError) as caught:
        find(root)
    assert message in caught.value.message
    assert caught.value.consequence == "containerd fails every pull from this registry because of it"


def test_certificates_are_found_beside_the_file(root: Path) -> None:
    hosts_toml(root, '[host."https://a.corp"]\nca = ["a.pem", "/b.pem"]\nclient = [["a.cert", "a.key"], "c.pem"]\n')
    place = f"{root}/etc/containerd/certs.d/docker.io"
    (first, _) = find(root).hosts
    assert first.ca == (f"{place}/a.pem", "/b.pem")
    assert first.client == ((f"{place}/a.cert", f"{place}/a.key"), (f"{place}/c.pem", ""))


# -- pull sources -----------------------------------------------------------------------------------------------------


def test_each_source_is_named_as_a_pull_secret_names_it(root: Path) -> None:
    hosts_toml(
        root,
        """
[host."https://mirror.corp:5000"]
  capabilities = ["pull", "resolve"]
[host."https://harbor.corp/v2/proxy"]
  override_path = true
[host."https://nexus.corp/docker"]
[host."https://blobs.corp"]
  capabilities = ["pull"]
[host."https://push.corp"]
  capabilities = ["push"]
[host."http://plain.corp/"]
  override_path = true
""",
    )
    both = ("tag", "digest")
    assert [(s.name, s.location, s.kinds, s.primary, s.insecure) for s in sources(root)] == [
        ("mirror.corp:5000/library/nginx", "https://mirror.corp:5000/v2", both, False, False),
        ("harbor.corp/proxy/library/nginx", "https://harbor.corp/v2/proxy", both, False, False),
        ("nexus.corp/docker/library/nginx", "https://nexus.corp/docker/v2", both, False, False),
        ("blobs.corp/library/nginx", "https://blobs.corp/v2", ("digest",), False, False),
        ("push.corp/library/nginx", "https://push.corp/v2", (), False, False),
        ("plain.corp/library/nginx", "http://plain.corp/", both, False, True),
        ("docker.io/library/nginx", "https://registry-1.docker.io/v2", both, True, False),
    ]


def test_a_host_that_comes_twice_is_one_source(root: Path) -> None:
    hosts_toml(
        root,
        '[host."https://a.corp"]\ncapabilities = ["pull"]\n[host."https://b.corp"]\n[host."https://a.corp/v2"]\n'
        "skip_verify = true\n",
    )
    assert [(s.name, s.kinds, s.insecure) for s in sources(root)][:2] == [
        ("a.corp/library/nginx", ("tag", "digest"), True),
        ("b.corp/library/nginx", ("tag", "digest"), False),
    ]


def test_without_any_file_the_registry_itself_is_the_source(tmp_path: Path) -> None:
    assert [(s.name, s.primary) for s in sources(tmp_path, "quay.io/team/app")] == [("quay.io/team/app", True)]


# -- Go's rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["https://a b", "https://[::1", "https://a:b", "https://a:1:2", "1a:b/c", "https://%41"]
)
def test_urls_that_go_refuses(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_url(url)


def test_paths_and_ports_are_those_of_go() -> None:
    assert [clean(path) for path in ("", "/", "a/../..", "/../a", "//a/./b/")] == [".", "/", "..", "/a", "/a/b"]
    assert [split_port(host) for host in ("a", "a:1", "[::1]:2", "::1", "[::1]")] == [
        None,
        ("a", "1"),
        ("::1", "2"),
        None,
        None,
    ]


def test_globs_are_those_of_go(tmp_path: Path) -> None:
    for name in (".a.toml", "b.toml", "c.toml", "d.txt"):
        write(tmp_path, f"conf.d/{name}", "")

    def names(pattern: str) -> list[str]:
        return [Path(path).name for path in goglob.matches(f"{tmp_path}/{pattern}")]

    assert names("conf.d/*.toml") == [".a.toml", "b.toml", "c.toml"]
    assert names("*/[b-c].toml") == ["b.toml", "c.toml"]
    assert names("conf.d/[^b].toml") == ["c.toml"]
    assert names("conf.d/?.t*") == ["b.toml", "c.toml", "d.txt"]
    assert names("none/*") == []
    with pytest.raises(ValueError, match="pattern"):
        names("conf.d/*[")


# -- cost -------------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from crio_credential_provider.images import reference
from crio_credential_provider.platform.parsecache import ParseCache
from crio_credential_provider.runtimes.containerd import config, hosts, pullsources
root = sys.argv[2]
cache = ParseCache(root + "/cache", "containerd")
found = hosts.hosts_for(config.load(root + "/etc/containerd/config.toml", root, cache), "docker.io", cache)
print(pullsources.repository_sources(found, reference.parse("nginx"))[0].name)
print(*sys.modules)
"""


@pytest.mark.slow
def test_files_that_did_not_change_are_not_parsed(root: Path) -> None:
    imports = 'imports = ["conf.d/*.toml"]\n'
    for path in (
        write(root, "etc/containerd/config.toml", imports + IMAGES + CERTS_D),
        write(root, "etc/containerd/conf.d/a.toml", "version = 3\n"),
        hosts_toml(root, '[host."https://mirror.corp"]\n'),
    ):
        os.utime(path, (1, 1))
    # A change moves ctime, and only what is older than two seconds is kept.
    time.sleep(2.1)
    command = [sys.executable, "-IS", "-c", PROGRAM, str(SOURCES), str(root)]
    packages = os.pathsep.join(sys.path)
    first = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(SOURCES), str(root)],
        env={"PYTHONPATH": packages},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "tomli" in first.stdout.split()
    second = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    name, *modules = second.stdout.split()
    assert name == "mirror.corp/library/nginx"
    room = "crio_credential_provider.runtimes.containerd"
    assert {f"{room}.config", f"{room}.hosts", f"{room}.pullsources"} <= set(modules)
    lazy = {
        f"{room}.configfile",
        f"{room}.hostsfile",
        f"{room}.tomlfile",
        "crio_credential_provider.platform.tomllines",
    }
    assert set(modules) & {"tomli", "typing", "fnmatch", "glob", "tomllib", *lazy} == set()
