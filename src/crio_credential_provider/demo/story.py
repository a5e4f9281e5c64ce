"""What the demo tells, step by step, and the check behind each sentence.

    with Stage(root, plugin) as stage:
        for step in Story(stage, "crio-credential-provider").play():
            print(step.number, step.title, step.failure or "ok")

A step tells by adding paragraphs, facts and texts, in the order in which a person reads them; it checks what it tells,
and the first check that fails ends the story there. Knows nothing of terminals and formats (`commands.demo`).
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..testbed.crio import AUTH_DIR, Pull
from ..testbed.registry import Pulled
from .stage import IMAGE, MIRRORED, REGISTRIES_CONF, Asked, Stage, Team

REQUESTED = "docker.io/library/nginx"
"""`IMAGE` as the kubelet normalises it."""


class Failed(Exception):
    """A check that failed: what is the case instead."""


class Tell(NamedTuple):
    """A paragraph (no name), a fact (a name and a value), or a text that is shown as it stands."""

    text: str
    name: str = ""
    as_it_stands: bool = False


class Step:
    """One step: its number from 1, its title, what it tells, and why it failed ("" if it passed)."""

    def __init__(self, number: int, title: str, shown: Callable[[str], str]) -> None:
        self.number = number
        self.title = title
        self.tells: list[Tell] = []
        self.failure = ""
        self._shown = shown

    def say(self, text: str) -> None:
        self.tells.append(Tell(self._shown(text)))

    def fact(self, name: str, value: object) -> None:
        self.tells.append(Tell(self._shown(str(value)), name))

    def show(self, name: str, text: str) -> None:
        self.tells.append(Tell(self._shown(text.rstrip("\n")), name, as_it_stands=True))

    def check(self, so: object, otherwise: str) -> None:
        """Go on only if it is so; `otherwise` says what is the case instead."""
        if not so:
            raise Failed(otherwise)

    def fail(self, why: str) -> None:
        self.failure = " ".join(self._shown(why).split())


class Story:
    """The steps in their order; each goes on from where the one before it left the stage."""

    def __init__(self, stage: Stage, plugin: str) -> None:
        self._stage = stage
        self._plugin = plugin
        self._alpha: Team
        self._beta: Team
        self._bare: Team
        self._asked: Asked
        self._users: dict[str, set[str | None]] = {}
        self.runs: list[float] = []

    def play(self) -> Iterator[Step]:
        """Play each step and hand it out; the first that fails is the last."""
        for number, (title, play) in enumerate(self._steps(), 1):
            step = Step(number, title, self._stage.shown)
            try:
                play(step)
            except (Failed, OSError, ValueError) as error:
                # The last two come from what a plugin left: a file that cannot be read, or holds something else.
                step.fail(str(error) or type(error).__name__)
            yield step
            if step.failure:
                return

    def _steps(self) -> Sequence[tuple[str, Callable[[Step], None]]]:
        return (
            ("A cluster with two teams, and a private mirror", self._cluster),
            ("registries.conf sends Docker Hub's images to the mirror", self._mirror),
            ("A pod of team-alpha starts: the kubelet runs the plugin", self._request),
            ("The plugin finds the mirror and the team's secret, and answers", self._answer),
            ("It has written one auth file, for this one pull", self._auth_file),
            ("CRI-O pulls through the mirror, and removes the file", self._pull),
            ("The journal says who got which credential, from which secret", self._journal),
            ("A pod of team-beta pulls the same image", self._second_team),
            ("No team's pull ever uses the other team's credential", self._apart),
            ("A rotated secret is used from the next pull on", self._rotation),
            ("A namespace without a pull secret", self._without_secret),
            ("A namespace without the Role", self._without_role),
            ("The same namespace, with exactly that Role", self._with_role),
        )

    # -- what every pull needs -----------------------------------------------------------------------------------------

    def _ask(self, step: Step, team: Team, *further: str) -> Asked:
        """Run the plugin for a team's pod, with further arguments."""
        asked = self._stage.ask(team, *further)
        self.runs.append(asked.run.seconds)
        step.check(not asked.leaked, "the plugin wrote a password or a token to stdout, stderr or the journal")
        return asked

    def _ask_well(self, step: Step, team: Team, *further: str) -> Asked:
        """The same, where the plugin must answer and say nothing else."""
        asked = self._ask(step, team, *further)
        run = asked.run
        error = run.error + ("nothing on stderr" if run.error.endswith(": ") else "")
        step.check(not error, f"the kubelet rejects its answer: {error}")
        step.check(not run.stderr, f"it wrote on stderr: {run.stderr.strip()}")
        step.check(len(asked.journal) == 1, f"expected one entry in the journal, got {len(asked.journal)}")
        return asked

    def _check_file(self, step: Step, team: Team) -> str:
        """Hold the team's auth file against what it must be, and return it as it may be shown."""
        path = self._stage.auth_file(team)
        step.check(os.path.exists(path), f"{path}: no such file")
        mode = stat.S_IMODE(os.stat(path).st_mode)
        step.check(mode == 0o600, f"its mode is {mode:04o}, not 0600")
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        entries = document.get("auths") if isinstance(document, dict) and len(document) == 1 else None
        if not isinstance(entries, dict):
            raise Failed("it is not a file with auths and nothing else")
        keys = sorted(entries)
        step.check(keys == [self._stage.mirrored], f"its keys are {keys}, not {self._stage.mirrored} alone")
        entry = {"auth": self._stage.auth_of(team)}
        step.check(entries == {self._stage.mirrored: entry}, f"its auth is not the credential of {team.namespace}")
        entries[self._stage.mirrored] = {"auth": "***"}
        return json.dumps(document, indent=2)

    def _pull_image(self, team: Team, asked: Asked | None = None) -> tuple[Pull, list[Pulled]]:
        """CRI-O's pull, and what the mirror logged meanwhile."""
        before = len(self._stage.mirror.log)
        pull = self._stage.pull(team, asked)
        logged = self._stage.mirror.log[before:]
        self._users.setdefault(team.namespace, set()).update(request.user for request in logged)
        return pull, logged

    def _check_served(self, step: Step, team: Team, asked: Asked) -> tuple[Pull, list[Pulled]]:
        """A pull that must work, as the team's own user, and leave nothing behind."""
        pull, logged = self._pull_image(team, asked)
        step.check(pull.digest, f"CRI-O's pull failed: {pull.error}")
        step.check(pull.digest == self._stage.digest, f"CRI-O pulled {pull.digest}, not {self._stage.digest}")
        served = pull.attempts[-1]
        step.check(served.source == self._stage.mirrored, f"{served.source} served it, not the mirror")
        users = {request.user for request in logged} - {None}
        step.check(users == {team.user}, f"the mirror's log has the users {sorted(map(str, users))}")
        step.check(not os.path.exists(self._stage.auth_file(team)), "the file is still there")
        return pull, logged

    def _check_refused(self, step: Step, team: Team, asked: Asked | None = None) -> Pull:
        """A pull that the mirror must refuse with a 401."""
        pull, _ = self._pull_image(team, asked)
        step.check(not pull.digest, f"CRI-O pulled {pull.digest}, which should have failed")
        step.check(pull.attempts and pull.attempts[0].status == 401, f"the mirror did not answer 401: {pull.error}")
        return pull

    # -- the steps -----------------------------------------------------------------------------------------------------

    def _cluster(self, step: Step) -> None:
        stage = self._stage
        self._alpha = alpha = stage.add_team("team-alpha", "web", secret_for=f"{stage.mirror.host}/hub")
        self._beta = beta = stage.add_team("team-beta", "shop", secret_for=stage.mirror.host)
        step.say(
            "The API server has TLS, with a CA of its own. Each team has a namespace with a pod, a pull secret for "
            "the mirror, and a Role that lets the pod's service account list the namespace's secrets. The mirror "
            "knows each team by a user of its own, and requires a password for every pull."
        )
        step.fact("API server", stage.cluster.url)
        step.fact("mirror", f"https://{stage.mirror.host}, with {MIRRORED}:1.27")
        for team in (alpha, beta):
            secret = stage.cluster.secrets[team.namespace, team.secret]
            step.fact(
                team.namespace,
                f"pod {team.pod}, secret {secret['metadata']['name']}, user {team.user!r} at the mirror",
            )
        pull = self._check_refused(step, alpha)
        step.fact("anonymous pull", f"{pull.attempts[0].status} from the mirror: {pull.attempts[0].message}")

    def _mirror(self, step: Step) -> None:
        with open(self._stage.root + REGISTRIES_CONF, encoding="utf-8") as file:
            step.show(REGISTRIES_CONF, file.read())
        sources = self._stage.runtime.pull_sources(IMAGE)
        step.say(f"For a pod with the image {IMAGE} CRI-O asks these pull sources, in this order:")
        for number, source in enumerate(sources, 1):
            refused = " (blocked: CRI-O does not ask it)" if source.blocked else ""
            step.fact(f"source {number}", f"{source.reference}{refused}")
        names = [(source.name, source.blocked) for source in sources]
        step.check(names == [(self._stage.mirrored, False), (REQUESTED, True)], "these are not the expected sources")

    def _request(self, step: Step) -> None:
        alpha = self._alpha
        step.say(
            f"Pod {alpha.pod} has the image {IMAGE}. The kubelet normalizes the name, removes the tag, and gets a "
            "token for the pod's service account from the API server. It runs the plugin as a process, with both on "
            "standard input:"
        )
        self._asked = asked = self._ask_well(step, alpha)
        request = json.loads(asked.run.request)
        request["serviceAccountToken"] = "<token>"
        step.show("standard input", json.dumps(request, indent=2))
        step.fact("command", f"{self._plugin} --root <this node>")
        step.fact("namespace", f"{alpha.namespace}, which the plugin reads from the token, as it does the pod's name")
        step.fact("exit status", f"{asked.run.status}, after {asked.run.seconds * 1000:.0f} ms")
        step.check(request["image"] == REQUESTED, f"the image in the request is {request['image']}")

    def _answer(self, step: Step) -> None:
        stage, alpha = self._stage, self._alpha
        entry = self._asked.journal[0]
        found = entry.get("SOURCES", "").split()
        step.say(
            "It reads registries.conf as CRI-O does, lists the secrets of the pod's namespace as the pod's own service "
            "account, and picks the credential for each source as CRI-O would look it up."
        )
        step.fact("mirror found", found[0] if found else "none")
        lists = [request for request in stage.cluster.requests if request.path.endswith("dockerconfigjson")]
        for request in lists[-1:]:
            step.fact("API request", f"list secrets in {request.path.split('/')[4]}, answer {request.status}")
            step.fact("asked as", request.user)
        step.fact(
            "secret used", f"{entry.get('SECRETS', 'none')}, for {entry.get('CREDENTIALS', '').partition('=')[0]}"
        )
        step.check(found[:1] == [stage.mirrored], f"it found the sources {found}")
        asked = [(f"system:serviceaccount:{alpha.namespace}:default", f"/api/v1/namespaces/{alpha.namespace}/secrets")]
        got = [(request.user, request.path.partition("?")[0]) for request in stage.cluster.requests]
        step.check(got == asked, f"it asked the API server for {got}")
        step.check(entry.get("SECRETS") == alpha.secret, f"it used the secrets {entry.get('SECRETS')!r}")
        response = self._asked.run.response
        assert response is not None
        step.show(
            "standard output, the answer to the kubelet", json.dumps(json.loads(self._asked.run.stdout), indent=2)
        )
        step.say(
            "0s: the kubelet runs the plugin for every pull, since every pull takes its own file. The "
            "entry without user and password is not a credential. It limits the pulled image to this service account, "
            "so that no other pod of the node may use it from the local store without a pull of its own."
        )
        step.check(
            (response.cache_key_type, response.cache_duration) == ("Image", "0s"),
            f"the kubelet would keep the answer: {response.cache_key_type}, {response.cache_duration}",
        )
        step.check(list(response.auth) == [REQUESTED], f"the keys of auth are {list(response.auth)}")
        step.check(not any(response.auth.values()), "it returned a credential to the kubelet")

    def _auth_file(self, step: Step) -> None:
        path = self._stage.auth_file(self._alpha)
        files = self._stage.auth_files()
        step.check(files, "no auth file was written")
        step.check(files == [os.path.basename(path)], f"the files are {files}")
        content = self._check_file(step, self._alpha)
        step.show("path", path)
        step.say(f"The name is the namespace and the SHA-256 of {REQUESTED}: CRI-O looks for this name.")
        step.fact("mode", "0600")
        step.show("content, the credential hidden", content)
        step.say(
            "One entry, under the full name of the repository at the mirror: the file is for this image and no other. "
            f"The secret's own key is {self._stage.mirror.host}/hub."
        )

    def _pull(self, step: Step) -> None:
        pull, logged = self._check_served(step, self._alpha, self._asked)
        served = pull.attempts[-1]
        step.say(f"CRI-O moves the file to {AUTH_DIR}/in-use/, uses it instead of any other, and removes it.")
        step.fact("source", served.source)
        step.fact("user", f"{served.user!r}, by the file's entry {served.key}")
        step.fact("mirror's answer", f"{served.status}, for manifest, config and layer")
        step.fact("pulled", pull.digest)
        self._show_log(step, logged)
        files = self._stage.auth_files()
        step.check(not files, f"there are still files: {files}")
        step.fact("auth files left", "none")

    def _show_log(self, step: Step, logged: Sequence[Pulled]) -> None:
        step.show("the mirror's log: status, user, request", log_of(logged))

    def _journal(self, step: Step) -> None:
        entry = self._asked.journal[0]
        step.show("MESSAGE", entry.get("MESSAGE", ""))
        step.say("The same as fields, for journalctl -o json:")
        told = (
            "SYSLOG_IDENTIFIER",
            "OUTCOME",
            "NAMESPACE",
            "SERVICE_ACCOUNT",
            "POD",
            "IMAGE",
            "SECRETS",
            "CREDENTIALS",
        )
        for name in (*told, "DURATION_US"):
            step.fact(name, entry.get(name, ""))
        alpha = self._alpha
        expected = {"SYSLOG_IDENTIFIER": "crio-credential", "OUTCOME": "auth-file-written", "IMAGE": REQUESTED}
        expected |= {"NAMESPACE": alpha.namespace, "SERVICE_ACCOUNT": "default", "POD": alpha.pod}
        expected |= {"SECRETS": alpha.secret, "CREDENTIALS": f"{self._stage.mirrored}={alpha.secret}"}
        for name, value in expected.items():
            step.check(entry.get(name) == value, f"{name} is {entry.get(name)!r}, not {value!r}")
        step.check(entry.get("DURATION_US", "").isdigit(), "DURATION_US is not a number")
        path = self._stage.auth_file(alpha)
        step.check(f"Wrote auth file to {path}" in entry.get("MESSAGE", ""), f"MESSAGE does not name {path}")
        step.say("No field holds a password or a token. That is checked here after every run of the plugin.")

    def _second_team(self, step: Step) -> None:
        beta = self._beta
        asked = self._ask_well(step, beta)
        step.say(
            f"Pod {beta.pod} has the image {IMAGE} too. Its namespace has a secret with only the mirror's "
            "host as its key, and another user."
        )
        content = self._check_file(step, beta)
        step.show("path", self._stage.auth_file(beta))
        step.show("content, the credential hidden", content)
        pull, _ = self._check_served(step, beta, asked)
        self._tell_pull(step, pull)

    def _tell_pull(self, step: Step, pull: Pull) -> None:
        first = pull.attempts[0]
        if pull.digest:
            step.fact(
                "CRI-O's pull", f"{first.status} from the mirror as user {first.user!r}, {_shortened(pull.digest)}"
            )
        else:
            step.fact("CRI-O's pull", f"refused: {first.status} from the mirror, {first.message.rpartition(': ')[2]}")

    def _apart(self, step: Step) -> None:
        alpha, beta = self._alpha, self._beta
        step.say("Both pods start at once: the plugin runs for both before either pull begins. Two files wait:")
        asked = {team: self._ask_well(step, team) for team in (alpha, beta)}
        names = [os.path.basename(self._stage.auth_file(team)) for team in (alpha, beta)]
        step.check(self._stage.auth_files() == sorted(names), f"the files are {self._stage.auth_files()}")
        for team, name in zip((alpha, beta), names, strict=True):
            self._check_file(step, team)
            step.fact(_shortened(name), f"holds the credential of {team.user!r}, and no other")
        self._check_served(step, beta, asked[beta])
        self._check_file(step, alpha)
        self._check_served(step, alpha, asked[alpha])
        step.say("By the mirror's log, over all pulls so far:")
        for team in (alpha, beta):
            users = self._users[team.namespace] - {None, ""}
            step.check(users == {team.user}, f"pulls of {team.namespace} had the users {sorted(map(str, users))}")
            step.fact(f"pulls of {team.namespace}", f"came as user {team.user!r} only")

    def _rotation(self, step: Step) -> None:
        alpha, stage = self._alpha, self._stage
        self._ask_well(step, alpha)
        self._check_file(step, alpha)
        old = stage.auth_of(alpha)
        stage.set_password(alpha, f"{stage.mirror.host}/hub")
        step.say(
            "The user's password changes at the mirror, and the secret with it. Nothing is restarted, no cache is "
            "cleared. A file that the plugin wrote just before the change has the old password:"
        )
        self._tell_pull(step, self._check_refused(step, alpha))
        step.say("The kubelet tries again, and with that runs the plugin again, which reads the new secret:")
        asked = self._ask_well(step, alpha)
        step.check(stage.auth_of(alpha) != old, "the password did not change")
        self._check_file(step, alpha)
        pull, _ = self._check_served(step, alpha, asked)
        self._tell_pull(step, pull)

    def _without_secret(self, step: Step) -> None:
        team = self._stage.add_team("team-gamma", "batch")
        asked = self._ask_well(step, team)
        step.say(
            "team-gamma has the Role, but no secret for the mirror. That is not an error: most images need none. "
            "The plugin answers, writes no file, and logs the reason to the journal."
        )
        self._tell_nothing_written(step, asked)
        step.show("MESSAGE", asked.journal[0].get("MESSAGE", ""))
        reason = "no pull secret of namespace team-gamma"
        step.check(reason in asked.journal[0].get("MESSAGE", ""), f"the journal does not say: {reason}")
        response = asked.run.response
        step.check(response is not None and not response.auth, "the answer has an auth without a credential")
        step.fact("answer", "as above, but without auth")
        self._tell_pull(step, self._check_refused(step, team, asked))

    def _tell_nothing_written(self, step: Step, asked: Asked) -> None:
        files = self._stage.auth_files()
        step.check(not files, f"there are files: {files}")
        step.fact("exit status", asked.run.status)
        step.fact("auth files", "none")

    def _without_role(self, step: Step) -> None:
        stage = self._stage
        self._bare = bare = stage.add_team("team-delta", "api", secret_for=stage.mirror.host, role=False)
        self._asked = asked = self._ask(step, bare)
        run = asked.run
        step.say(
            "team-delta has a secret, but no Role: its service account may not list it. That is an error. The kubelet "
            "logs the plugin's one line on stderr, and continues the pull without credentials."
        )
        step.check(run.status == 1, f"the exit status is {run.status}, not 1")
        self._tell_nothing_written(step, asked)
        step.show("the kubelet's log", run.error)
        step.check(run.stderr.count("\n") == 1, f"it wrote {run.stderr.count(chr(10))} lines on stderr")
        for words in ("answered 403", "service account default may not list secrets in namespace team-delta"):
            step.check(words in run.stderr, f"the line does not say: {words}")
        self._tell_pull(step, self._check_refused(step, bare))

    def _with_role(self, step: Step) -> None:
        bare, line = self._bare, self._asked.run.stderr
        role = re.search(r"kubectl -n (\S+) create role (\S+) --verb=(\S+) --resource=(\S+)", line)
        binding = re.search(r"kubectl -n (\S+) create rolebinding \S+ --role=(\S+) --serviceaccount=(\S+):(\S+)", line)
        if role is None or binding is None:
            raise Failed("the error line has no kubectl command that grants the Role")
        step.say("The error line has the remedy. An administrator runs it:")
        step.show("commands", f"{role.group()}\n{binding.group()}")
        told = (role[1], role[2], binding[1], binding[2], binding[3], binding[4])
        expected = (bare.namespace, binding[2], bare.namespace, role[2], bare.namespace, "default")
        step.check(told == expected, "the commands do not bind the Role to the pod's service account")
        step.check((role[3], role[4]) == ("list", "secrets"), f"it grants {role[3]} on {role[4]}")
        # From the words of the error line, and nothing beyond them.
        self._stage.cluster.allow(role[1], binding[4], role[3].split(","), role[4], role=role[2])
        asked = self._ask_well(step, bare)
        self._check_file(step, bare)
        pull, _ = self._check_served(step, bare, asked)
        step.fact("exit status", asked.run.status)
        self._tell_pull(step, pull)


def log_of(requests: Sequence[Pulled]) -> str:
    """Requests, a line each."""
    lines = [f"{request.status}  {request.user or '-':6}  {request.method} {request.path}" for request in requests]
    return "\n".join(map(_shortened, lines))


def _shortened(text: str) -> str:
    """Hexadecimal digests cut to what tells them apart."""
    return re.sub(r"([0-9a-f]{12})[0-9a-f]{48}([0-9a-f]{4})", r"\1...\2", text)
