"""The names that a certificate gives its holder beside the subject (RFC 5280, section 4.2.1.6).

Runs as: the foreman and runagentctl (of their own server), the gateway (of clients). Pure.
Reads from strangers: certificates of clients, once an authority of the operator's was found to have signed them.
"""

from __future__ import annotations

from cryptography import x509


def of(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    """None where there are none, and where one of them is of a kind that cannot be read.

    ValueError for extensions that are not whole.
    """
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.UnsupportedGeneralNameType, x509.DuplicateExtension):
        return None
