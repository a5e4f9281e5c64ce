"""`install`, its way back and `uninstall` on a node that a plugin was never on, with services that really restart."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
import yaml

from realnode.bare import EXTRA, Bare, snapshot
from realnode.kubelet import CREDENTIAL_PROVIDER_CONFIG
from realnode.processes import wait_until
from realnode.providers import NAME
from realnode.runtimes import AUTH_DIR
from realnode.systemd import KUBELET
from realnode.table import Note
from realnode.tenants import Tenant

pytestmark = pytest.mark.ours

MOUNT = "start etc-crio-auth.mount"
RESTART = f"restart {KUBELET}"


def test_install_and_uninstall(bare: Bare, tenant: Tenant, image: str, note: Note) -> None:
    plan = bare.run("install")
    assert str(CREDENTIAL_PROVIDER_CONFIG) in plan and bare.changed() == []
    begun = time.monotonic()
    bare.run("install", "--apply")
    note(f"{time.monotonic() - begun:.0f} s")
    assert bare.is_ready()
    assert bare.systemd.asked[-1] == RESTART and AUTH_DIR.is_mount()
    assert tenant.run("web", image).runs_within(30)
    asked = len(bare.systemd.asked)
    assert "nothing to do" in bare.run("install", "--apply")
    assert bare.systemd.asked[asked:] == []
    bare.uninstall()


def test_install_with_an_auth_directory_of_its_own(bare: Bare, tenant: Tenant, image: str) -> None:
    """CRI-O is told of it, and restarted."""
    bare.run("install", "--apply", "--auth-dir=/run/auth-of-pulls")
    assert "restart crio" in bare.systemd.asked
    assert tenant.run("web", image).runs_within(30)
    assert not AUTH_DIR.is_mount()
    bare.uninstall()
    assert "restart crio" in bare.systemd.asked[bare.systemd.asked.index(RESTART) :]


def test_rollback(bare: Bare, tenant: Tenant, image: str) -> None:
    bare.run("install", "--apply")
    bare.run("rollback", "--apply")
    assert bare.changed() == []
    assert bare.is_ready()
    assert "authentication required" in tenant.run("web", image).fails_within(30)


# -- with which the kubelet does not start -----------------------------------------------------------------------------


def test_install_whose_program_is_lost(bare: Bare, tenant: Tenant, image: str, note: Note) -> None:
    """At the moment at which the kubelet is restarted: it refuses to start, again and again."""
    bare.systemd.before[RESTART] = (bare.node.bin_dir / NAME).unlink
    begun = time.monotonic()
    said = bare.run("install", "--apply", status=1)
    note(f"put back after {time.monotonic() - begun:.0f} s")
    assert "failed and everything was put back: the kubelet is not healthy" in said
    assert "did not exist" in said.split("everything was put back")[1], "not the kubelet's own words"
    assert bare.changed() == []
    assert wait_until(bare.is_ready, 30)
    bare.run("install", "--apply")
    assert tenant.run("web", image).runs_within(30)
    bare.uninstall()


def test_install_beside_a_flag_that_the_kubelet_does_not_know(bare: Bare) -> None:
    """It was there before, and no kubelet was started with it yet: the way back cannot make it start either."""
    text = EXTRA.read_text()
    EXTRA.write_text(text.replace("--v=4", "--v=4 --no-such-flag=1"))
    there = snapshot()
    said = bare.run("install", "--apply", "--timeout=5s", status=1)
    assert snapshot() == there
    assert "unknown flag: --no-such-flag" in said
    assert "the files are back, but the kubelet is not healthy" in said or "nothing was changed" in said
    EXTRA.write_text(text)
    assert wait_until(bare.is_ready, 30), "not Ready once the flag was gone"
    bare.run("install", "--apply")
    bare.uninstall()


def test_install_beside_a_provider_that_the_kubelet_refuses(bare: Bare) -> None:
    """Of somebody else, in a file that no kubelet has read yet, and without its program."""
    other = {
        "name": "other",
        "matchImages": ["*.example.com"],
        "defaultCacheDuration": "1h",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
    }
    CREDENTIAL_PROVIDER_CONFIG.write_text(
        yaml.safe_dump(
            {"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [other]}
        )
    )
    there = snapshot()
    said = bare.run("install", "--apply", status=1)
    CREDENTIAL_PROVIDER_CONFIG.unlink()
    assert snapshot() != there and bare.changed() == []
    assert "other" in said.split("check:")[-1]
    assert bare.is_ready()


# -- killed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [MOUNT, RESTART, "show"], ids=["the files are written", "the kubelet restarts", "it waits"]
)
def test_install_killed_when(bare: Bare, tenant: Tenant, image: str, command: str) -> None:
    """By SIGKILL; systemd goes on with what it was told."""
    processes: list[subprocess.Popen[str]] = []

    def kill() -> None:
        processes[0].kill()
        processes[0].wait()

    bare.systemd.before[command] = kill
    processes.append(bare.begin("install", "--apply"))
    processes[0].communicate(timeout=60)
    assert processes[0].returncode == -signal.SIGKILL
    assert bare.changed(), "killed too early"
    # The machine may be booted then.
    bare.systemd.command("restart", KUBELET)
    assert wait_until(bare.is_ready, 30), "the kubelet does not start on what was left"
    assert "interrupted" in bare.run("status", status=3)
    said = bare.run("install", "--apply")
    assert "the last install was interrupted; it is undone first" in said
    assert bare.is_ready()
    assert tenant.run("web", image).runs_within(30)
    bare.uninstall()
