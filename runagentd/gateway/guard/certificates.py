"""Client certificates into principals: who the operator says that a certificate is.

Runs as: the gateway.
Reads from strangers: certificates that an authority of the operator's has signed; OpenSSL has verified that in the
handshake. One that the configuration does not name is nobody's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from cryptography import x509

from runagentd import alternative_names
from runagentd.gateway.guard.grants import Role, grants
from runagentd.gateway.guard.identity import Credentials, Principal, digest, refused
from runagentd.wire.settings import CertificateClient


class Certificates:
    """An `Authenticator`. A token that is sent along is taken in place of the certificate."""

    def __init__(self, clients: Sequence[CertificateClient], *, issuer: str) -> None:
        self._issuer = issuer
        self.configure(clients)

    def configure(self, clients: Sequence[CertificateClient]) -> None:
        """Other clients from now on."""
        self._by_digest = {client.sha256: client for client in clients if client.sha256}
        self._by_name = {client.san: client for client in clients if client.san}

    def takes(self, credentials: Credentials) -> bool:
        return credentials.token is None and credentials.certificate is not None

    async def verify(self, credentials: Credentials, roles: Mapping[str, Role], now: float) -> Principal:
        """Whose certificate this is; `Refusal` AUTHENTICATION where nobody has it."""
        der = credentials.certificate or b""
        fingerprint = hashlib.sha256(der).hexdigest()
        try:
            certificate = x509.load_der_x509_certificate(der)
            client = self._by_digest.get(fingerprint) or self._named(certificate)
        except ValueError as error:
            raise refused("the client certificate cannot be read") from error
        if client is None:
            raise refused("the client certificate is nobody's here")
        begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        if not begins <= now < ends:
            raise refused("the client certificate has expired, or is not valid yet")
        return Principal(
            subject=client.subject,
            client=client.subject,
            token_id=fingerprint,
            issuer=self._issuer,
            issued=begins,
            expires=ends,
            digest=digest(self._issuer, client.subject),
            grants=grants(client.scopes, roles),
            tenant=client.tenant,
            scopes=client.scopes,
        )

    def _named(self, certificate: x509.Certificate) -> CertificateClient | None:
        names = alternative_names.of(certificate)
        if names is None:
            return None
        for kind, prefix in (
            (x509.UniformResourceIdentifier, "URI"),
            (x509.DNSName, "DNS"),
            (x509.RFC822Name, "email"),
        ):
            for name in names.get_values_for_type(kind):
                client = self._by_name.get(f"{prefix}:{name}")
                if client is not None:
                    return client
        return None
