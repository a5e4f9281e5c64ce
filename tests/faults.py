"""What a run cannot serve: requests, configurations, API servers and their certificates; each with the words for it."""

from __future__ import annotations

from typing import Any

from crio_credential_provider.testbed import cluster as demo
from crio_credential_provider.testbed.cluster import Exchange, Fault
from node import bound_claims, jwt, recorded_request, request

V1 = "credentialprovider.kubelet.k8s.io/v1"
JWT = jwt(bound_claims())


def of(claims: Any) -> bytes:
    return request(token=jwt(claims))


BROKEN_REQUESTS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("standard input is empty", "the kubelet runs this program")),
    "an empty line": (b"\n", ("standard input is empty", "the kubelet runs this program")),
    "no JSON": (b"nonsense", ("not valid JSON", "Expecting value", "the kubelet runs this program")),
    "truncated": (recorded_request()[:700], ("not valid JSON", "Unterminated string")),
    "not UTF-8": (b'{"kind":"\xff"}', ("not valid JSON",)),
    "nested deeply": (b"[" * 100_000, ("not valid JSON",)),
    "two objects": (request() + request(), ("not valid JSON", "Extra data")),
    "a list": (b"[]", ("not a JSON object",)),
    "null": (b"null", ("not a JSON object",)),
    "another kind": (request(kind="CredentialProviderResponse"), ("kind", "CredentialProviderResponse")),
    "no kind": (request(kind=None), ("has no kind, expected",)),
    "a kind that is no text": (request(kind={"a": 1}), ("kind", "of type dict")),
    "v1beta1": (
        request(apiVersion="credentialprovider.kubelet.k8s.io/v1beta1"),
        ("v1beta1", f"expected '{V1}'", "set the provider's apiVersion", "CredentialProviderConfig"),
    ),
    "no apiVersion": (request(apiVersion=None), ("has no apiVersion, expected",)),
    "no image": (request(image=""), ("has no image",)),
    "an image that is no text": (request(image=["a"]), ("image is not a string",)),  # type: ignore[arg-type]
    "a token that is no text": (request(serviceAccountToken=7), ("serviceAccountToken is not a string",)),
    "annotations that are no object": (request(serviceAccountAnnotations=[]), ("serviceAccountAnnotations",)),
    "an image with capitals": (request("docker.io/Library/nginx", JWT), ("image",)),
    "an image with a parent directory": (request("docker.io/../../etc/passwd", JWT), ("image",)),
    "an image with a blank": (request("docker.io/library/ng inx", JWT), ("image",)),
    "an image with a line break": (request("docker.io/library/nginx\nAUTH_FILE=/etc/shadow", JWT), ("image",)),
    "an image of slashes": (request("///", JWT), ("image",)),
    "a token without dots": (request(token="abcdef"), ("serviceAccountToken is not a JWT", "tokenAttributes")),
    "a token of two parts": (request(token="abc.def"), ("serviceAccountToken is not a JWT",)),
    "a token of four parts": (request(token=JWT + ".x"), ("serviceAccountToken is not a JWT",)),
    "a token of no base64": (request(token="a.!!!.c"), ("serviceAccountToken is not a JWT",)),
    "a token with a line break": (
        request(token=JWT.replace(".", ".\r\nX-Injected: 1\r\n", 1)),
        ("serviceAccountToken is not a JWT",),
    ),
    "a header with a line break": (
        request(token=JWT.replace(".", "\r\nX-Injected: 1\r\n.", 1)),
        ("serviceAccountToken is not a JWT",),
    ),
    "a signature with a line break": (request(token=JWT + "\r\nX-Injected: 1"), ("serviceAccountToken is not a JWT",)),
    "claims of no JSON": (request(token="e30.bm9uc2Vuc2U.e30"), ("serviceAccountToken is not a JWT",)),
    "claims that are a list": (of([]), ("serviceAccountToken is not a JWT",)),
    "no Kubernetes claims": (of({"sub": "x"}), ("no claim kubernetes.io",)),
    "Kubernetes claims of text": (of({"kubernetes.io": "team-alpha"}), ("no claim kubernetes.io",)),
    "no namespace": (of({"kubernetes.io": {"serviceaccount": {"name": "default"}}}), ("no valid namespace",)),
    "a namespace of parent directories": (of(bound_claims("../../etc")), ("no valid namespace",)),
    "a namespace of capitals": (of(bound_claims("A")), ("no valid namespace",)),
    "a namespace of 64 characters": (of(bound_claims("a" * 64)), ("no valid namespace",)),
    "an empty namespace": (of(bound_claims("")), ("no valid namespace",)),
    "a namespace with a dot": (of(bound_claims("a.b")), ("no valid namespace",)),
    "a namespace with a dash at its end": (of(bound_claims("a-")), ("no valid namespace",)),
    "a namespace with a slash": (of(bound_claims("a/b")), ("no valid namespace",)),
    "a namespace with a line break": (of(bound_claims("a\n")), ("no valid namespace",)),
    "a namespace with a NUL": (of(bound_claims("a\0b")), ("no valid namespace",)),
    "a namespace of other letters": (of(bound_claims("té")), ("no valid namespace",)),
    "a namespace that is a number": (of(bound_claims(7)), ("no valid namespace",)),
    "a pod with a slash": (of(bound_claims(pod="../web")), ("no valid pod",)),
    "a pod that is a list": (of(bound_claims(pod=[])), ("no valid pod",)),
    "a service account with a slash": (of(bound_claims(account="a/b")), ("no valid service account",)),
}


BROKEN_TOML: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "no TOML": ("[[registry\n", ("registries.conf", "line 1")),
    "not UTF-8": (b'x = "\xff\xfe\xfa"\n', ("registries.conf",)),
    "a wrong type": ("[[registry]]\nlocation = 7\n", ("registries.conf", "location")),
    "a table without a place": ("[[registry]]\nblocked = true\n", ("registries.conf",)),
    "mixed formats": (
        '[[registry]]\nlocation = "a.example"\n[registries.search]\nregistries = ["b.example"]\n',
        ("registries.conf",),
    ),
}


def endless_headers(exchange: Exchange) -> bool:
    exchange.connection.send(b"HTTP/1.1 200 OK\r\n")
    while not exchange.connection.closing.is_set():
        exchange.connection.send(b"X-More: and more\r\n" * 1000)
    return True


def length_too_long(exchange: Exchange) -> bool:
    exchange.answer.chunked = False
    exchange.connection.send(exchange.answer.head(len(exchange.answer.body) + 10) + exchange.answer.body)
    exchange.connection.close()
    return True


def length_too_short(exchange: Exchange) -> bool:
    exchange.answer.chunked = False
    exchange.connection.send(exchange.answer.head(len(exchange.answer.body) - 10) + exchange.answer.body)
    exchange.connection.close()
    return True


IS_IT_ONE = "check that this is a Kubernetes API server"

# Name -> what goes wrong, the words that a person needs, and flags.
FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "stalls before the headers": (demo.stall(30), ("did not answer within 1 s", "--deadline")),
    "stalls before the body": (demo.stall(30, after_headers=True), ("did not answer within 1 s", "--deadline")),
    "drips": (demo.drip(0.05), ("did not answer within 1 s", "--deadline")),
    "resets": (demo.reset, ("no answer from the API server", "check that it is running")),
    "404": (demo.refuse(404), ("answered 404", IS_IT_ONE)),
    "429": (demo.refuse(429, retry_after=1), ("answered 429", "it may be starting up or overloaded")),
    "429 for long": (demo.refuse(429, retry_after=600), ("answered 429", "overloaded")),
    "500": (demo.refuse(500), ("answered 500", "it may be starting up or overloaded")),
    "503": (demo.refuse(503), ("answered 503", "it may be starting up or overloaded")),
    "503 with Retry-After": (demo.refuse(503, retry_after=1), ("answered 503",)),
    "a load balancer's page": (demo.refuse(502, html=True), ("answered 502", "not a Kubernetes Status")),
    "a page for an answer": (demo.refuse(200, html=True), ("not a JSON object", IS_IT_ONE)),
    "a redirect": (demo.redirect("https://127.0.0.1:1/"), ("answered 302",)),
    "a permanent redirect": (demo.redirect("https://127.0.0.1:1/", 308), ("answered 308",)),
    "half a body": (demo.cut_body, ("closed the connection before the end of its answer",)),
    "half a document": (demo.invalid_json, ("not a JSON object", IS_IT_ONE)),
    "a length too long": (length_too_long, ("closed the connection before the end of its answer",)),
    "a length too short": (length_too_short, ("not a JSON object",)),
    "a bad chunk": (demo.bad_chunk, ("sent an invalid chunked body", IS_IT_ONE)),
    "100 MB": (demo.flood(), ("larger than 32 MiB", "--max-answer-size")),
    "100 MB in chunks": (demo.flood(chunked=True), ("larger than 32 MiB", "--max-answer-size")),
    "an endless body": (demo.flood(None, chunked=True), ("larger than 32 MiB", "--max-answer-size")),
    "endless headers": (endless_headers, ("does not answer in HTTP/1.1", IS_IT_ONE)),
    "a list": (demo.wrong_content([]), ("not a JSON object", IS_IT_ONE)),
    "another kind": (demo.wrong_content({"kind": "Pod", "apiVersion": "v1"}), ("not a SecretList", IS_IT_ONE)),
    "no items": (demo.wrong_content({"kind": "SecretList", "items": None}), ("SecretList has no items", IS_IT_ONE)),
}


# Kind of certificate -> the words that a person needs.
UNTRUSTED: dict[str, tuple[str, ...]] = {
    "of another CA": ("was not issued by a CA in certificate-authority-data", "--certificate-authority"),
    "for another address": ("is not for the address '127.0.0.1'", "tls-server-name"),
    "for names alone": ("is not for the address '127.0.0.1'", "tls-server-name"),
    "expired": ("has expired", "renew it", "clock"),
    "not yet valid": ("is not valid yet", "clocks"),
    "of a client": ("cannot be trusted",),
}
