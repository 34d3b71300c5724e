"""An issuer of its own for tests: discovery, keys and tokens over HTTPS on 127.0.0.1, honest unless told otherwise."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests import certificates

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey
AUDIENCE = "runagentd"


def new_key(algorithm: str) -> PrivateKey:
    """A private key for an algorithm."""
    if algorithm.startswith(("RS", "PS")):
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if algorithm == "EdDSA":
        return Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1() if algorithm == "ES256" else ec.SECP384R1())


def jwk(key: PrivateKey, kid: str, **more: Any) -> dict[str, Any]:
    """Its public half as a JWK. Any: JSON."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        found = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        point = public.public_numbers()
        size = (public.curve.key_size + 7) // 8
        curve = {256: "P-256", 384: "P-384"}[public.curve.key_size]
        found = {"kty": "EC", "crv": curve, "x": _number(point.x, size), "y": _number(point.y, size)}
    else:
        found = {"kty": "OKP", "crv": "Ed25519", "x": _text(public.public_bytes_raw())}
    return {**found, "kid": kid, "use": "sig", **more}


def claims(issuer: str, **changes: Any) -> dict[str, Any]:
    """Of a good token; a change to None takes a claim away."""
    now = int(time.time())
    said = {
        "iss": issuer, "aud": AUDIENCE, "sub": "alice", "client_id": "app", "iat": now, "exp": now + 600,
        "jti": str(uuid.uuid4()), "groups": ["support", "staff"],
    }  # fmt: skip
    return {name: value for name, value in {**said, **changes}.items() if value is not None}


def sign(key: Any, kid: str, algorithm: str, said: dict[str, Any], **header: Any) -> str:
    """A token. Any: also keys that PyJWT takes for secrets."""
    return jwt.encode(said, key, algorithm=algorithm, headers={"kid": kid, "typ": "at+jwt", **header})


def _number(value: int, size: int = 0) -> str:
    return _text(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Serves until `close`. `keys` and `answers` may be changed at any time."""

    def __init__(self, folder: Path, *, algorithm: str = "RS256") -> None:
        folder.mkdir(exist_ok=True)
        certificates.write(folder)
        self.ca = folder / "certificate.pem"
        self.algorithm = algorithm
        self.kid = "k1"
        self.key = new_key(algorithm)
        self.keys = {self.kid: self.key}
        self.fetches = 0
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        """status, fields and body for a path, instead of the honest ones"""
        self.delay = 0.0
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer._answer(self)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Not to the test's output."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"https://127.0.0.1:{self.port}/realm"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def rotate(self, kid: str, *, keep: bool = True) -> None:
        """Sign with another key from now on."""
        self.kid, self.key = kid, new_key(self.algorithm)
        self.keys = {**(self.keys if keep else {}), kid: self.key}

    def token(self, **changes: Any) -> str:
        """A good one, with other claims."""
        return sign(self.key, self.kid, self.algorithm, claims(self.url, **changes))

    def jwks(self) -> bytes:
        return json.dumps({"keys": [jwk(key, kid, alg=self.algorithm) for kid, key in self.keys.items()]}).encode()

    def close(self) -> None:
        """Nobody answers any more."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        time.sleep(self.delay)
        path = handler.path
        document = {"issuer": self.url, "jwks_uri": f"https://127.0.0.1:{self.port}/keys"}
        honest = {"/realm/.well-known/openid-configuration": json.dumps(document).encode(), "/keys": self.jwks()}
        if path == "/keys":
            self.fetches += 1
        status, fields, body = self.answers.get(path, (200, {}, honest.get(path, b"")))
        try:
            handler.send_response(status if path in honest or path in self.answers else 404)
            for name, value in {"Content-Length": str(len(body)), **fields}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)
        except OSError:
            return  # whoever asked has had enough
