"""The C halves behind json, ssl and socket: in each interpreter the verdicts of the public modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crio_credential_provider.platform import native

pytestmark = pytest.mark.slow

PACKAGE = Path(native.__file__).parent.parent

OTHERS = [path for minor in (11, 12, 13) if (path := shutil.which(f"python3.{minor}"))]
"""Further interpreters of this machine."""


def runs(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def self_test(package_parent: Path, before: str = "", python: str = sys.executable) -> str:
    code = f"from crio_credential_provider.platform import native; {before}\n"
    code += "from crio_credential_provider.testbed.selftest import main; main()"
    command = [python, "-I", "-c", f"import sys; sys.path.insert(0, {str(package_parent)!r}); {code}"]
    # Copies of the package are not measured: they would count as further, mostly unused, source files.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.parametrize("python", [sys.executable, *filter(runs, OTHERS)])
def test_the_c_halves_give_the_verdicts_of_the_public_modules(python: str) -> None:
    assert self_test(PACKAGE.parent, python=python) == "C halves and public modules: 0 differences\n"


def test_in_an_interpreter_of_tomorrow_the_public_modules_are_used(tmp_path: Path) -> None:
    parent = shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")).parent
    module = parent / PACKAGE.name / "platform/native.py"
    text = module.read_text()
    module.write_text(text.replace("sys.version_info < (3, 14)", "sys.version_info < (3, 11)"))
    assert module.read_text() != text
    assert self_test(parent) == "public modules and public modules: 0 differences\n"


def test_a_python_that_is_built_without_its_own_sha256() -> None:
    """Red Hat's: --with-builtin-hashlib-hashes=blake2."""
    lacks = "sys.modules.update(_sha256=None, _sha2=None)"
    assert self_test(PACKAGE.parent, lacks) == "C halves and public modules: 0 differences\n"


@pytest.mark.parametrize(
    ("laxity", "told"),
    [
        (
            "decode = native.Decoder.decode; "
            "native.Decoder.decode = lambda self, text: decode(self, text.partition(' {')[0])",
            "loads of '{} {}'",
        ),
        (
            "make = native.tls_client_context; native.tls_client_context = "
            "lambda: [made := make(), setattr(made, 'check_hostname', False)][0]",
            "asked for as other.example",
        ),
    ],
)
def test_a_difference_is_told(laxity: str, told: str) -> None:
    """The self-test can fail: with trailing text taken, and with names not checked."""
    assert told in self_test(PACKAGE.parent, laxity)
