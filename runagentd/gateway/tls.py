"""TLS: a server's context from a certificate and a key that came as descriptors, and others in their place later.

Runs as: the gateway, or its workers.
Reads from strangers: handshakes; OpenSSL does.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from runagentd.log import Log

HANDSHAKE_SECONDS = 10.0
_CIPHERS_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2 (RFC 9325, section 4.2): forward secrecy and authenticated encryption only. 1.3 has no others."""


def context(files: Mapping[str, int], *, client_certificates: str = "") -> ssl.SSLContext | None:
    """For the descriptors `certificate` and `key`, PEM; None where there are none. OSError if they do not fit.

    With `client_certificates` (optional, required) clients show one, signed by an authority of `client_ca`.
    """
    if "certificate" not in files:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(_CIPHERS_1_2)
    # No compression (CRIME), no renegotiation: each has cost a server more than it gave.
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    load(made, files)
    if client_certificates:
        made.load_verify_locations(f"/proc/self/fd/{files['client_ca']}")
        made.verify_mode = ssl.CERT_REQUIRED if client_certificates == "required" else ssl.CERT_OPTIONAL
    return made


def load(into: ssl.SSLContext, files: Mapping[str, int]) -> None:
    """Serve new connections with these; those that there are go on. OSError (ssl.SSLError) if they do not fit."""
    names = [f"/proc/self/fd/{files[name]}" for name in ("certificate", "key")]
    # In a context of its own first: one that fails half-way would leave a certificate with another's key.
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*names)
    into.load_cert_chain(*names)


def renew(context: ssl.SSLContext | None, files: Mapping[str, int], log: Log) -> None:
    """Take over what was read again, where it has a certificate as before, or none as before. OSError as `load`."""
    if (context is None) is ("certificate" in files):
        log.error("TLS can only be switched on or off by a restart; all else was taken over")
    elif context is not None:
        load(context, files)
        log.info("new connections get the certificate that was read again")
