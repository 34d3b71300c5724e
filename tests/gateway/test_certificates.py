"""Clients' certificates that an authority of the operator's has signed, and that are nobody's here."""

from __future__ import annotations

import asyncio
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from runagentd.errors import Refusal
from runagentd.gateway.guard.certificates import Certificates
from runagentd.gateway.guard.identity import Credentials
from runagentd.wire.settings import CertificateClient
from tests import certificates

BY_NAME = CertificateClient(subject="a", san="DNS:a.example.org", sha256="", scopes=(), tenant=None)


@pytest.mark.parametrize(
    ("der", "message"),
    [
        (certificates.with_x400_address().public_bytes(Encoding.DER), "the client certificate is nobody's here"),
        (b"what?", "the client certificate cannot be read"),
    ],
    ids=["a name of another kind", "no certificate"],
)
def test_what_names_no_client_is_refused(der: bytes, message: str) -> None:
    judge = Certificates((BY_NAME,), issuer="urn:x")
    with pytest.raises(Refusal, match=message):
        asyncio.run(judge.verify(Credentials(None, der), {}, time.time()))
