"""Who asks the simulated API server, for what, and what RBAC and the Node authorizer would say of it."""

from __future__ import annotations

from typing import NamedTuple

ANONYMOUS = "system:anonymous"


class Attributes(NamedTuple):
    """What a request is about, as the authorizers see it; `name` is empty for a list or a create."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""
    group: str = ""


class Verdict(NamedTuple):
    """An authorizer's answer; a real one's `reason` is empty unless RBAC allows or the Node authorizer refuses."""

    allowed: bool
    reason: str = ""


class Grant(NamedTuple):
    """One role bound to one user; `namespace` None is a ClusterRole, `names` None is every name."""

    user: str
    namespace: str | None
    verbs: frozenset[str]
    resource: str
    names: frozenset[str] | None
    role: str
    group: str = ""

    def allows(self, user: str, asked: Attributes) -> bool:
        """Whether this grant covers what `user` asks."""
        return (
            self.user == user
            and self.namespace in (None, asked.namespace)
            and asked.verb in self.verbs
            and (asked.group, asked.resource) == (self.group, self.resource)
            and (self.names is None or asked.name in self.names)
        )

    def reason(self) -> str:
        """The reason that RBAC gives for allowing it."""
        if self.namespace is None:
            return (
                f'RBAC: allowed by ClusterRoleBinding "{self.role}" of ClusterRole "{self.role}" to User "{self.user}"'
            )
        subject = f'User "{self.user}"'
        if self.user.startswith("system:serviceaccount:"):
            _, _, namespace, name = self.user.split(":")
            subject = f'ServiceAccount "{name}/{namespace}"'
        return f'RBAC: allowed by RoleBinding "{self.role}/{self.namespace}" of Role "{self.role}" to {subject}'


class User(NamedTuple):
    """Who asks. `node` is the node's name, or empty."""

    name: str
    node: str = ""
    admin: bool = False

    def flow_schema(self) -> str:
        """The flow schema that the bootstrap configuration puts this user's requests in."""
        if self.admin:
            return "exempt"
        if self.name == ANONYMOUS:
            return "catch-all"
        if self.node:
            return "system-nodes"
        return "service-accounts" if self.name.startswith("system:serviceaccount:") else "global-default"
