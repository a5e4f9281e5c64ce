"""What the compiler optimizes the interpreter for: run by an instrumented one, in the build.

What most of a pull's work is: JSON, base64, text and small objects. By itself, so that a build of the interpreter depends
on nothing of the program.
"""

import base64
import binascii
import hashlib
import json
import os


class Entry:
    __slots__ = ("auth", "path", "registry")

    def __init__(self, registry, path, auth):
        self.registry = registry
        self.path = path
        self.auth = auth

    def covers(self, registry, path):
        return self.registry == registry and (path + "/").startswith(self.path + "/" if self.path else "")


def secrets(count):
    """A list of pull secrets, as the API server has it."""
    items = []
    for number in range(count):
        auth = base64.b64encode(f"robot:{number:032x}".encode()).decode()
        content = json.dumps({"auths": {f"registry-{number}.example.com:5000/project": {"auth": auth}}})
        data = {".dockerconfigjson": base64.b64encode(content.encode()).decode()}
        metadata = {"name": f"pull-{number}", "namespace": "team", "labels": {"a": "b\u00e9\n"}, "generation": number}
        items.append({"metadata": metadata, "data": data, "type": "kubernetes.io/dockerconfigjson", "immutable": None})
    return json.dumps({"kind": "SecretList", "items": items, "numbers": [1, -2.5, True]})


def entries(text):
    found = {}
    for item in json.loads(text).get("items", []):
        for encoded in item["data"].values():
            try:
                content = json.loads(binascii.a2b_base64(encoded.encode("ascii"), strict_mode=True).decode())
            except (ValueError, KeyError):
                continue
            for key, value in content["auths"].items():
                registry, _, path = key.removeprefix("https://").partition("/")
                user, _, password = base64.b64decode(value["auth"]).decode().partition(":")
                if user and password and registry.lower() == registry and not registry.endswith("."):
                    found.setdefault(registry, []).append(Entry(registry, path.rstrip("/"), value["auth"]))
    return found


def main():
    for _ in range(30):
        found = entries(secrets(100))
        wanted = sorted(found, key=lambda name: (-len(name), name))[:40]
        chosen = [entry for name in wanted for entry in found[name] if entry.covers(name, "project/app")]
        answer = {"auths": {f"{entry.registry}/{entry.path}": {"auth": entry.auth} for entry in chosen}}
        text = json.dumps(answer, separators=(",", ":"), sort_keys=True).translate({ord("<"): "\\u003c"})
        hashlib.sha256(text.encode()).hexdigest()
        os.stat(os.path.join("/", "".join(part for part in text.split(":")[:2] if not part)))


main()
