"""What the demo tells with containerd: the same job, and to whom containerd shows the credential of a pull.

As ``story``; pulls are those of a real containerd.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from ..testbed.registry import Pulled
from .containerdstage import CONFIG, HOSTS, OPEN, ContainerdStage, Fetched
from .stage import IMAGE, MIRRORED, Asked, Team
from .story import REQUESTED, Step, Story, log_of


class ContainerdStory(Story):
    """The steps in their order."""

    def __init__(self, stage: ContainerdStage, plugin: str) -> None:
        super().__init__(stage, plugin)
        self._containerd = stage

    def _steps(self) -> Sequence[tuple[str, Callable[[Step], None]]]:
        return (
            ("A cluster with two teams, a private mirror, and a containerd", self._cluster),
            ("hosts.toml sends Docker Hub's images to the mirror, and nowhere else", self._hosts),
            ("A pod of team-alpha starts: the kubelet runs the plugin", self._request),
            ("The answer has the team's credential for the mirror", self._answer),
            ("containerd pulls through the mirror with it", self._pull),
            ("The journal says who got which credential, from which secret", self._journal),
            ("A pod of team-beta pulls the same image", self._second_team),
            ("A namespace without a pull secret", self._without_secret),
            ("A rotated secret is used from the next pull on", self._rotation),
            ("hosts.toml lets containerd ask Docker Hub as well: the plugin refuses", self._refused),
            ("With --allow-fallback-exposure Docker Hub is shown the mirror's password", self._exposed),
        )

    # -- what every pull needs -----------------------------------------------------------------------------------------

    def _check_pulled(self, step: Step, team: Team, asked: Asked) -> Fetched:
        """A pull that must work, as the team's own user, of which nobody but the mirror hears."""
        fetched = self._containerd.fetch(asked.run)
        step.check(fetched.digest == self._stage.digest, f"containerd's pull failed: {fetched.error}")
        step.check(_users(fetched.mirror) == {team.user}, f"the mirror's log has the users {_users(fetched.mirror)}")
        step.check(not fetched.upstream, "Docker Hub's stand-in was asked")
        step.fact("containerd's pull", f"{fetched.digest[:19]}..., from the mirror as user {team.user!r}")
        return fetched

    def _check_refused_pull(self, step: Step, asked: Asked | None = None) -> Fetched:
        """A pull that must fail."""
        fetched = self._containerd.fetch(asked.run if asked else None)
        step.check(not fetched.digest, "containerd pulled it, which should have failed")
        is_refused = fetched.mirror and fetched.mirror[-1].status == 401
        step.check(is_refused, f"the mirror did not answer 401: {fetched.error}")
        return fetched

    def _check_answer(self, step: Step, team: Team, asked: Asked) -> str:
        """Hold the answer against what it must be, and return it as it may be shown."""
        response = asked.run.response
        assert response is not None
        step.check(len(response.auth) == 1, f"the answer has {len(response.auth)} credentials, not one")
        (key,) = response.auth
        credential = response.auth[key]
        user, password = team.user.encode(), self._stage.users[team.user][0].encode()
        is_its_own = (credential.username, credential.password) == (user, password)
        step.check(is_its_own, f"it is not the credential of {team.namespace}")
        step.check(key == REQUESTED, f"its key is {key}, not {REQUESTED}")
        step.check(not self._stage.auth_files(), "there is an auth file, which containerd does not take")
        return json.dumps(json.loads(asked.run.stdout), indent=2)

    # -- the steps -----------------------------------------------------------------------------------------------------

    def _cluster(self, step: Step) -> None:
        stage = self._containerd
        self._alpha = stage.add_team("team-alpha", "web", secret_for=f"{stage.mirror.host}/hub")
        self._beta = stage.add_team("team-beta", "shop", secret_for=stage.mirror.host)
        step.say(
            "containerd is the one of this machine, started for the demo with files of its own. It is told to pull by "
            "ctr, since its CRI socket, which a kubelet uses, takes gRPC: ctr runs the same code of containerd's to "
            "find the hosts in hosts.toml and to send user and password. API server, mirror and Docker Hub are "
            "stand-ins on 127.0.0.1."
        )
        step.fact("containerd", stage.version)
        step.fact("API server", stage.cluster.url)
        step.fact("mirror", f"{stage.mirror.url}, with {MIRRORED}:1.27; requires a password")
        step.fact("Docker Hub", f"{stage.upstream.url}, which refuses everybody, and logs what it is shown")
        for team in (self._alpha, self._beta):
            step.fact(team.namespace, f"pod {team.pod}, secret {team.secret}, user {team.user!r} at the mirror")
        fetched = self._check_refused_pull(step)
        step.fact("anonymous pull", f"{fetched.mirror[-1].status} from the mirror")

    def _hosts(self, step: Step) -> None:
        with open(self._stage.root + HOSTS, encoding="utf-8") as file:
            step.show(HOSTS, file.read())
        step.say(
            f"{CONFIG} names the directory above as its config_path. containerd asks the [host] entries in their "
            "order, and then the server. To each that answers 401 it shows the one credential that the kubelet gave it "
            "for the pull. Here the server is the mirror too, so that nobody else is asked: without that line it would "
            "be Docker Hub."
        )

    def _request(self, step: Step) -> None:
        alpha = self._alpha
        self._asked = asked = self._ask_well(step, alpha)
        request = json.loads(asked.run.request)
        request["serviceAccountToken"] = "<token>"
        step.say(f"Pod {alpha.pod} has the image {IMAGE}. The kubelet runs the plugin, with this on standard input:")
        step.show("standard input", json.dumps(request, indent=2))
        step.fact("command", f"{self._plugin} --root <this node> --runtime containerd")
        step.fact("exit status", f"{asked.run.status}, after {asked.run.seconds * 1000:.0f} ms")
        step.check(request["image"] == REQUESTED, f"the image in the request is {request['image']}")

    def _answer(self, step: Step) -> None:
        shown = self._check_answer(step, self._alpha, self._asked)
        step.say(
            "It reads hosts.toml as containerd does, lists the secrets of the pod's namespace as the pod's own "
            "service account, and finds that the mirror is the only host that may be asked."
        )
        step.show("standard output, the answer to the kubelet", shown)
        step.say(
            "0s: the kubelet keeps it for no other pull. It notes that the image was pulled with credentials of this "
            "service account, so that no other pod of the node may use it without a pull of its own. No file is "
            "written, since containerd takes the credential from the kubelet."
        )

    def _pull(self, step: Step) -> None:
        fetched = self._check_pulled(step, self._alpha, self._asked)
        step.show("the mirror's log: status, user, request", log_of(fetched.mirror))
        step.fact("Docker Hub's log", "nothing")

    def _journal(self, step: Step) -> None:
        entry = self._asked.journal[0]
        step.show("MESSAGE", entry.get("MESSAGE", ""))
        for name in ("OUTCOME", "NAMESPACE", "SERVICE_ACCOUNT", "POD", "IMAGE", "SECRETS", "CREDENTIALS"):
            step.fact(name, entry.get(name, ""))
        alpha = self._alpha
        expected = {"OUTCOME": "answered", "NAMESPACE": alpha.namespace, "POD": alpha.pod, "SECRETS": alpha.secret}
        for name, value in expected.items():
            step.check(entry.get(name) == value, f"{name} is {entry.get(name)!r}, not {value!r}")
        step.say("No field holds a password or a token. That is checked here after every run of the plugin.")

    def _second_team(self, step: Step) -> None:
        asked = self._ask_well(step, self._beta)
        self._check_answer(step, self._beta, asked)
        step.say(f"Pod {self._beta.pod} has the image {IMAGE} too, and its namespace a secret with another user.")
        self._check_pulled(step, self._beta, asked)

    def _without_secret(self, step: Step) -> None:
        team = self._stage.add_team("team-gamma", "batch")
        asked = self._ask_well(step, team)
        step.say("team-gamma has no secret for the mirror, and gets nobody else's:")
        step.show("MESSAGE", asked.journal[0].get("MESSAGE", ""))
        self._check_nothing(step, asked)
        self._check_refused_pull(step, asked)
        step.fact("containerd's pull", "refused: 401 from the mirror")

    def _check_nothing(self, step: Step, asked: Asked) -> None:
        response = asked.run.response
        step.check(response is not None and not response.auth, "the answer has a credential")
        step.fact("answer", "without auth")

    def _rotation(self, step: Step) -> None:
        alpha, stage = self._alpha, self._containerd
        asked = self._ask_well(step, alpha)
        stage.set_password(alpha, f"{stage.mirror.host}/hub")
        step.say("The user's password changes at the mirror, and the secret with it. An answer of just before:")
        fetched = self._check_refused_pull(step, asked)
        step.check(not fetched.upstream, "Docker Hub's stand-in was asked")
        step.fact("containerd's pull", "refused: 401 from the mirror; Docker Hub was not asked")
        step.say("The kubelet tries again, and with that runs the plugin again, which reads the new secret:")
        asked = self._ask_well(step, alpha)
        self._check_answer(step, alpha, asked)
        self._check_pulled(step, alpha, asked)

    def _refused(self, step: Step) -> None:
        stage = self._containerd
        stage.set_hosts(OPEN)
        with open(stage.root + HOSTS, encoding="utf-8") as file:
            step.show(HOSTS, file.read())
        step.say("Where the mirror fails, containerd goes on to the server now.")
        asked = self._ask_well(step, self._alpha)
        entry = asked.journal[0]
        step.show("MESSAGE", entry.get("MESSAGE", ""))
        self._check_nothing(step, asked)
        step.check(stage.upstream.url in entry.get("MESSAGE", ""), "the journal does not say who would be shown it")
        fetched = self._check_refused_pull(step, asked)
        step.check(_users(fetched.upstream) == set(), f"Docker Hub saw the users {_users(fetched.upstream)}")
        step.check(fetched.upstream, "Docker Hub's stand-in was not asked")
        step.fact("containerd's pull", "refused by both, and neither was shown a credential")

    def _exposed(self, step: Step) -> None:
        alpha, stage = self._alpha, self._containerd
        step.say(
            "An operator who trusts the fallback can allow it. Here the password has changed at the mirror, but not "
            "yet in the secret: the mirror refuses it, and containerd goes on to the server with it."
        )
        asked = self._ask_well(step, alpha, "--allow-fallback-exposure")
        self._check_answer(step, alpha, asked)
        stage.users[alpha.user] = ("another", ["hub"])
        fetched = self._check_refused_pull(step, asked)
        step.show("Docker Hub's log: status, user, request", log_of(fetched.upstream))
        step.check(_users(fetched.upstream) == {alpha.user}, "Docker Hub's stand-in was shown no credential")
        step.say("This is what the plugin refuses to cause unless it is told to.")


def _users(requests: Sequence[Pulled]) -> set[str]:
    return {request.user for request in requests if request.user}
