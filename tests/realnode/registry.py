"""The private mirror: docker-registry with users behind a delaying proxy, and images that are made here."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docker_registry import TAG, make_layout
from realnode.processes import Process

HOST = "localhost:5000"
_PORT, _PORT_BEHIND = 5000, 5002
PUSH = "push"
# Seconds that each request of CRI-O takes longer: so that the pulls of a burst overlap.
DELAY = 0.3
PAUSE_IMAGE = f"{HOST}/library/pause:{TAG}"

# Ends at once when it is asked to, which PID 1 of a container does not by itself.
_PROGRAM = """\
#include <signal.h>
#include <unistd.h>
static void end(int signal) { _exit(signal == SIGTERM ? 0 : 1); }
int main(void) { signal(SIGTERM, end); for (;;) pause(); }
"""


class Registry:
    """Every user may read and write every image; the images here are the user ``push``'s.

    Args:
        scratch: an empty directory.
        password: of the user ``push``.
    """

    def __init__(
        self,
        binaries: Mapping[str, str],
        scratch: Path,
        logs: Path,
        environment: Mapping[str, str],
        password: str,
    ) -> None:
        self._binaries = binaries
        self._scratch = scratch
        self._password = password
        self._numbers = itertools.count(1)
        self._htpasswd = scratch / "htpasswd"
        configuration = {
            "version": "0.1",
            "log": {"level": "debug", "formatter": "json", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(scratch / "storage")}},
            "http": {"addr": f"127.0.0.1:{_PORT_BEHIND}"},
            "auth": {"htpasswd": {"realm": "mirror", "path": str(self._htpasswd)}},
        }
        scratch.mkdir()
        (scratch / "config.yml").write_text(json.dumps(configuration))
        self.server = Process(
            [binaries["docker-registry"], "serve", str(scratch / "config.yml")],
            logs / "docker-registry.log",
            {**environment, "OTEL_TRACES_EXPORTER": "none"},
        )
        ports = (f"127.0.0.1:{port}" for port in (_PORT, _PORT_BEHIND))
        proxy = [sys.executable, "-m", "realnode.slowproxy", *ports, str(DELAY)]
        self.proxy = Process(proxy, logs / "slowproxy.log", {**environment, "PYTHONPATH": os.environ["PYTHONPATH"]})
        self._layer = self._make_layer()

    def start(self) -> None:
        self.set_password(PUSH, self._password)
        self.server.start()
        self.server.wait_for(lambda: _listens(_PORT_BEHIND), "listening")
        self.proxy.start()
        self.proxy.wait_for(lambda: _listens(_PORT), "listening")
        self._push("library/pause", TAG)

    def stop(self) -> None:
        self.proxy.stop()
        self.server.stop()

    def set_password(self, user: str, password: str) -> None:
        """docker-registry reads the file anew when its time has changed."""
        create = [] if self._htpasswd.exists() else ["-c"]
        subprocess.run(
            [self._binaries["htpasswd"], "-i", "-B", *create, str(self._htpasswd), user],
            input=password,
            text=True,
            capture_output=True,
            check=True,
        )

    # -- images ------------------------------------------------------------------------------------------------------

    def new_image(self, *tags: str) -> str:
        """An image of Docker Hub as pods name it, without tag, which no pod has used; it is on the mirror alone."""
        repository = f"library/app{next(self._numbers)}"
        self._push(repository, *(tags or ("latest",)))
        return f"docker.io/{repository}"

    def pause_archive(self) -> Path:
        """The pause image as a file, for a runtime that cannot pull it."""
        archive = self._scratch / "pause.tar"
        if not archive.exists():
            layout = self._scratch / "layouts/library/pause"
            copy = [f"oci:{layout}:{TAG}", f"docker-archive:{archive}:{PAUSE_IMAGE}"]
            subprocess.run([self._binaries["skopeo"], "--insecure-policy", "copy", "--quiet", *copy], check=True)
        return archive

    def _push(self, repository: str, *tags: str) -> None:
        layout = self._scratch / "layouts" / repository
        label = tar({"etc/id": repository.encode()})
        make_layout(layout, self._layer, label, Entrypoint=["/pause"])
        for tag in tags:
            self.copy(f"oci:{layout}:{TAG}", f"{repository}:{tag}")

    def copy(self, source: str, name: str) -> None:
        """Puts an image there, from any place that skopeo knows."""
        subprocess.run(
            [
                *(self._binaries["skopeo"], "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"),
                *("--dest-creds", f"{PUSH}:{self._password}", source, f"docker://localhost:{_PORT_BEHIND}/{name}"),
            ],
            check=True,
        )

    def _make_layer(self) -> bytes:
        program = self._scratch / "pause"
        compile_it = [self._binaries["gcc"], "-static", "-Os", "-s", "-x", "c", "-", "-o", str(program)]
        subprocess.run(compile_it, input=_PROGRAM, text=True, check=True)
        return tar({"pause": program.read_bytes()}, "proc", "sys", "dev", "etc", "tmp")

    # -- the log -----------------------------------------------------------------------------------------------------

    def users(self, image: str) -> set[str]:
        """Users that the registry let read an image (``docker.io/library/app1``)."""
        repository = image.removeprefix("docker.io/")
        lines = (json.loads(line) for line in self.server.log.read_text().splitlines() if line.startswith("{"))
        return {user for line in lines if (user := _user(line, repository)) and user != PUSH}


def _user(line: dict[str, Any], repository: str) -> str | None:
    return line.get("auth.user.name") if line.get("vars.name") == repository else None


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def docker_config(user: str, password: str, key: str = HOST) -> dict[str, Any]:
    """With one credential, for the mirror where nothing else is said."""
    return {"auths": {key: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}}}


def tar(files: Mapping[str, bytes], *directories: str) -> bytes:
    """An archive of executable files and empty directories."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in directories:
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
