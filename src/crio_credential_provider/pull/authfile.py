"""The auth file: its name, and writing it so that CRI-O sees all of it or nothing.

Knows disks and nothing about what the content means, nor whose turn it is (``handoff``). CRI-O renames the file away
at the pull (docs/reference/contracts.md, 2).
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat

from ..errors import AuthFileError
from ..kubernetes.names import is_label

_HEX = "0123456789abcdef"
_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH


def file_name(namespace: str, repository: str) -> str:
    """The name under which CRI-O looks for the file of a pull.

    Args:
        namespace: of the pod; a DNS label.
        repository: normalised, without tag and digest.
    """
    return f"{namespace}-{digest(repository)}.json"


def digest(repository: str) -> str:
    """What a file name has in place of the repository."""
    return hashlib.sha256(repository.encode()).hexdigest()


def repository_digest(name: str) -> str:
    """The digest in the name of an auth file; "" for a name of another kind."""
    namespace, _, rest = name.rpartition("-")
    found = rest.removesuffix(".json")
    is_ours = is_label(namespace) and rest.endswith(".json") and len(found) == 64 and not found.strip(_HEX)
    return found if is_ours else ""


def is_temporary(name: str) -> bool:
    """Whether a file is one that ``write`` had not yet put in place when its process was killed."""
    final, _, process = name.removeprefix(".").removesuffix(".tmp").rpartition(".")
    return name.startswith(".") and name.endswith(".tmp") and process.isdigit() and bool(repository_digest(final))


def write(directory: str, name: str, content: bytes) -> str:
    """Puts the file in place: a temporary file beside it, 0600, fsync, rename; a kill leaves no half of it behind.

    Returns:
        Its path.

    Raises:
        AuthFileError: the directory or the disk does not let it, or others could write to the directory.
    """
    path = os.path.join(directory, name)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.tmp")
    try:
        _ensure_directory(directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            try:
                # Whatever umask the kubelet runs with, and whatever a killed predecessor of this pid left.
                os.fchmod(file.fileno(), 0o600)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.rename(temporary, path)
            except BaseException:
                # Gone where a signal came just after the rename.
                if os.path.exists(temporary):
                    os.unlink(temporary)
                raise
    except OSError as error:
        raise unwritable(path, error) from None
    return path


def unwritable(path: str, error: OSError) -> AuthFileError:
    """What is to be said where the system does not let a file be written."""
    directory = os.path.dirname(path)
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return AuthFileError(
        f"cannot write the auth file {path}: {error.strerror}",
        f"check the free space and inodes: df {directory} && df -i {directory}"
        if is_full
        else "CRI-O's namespaced_auth_dir must be a directory that root can write to; --auth-dir names another",
    )


def _ensure_directory(directory: str) -> None:
    """Makes the directory (0700) if it is missing, and refuses one that others can write to."""
    if not os.path.exists(directory):
        os.makedirs(directory, 0o700, exist_ok=True)
    check_directory(directory)


def check_directory(directory: str) -> None:
    """Refuses a directory that others can write to, with an AuthFileError: they could swap files."""
    status = os.stat(directory)
    if stat.S_ISDIR(status.st_mode) and status.st_mode & _OTHERS_CAN_WRITE:
        mode = stat.S_IMODE(status.st_mode)
        raise AuthFileError(
            f"users other than its owner can write to the auth directory {directory} (mode {mode:04o})",
            f"chmod 0700 {directory}",
        )
    if status.st_uid not in (0, os.geteuid()):
        raise AuthFileError(
            f"the auth directory {directory} belongs to user {status.st_uid}", f"chown root {directory}"
        )
