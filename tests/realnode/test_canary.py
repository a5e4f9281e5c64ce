"""Secrets in logs: each scenario ends with a search of all logs, which finds them."""

from __future__ import annotations

import base64

import pytest

from realnode.node import Node


@pytest.mark.ours
def test_a_secret_in_a_log_is_found(node: Node) -> None:
    password = node.new_password()
    log = node.kubelet.process.log

    def leaks(text: str) -> list[str]:
        with log.open("a") as file:
            file.write(f"{text}\n")
        return node.leaks()

    assert leaks("nothing") == []
    assert leaks(f"password {password}") == [f"a password in {log.name}"]
    for user in ("a", "ab", "abc"):
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        assert leaks(f'"auth": "{encoded}"') == [f"a password in {log.name}"], user
    assert leaks("Bearer eyJhbGciOiJSUzI1NiIs.eyJhdWQiOlsiaHR0c.c2lnbmF0dXJlc2lnbmF0dXJl") == [f"a token in {log.name}"]
    assert leaks("nothing") == []
