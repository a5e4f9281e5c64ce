"""What service accounts may read, by the roles that were collected. Says "not known" where these do not suffice.

rights.may("team-alpha", "default", ("list", "secrets", ""), was_read)      # True, False, or None: not known
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .workloads import Object, items, member, text, texts

KINDS = ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
_RESOURCES = ("secrets", "serviceaccounts")


class _Rule(NamedTuple):
    """`names` is empty for all names."""

    resources: frozenset[str]
    verbs: frozenset[str]
    names: frozenset[str]

    def allows(self, verb: str, resource: str, name: str) -> bool:
        return (
            not self.resources.isdisjoint((resource, "*"))
            and not self.verbs.isdisjoint((verb, "*"))
            and (not self.names or name in self.names)
        )


class Rights:
    """Roles and their bindings, reduced to what they say of secrets and service accounts."""

    def __init__(self) -> None:
        self._roles: dict[tuple[str, str], tuple[_Rule, ...]] = {}
        self._bound: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def add(self, found: Object) -> None:
        """Takes an object of one of ``KINDS``."""
        kind, metadata = found["kind"], member(found, "metadata")
        namespace = text(metadata, "namespace") if kind in ("Role", "RoleBinding") else ""
        if kind in ("Role", "ClusterRole"):
            self._roles[namespace, text(metadata, "name")] = tuple(filter(None, map(_rule, items(found, "rules"))))
            return
        reference = member(found, "roleRef")
        role = namespace if reference.get("kind") == "Role" else "", text(reference, "name")
        for subject in items(found, "subjects"):
            who = text(subject, "name")
            if subject.get("kind") == "ServiceAccount":
                who = f"system:serviceaccount:{text(subject, 'namespace') or namespace}:{who}"
            self._bound.setdefault((namespace, who), []).append(role)

    def may(
        self, namespace: str, account: str, request: tuple[str, str, str], was_read: Callable[[str, str], bool]
    ) -> bool | None:
        """Whether RBAC allows a service account a request in its own namespace; None where that is not known.

        Args:
            request: verb, resource, and the name of the object, "" for all.
            was_read: whether a kind was read in a namespace, "" for one that is in none.
        """
        verb, resource, name = request
        user = f"system:serviceaccount:{namespace}:{account}"
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        bound = {
            role for place in (namespace, "") for who in (user, *groups) for role in self._bound.get((place, who), ())
        }
        if any(rule.allows(verb, resource, name) for role in bound for rule in self._roles.get(role, ())):
            return True
        is_known = was_read("RoleBinding", namespace) and was_read("ClusterRoleBinding", "")
        for place, role in bound:
            kind = "Role" if place else "ClusterRole"
            is_known = is_known and ((place, role) in self._roles or was_read(kind, place))
        return False if is_known else None


def _rule(rule: Object) -> _Rule | None:
    made = _Rule(texts(rule, "resources"), texts(rule, "verbs"), texts(rule, "resourceNames"))
    concerns = texts(rule, "apiGroups") & {"", "*"} and made.resources & {*_RESOURCES, "*"}
    return made if concerns and made.verbs & {"get", "list", "*"} else None
