"""What is done grows with the size of what is read, and no faster: lines of Python that are run, whatever the machine.

Files and secrets are other people's: a thousand tables or keys must not keep a person waiting, nor a node.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from crio_credential_provider.commands import doctor, explain
from crio_credential_provider.manifests.matchimages import match_images
from crio_credential_provider.runtimes.crio.registries import loads
from growth import lines_run

pytestmark = pytest.mark.slow

HUB = '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.corp.example:5000/hub"\n'


def tables(count: int, more: str = "", host: str = "r{}.example") -> str:
    mirrors = "".join(f'[[registry.mirror]]\nlocation = "m{m}.example/hub"\n{more}' for m in range(3))
    return "".join(
        f'[[registry]]\nprefix = "{host.format(n)}"\nlocation = "l{n}.example"\n{mirrors}' for n in range(count)
    )


def lay_out(root: Path, conf: str, keys: list[str]) -> None:
    conf_file = root / "etc/containers/registries.conf"
    conf_file.parent.mkdir(parents=True, exist_ok=True)
    conf_file.write_text(conf)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "a", "namespace": "team-alpha"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps({"auths": {key: {"auth": "dTpw"} for key in keys}})},
    }
    (root / "secrets.json").write_text(json.dumps(secret))


def explained(root: Path) -> None:
    arguments = ["nginx", "-n", "team-alpha", f"--root={root}", f"--secrets={root}/secrets.json", "--output=json"]
    assert explain.run(arguments) in (0, 3)


def examined(root: Path) -> None:
    assert doctor.run([f"--root={root}", "--output=json"]) in (0, 3)


def derived(root: Path) -> None:
    conf = root / "etc/containers/registries.conf"
    assert match_images(loads([(str(conf), conf.read_bytes())], str(conf))).patterns


CASES: dict[str, tuple[Callable[[Path], None], Callable[[int], str], Callable[[int], list[str]]]] = {
    "explain, keys that CRI-O ignores": (explained, lambda n: HUB + tables(n, "skip-verify = true\n"), lambda n: []),
    "explain, keys that stand too low": (explained, lambda n: HUB + tables(n, "aliases = 1\n"), lambda n: []),
    "doctor, keys that CRI-O ignores": (examined, lambda n: HUB + tables(n, "skip-verify = true\n"), lambda n: []),
    "doctor, mirrors": (examined, lambda n: HUB + tables(n), lambda n: []),
    "doctor, mirrors of one table": (
        examined,
        lambda n: HUB + "".join(f'[[registry.mirror]]\nlocation = "m{m}.example"\n' for m in range(3 * n)),
        lambda n: [],
    ),
    "doctor, mirrors without verified TLS": (examined, lambda n: HUB + tables(n, "insecure = true\n"), lambda n: []),
    "doctor, blocked mirrors": (
        examined,
        lambda n: (
            HUB + tables(n) + "".join(f'[[registry]]\nlocation = "m{m}.example"\nblocked = true\n' for m in range(n))
        ),
        lambda n: [],
    ),
    "patterns of matchImages": (derived, tables, lambda n: []),
    "patterns of one registry": (derived, lambda n: tables(n, host="quay.io/x{:04}/y"), lambda n: []),
    "patterns with wildcards": (derived, lambda n: tables(n, host="*.x{}.example"), lambda n: []),
    "explain, keys of a secret": (
        explained,
        lambda n: HUB,
        lambda n: [f"x{i}.{'a' * 140}.example" for i in range(5 * n)],
    ),
    "explain, keys alike": (explained, lambda n: HUB, lambda n: [f"mirror{i}.corp.example:5000" for i in range(5 * n)]),
    "explain, a long key": (
        explained,
        lambda n: HUB,
        lambda n: ["mirror" * n * 100, f"mirror.corp.example:5000/{'a/' * n * 100}"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_ten_times_as_much_takes_at_most_ten_times_as_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    work, conf, keys = CASES[name]
    lay_out(tmp_path, conf(1), keys(1))
    work(tmp_path)  # what is imported once
    counts = []
    for size in (20, 200):
        lay_out(tmp_path, conf(size), keys(size))
        counts.append(lines_run(lambda: work(tmp_path)))
    # A tenth more for what is sorted, and for longer numbers: a square would be a hundred times.
    assert counts[1] <= 11 * counts[0], f"{counts[1] / counts[0]:.1f} times as many lines"


def test_a_long_key_is_not_told_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor compared letter by letter."""
    for key in (
        "https://mirror.corp.example:5000/" + "a" * 600_000,
        "*" * 600_000 + ".corp.example:5000",
        "a" * 700_000,
    ):
        lay_out(tmp_path, HUB, [key])
        explained(tmp_path)
        assert len(capsys.readouterr().out) < 20_000
