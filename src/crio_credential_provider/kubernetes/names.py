"""Names of Kubernetes objects (k8s.io/apimachinery/pkg/util/validation)."""

from __future__ import annotations

_LABEL = "abcdefghijklmnopqrstuvwxyz0123456789-"


def is_label(text: str) -> bool:
    """A DNS label as Kubernetes has it (RFC 1123), at most 63 characters."""
    return len(text) <= 63 and _is_label_text(text)


def is_subdomain(text: str) -> bool:
    """A DNS subdomain as Kubernetes has it (RFC 1123): most names of objects; at most 253 characters."""
    return len(text) <= 253 and all(_is_label_text(label) for label in text.split("."))


def _is_label_text(text: str) -> bool:
    return bool(text) and not text.strip(_LABEL) and text[0] != "-" and text[-1] != "-"
