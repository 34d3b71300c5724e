"""What the gateway and the egress process say to each other about the keys of other issuers: one datagram each.

Runs as: the gateway and the egress process. Pure.
Reads from strangers: both sides take the other for captured: a key set names a configured issuer and holds public keys
within bounds, a request names an issuer, and neither can say anything else.

The foreman made the pair of sockets and keeps it, so a message may wait there that was meant for a process that has
ended. Every message is therefore complete in itself and can be said twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from runagentd.wire import record

MESSAGE_BYTES_MAX = 64 * 1024
KEYS_MAX = 32
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
)  # fmt: skip
"""RFC 7518, section 3.1, and RFC 8037: those with a public key. Never HS*: who could check it could also sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyingKey:
    """A public key that an issuer signs with. `public` is a SubjectPublicKeyInfo in DER (RFC 5280, section 4.1)."""

    kid: str
    algorithms: tuple[str, ...]
    """that it may be used with: its own, where the issuer says so, among those that the operator allows"""
    public: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """All keys of one issuer; those that were sent before are forgotten. Times are seconds since the epoch."""

    issuer: str
    """as the configuration names it"""
    source: str
    """where they are from, as in `settings.Issuer`"""
    keys: tuple[VerifyingKey, ...]
    fetched: int
    """0 where none could be fetched yet"""
    until: int
    """the keys are believed until then, unless others come"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """A gateway that knows nothing, of one issuer at least: it is to be told every key set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """A token names a key that is not known. Answered with a `KeySet`, whether or not it was fetched anew."""

    issuer: str


FromEgress = KeySet
FromGateway = Greeting | Refresh

_FROM_EGRESS: dict[int, type[FromEgress]] = {1: KeySet}
_FROM_GATEWAY: dict[int, type[FromGateway]] = {65: Greeting, 66: Refresh}
_NUMBER = {KeySet: 1, Greeting: 65, Refresh: 66}
_WHAT = "a message that may come from here"


def pack(message: FromEgress | FromGateway) -> bytes:
    """One datagram."""
    return record.encode_numbered(_NUMBER[type(message)], message)


def parse_from_egress(data: bytes) -> FromEgress:
    """RecordError for anything that is not one message of the egress process's."""
    return record.decode_numbered(_FROM_EGRESS, data, what=_WHAT, bytes_max=MESSAGE_BYTES_MAX)


def parse_from_gateway(data: bytes) -> FromGateway:
    """RecordError for anything that is not one message of the gateway's."""
    return record.decode_numbered(_FROM_GATEWAY, data, what=_WHAT, bytes_max=MESSAGE_BYTES_MAX)
