"""The C halves behind json, ssl and socket: same verdicts, and in use only where the interpreter is pinned."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from crio_credential_provider.platform import native

PACKAGE = Path(native.__file__).parent.parent


def self_test(package_parent: Path) -> str:
    code = "from crio_credential_provider.testbed.selftest import main; main()"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(package_parent)!r}); {code}"]
    # Copies of the package are not measured: they would count as further, mostly unused, source files.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def pinned_copy(directory: Path, version: str) -> Path:
    shutil.copytree(PACKAGE, directory / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / PACKAGE.name / "_pinned.py").write_text(f"VERSION = {version!r}\n")
    return directory


def test_the_c_halves_give_the_verdicts_of_the_public_modules(tmp_path: Path) -> None:
    assert self_test(pinned_copy(tmp_path, sys.version)) == "C halves and public modules: 0 differences\n"


def test_the_public_modules_agree_with_themselves() -> None:
    assert self_test(PACKAGE.parent) == "public modules and public modules: 0 differences\n"


def test_a_package_that_was_pinned_for_another_interpreter_uses_the_public_modules(tmp_path: Path) -> None:
    assert self_test(pinned_copy(tmp_path, "another")).startswith("public modules")


def test_a_difference_is_told(tmp_path: Path) -> None:
    """The self-test can fail: with trailing text taken, and with names not checked."""
    parent = pinned_copy(tmp_path, sys.version)
    module = parent / PACKAGE.name / "native.py"
    text = module.read_text()
    lax = text.replace("if not text[end:].strip(_BLANKS):", "if True:")
    lax = lax.replace(
        "        return context  # type: ignore",
        "        context.check_hostname = False\n        return context  # type: ignore",
        1,
    )
    assert lax.count("\n") == text.count("\n") + 1 and lax != text
    module.write_text(lax)
    told = self_test(parent)
    assert "loads of '{} {}'" in told and "asked for as other.example" in told


LEAN = """
import sys
sys.path.insert(0, sys.argv[1])
from crio_credential_provider import native
socket, ssl = native.load_socket(), native.load_ssl()
assert not set(native._UNUSED) & set(sys.modules), "what is not used is loaded, or a stand-in was left"
assert ssl.DER_cert_to_PEM_cert(b"abc").splitlines()[1] == "YWJj"
a, b = socket.socketpair()
socket.send_fds(a, [b"x"], [0])
assert len(socket.recv_fds(b, 1, 1)[1]) == 1
with open(sys.executable, "rb") as file:
    assert a.sendfile(file, count=3) == 3
import array, base64, selectors, warnings
for module in (array, base64, selectors, warnings):
    assert sys.modules[module.__name__] is module and type(module) is type(sys)
assert issubclass(selectors.DefaultSelector, selectors.BaseSelector) and base64.b64encode(b"abc") == b"YWJj"
"""


def test_what_the_public_modules_hardly_use_is_loaded_when_it_is_used() -> None:
    subprocess.run([sys.executable, "-IS", "-c", LEAN, str(PACKAGE.parent)], check=True, timeout=30)
