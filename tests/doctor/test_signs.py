"""What a real kubelet logged for a fault has what doctor says it logs."""

from __future__ import annotations

import re

import pytest

from crio_credential_provider.doctor.catalogue import CATALOGUE
from node import RECORDINGS

LOGGED = {
    "auth-dir-unusable": "plugin-failed",
    "plugin-missing": "plugin-failed",
    "apiserver-unreachable": "no-answer-from-the-apiserver",
    "node-lacks-audience": "audience-not-allowed",
}


@pytest.mark.parametrize(("code", "recording"), LOGGED.items())
def test_a_quoted_text_is_in_the_kubelets_log(code: str, recording: str) -> None:
    log = (RECORDINGS / f"kubelet-log/1.36-{recording}.txt").read_text()
    quoted = re.findall('"([^"]+)"', CATALOGUE[code].signs)
    assert any(text in log for text in quoted), quoted
