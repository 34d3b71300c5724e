"""All parts of the gateway, put together, and the first fork in the road of a request: which door.

Runs as: the gateway.
Reads from strangers: paths, to choose a door.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway import documentation, openapi, operator_traffic
from runagentd.gateway.announcements import Announcements
from runagentd.gateway.call_log import CallLog
from runagentd.gateway.configuration import Configuration
from runagentd.gateway.control import SupervisorLink
from runagentd.gateway.directory import Directory
from runagentd.gateway.doors.history import HistoryDoor
from runagentd.gateway.doors.native import NativeDoor, check_method, credentials
from runagentd.gateway.doors.problems import problem
from runagentd.gateway.doors.runagent import RunAgentDoor
from runagentd.gateway.egress_link import EgressLink
from runagentd.gateway.exchange import Exchange, Reply
from runagentd.gateway.guard.certificates import Certificates
from runagentd.gateway.guard.front import Front
from runagentd.gateway.guard.identity import Identity, Standing
from runagentd.gateway.guard.issuers import Issuers
from runagentd.gateway.guard.limits import Hold, Limits
from runagentd.gateway.guard.quota import Quotas
from runagentd.gateway.guard.trust import Trust
from runagentd.gateway.guard.trusted import authenticators
from runagentd.gateway.kept.cache import Cache
from runagentd.gateway.kept.caching import Stage
from runagentd.gateway.kept.history import History
from runagentd.gateway.kept.idempotency import Ledger
from runagentd.gateway.kept.invocation import Contents
from runagentd.gateway.metrics import Metrics, forbidden
from runagentd.gateway.operator_calls import page
from runagentd.gateway.output import Output
from runagentd.gateway.paths import segments
from runagentd.gateway.pipeline import Pipeline
from runagentd.gateway.public_keys import PublicKeys
from runagentd.gateway.requests import CallRecord
from runagentd.gateway.spans import Spans
from runagentd.gateway.trace import Tracer
from runagentd.log import Log
from runagentd.wire.admin import CallsAsk
from runagentd.wire.control import FromGateway, TrafficQuestion
from runagentd.wire.issuers import KeySet
from runagentd.wire.settings import Telemetry

USE_SECONDS = 60.0
"""How often the supervisor is told which API keys were used."""


class Application:
    """Owns every long-lived part. `control`, `egress` and `logs`: see `__main__`; databases lie in `folder`."""

    def __init__(
        self,
        *,
        configuration: Configuration,
        issuer: str,
        audience: str,
        control: socket.socket,
        egress: socket.socket,
        folder: Path,
        secure: bool,
        logs: int | None,
        log: Log,
        version: str,
    ) -> None:
        self._log = log
        self.directory = Directory()
        self._trust = Trust(wall_clock)
        self._cache = Cache(configuration.settings.cache_bytes)
        self.announcements = Announcements(
            self.directory,
            Output(logs, log),
            log,
            trust=self._trust,
            send=self._send,
            trust_changed=self._trust_changed,
            cache=self._cache,
            calls=self._calls,
            traffic=self._traffic,
        )
        self.link = SupervisorLink(control, self.announcements, log)
        self._configuration = configuration
        self._quotas = Quotas(folder, log)
        self._limits = Limits(configuration.settings.limits, self._quotas)
        self._ledger = Ledger(folder, log)
        self._history = History(
            folder,
            log,
            keep_seconds=configuration.settings.history_seconds,
            bytes_max=configuration.settings.history_bytes,
            later=asyncio.get_running_loop().call_later,
        )
        self._spans = Spans(
            folder,
            log,
            bytes_max=configuration.settings.telemetry.spans_bytes,
            version=version,
            secure=secure,
            later=asyncio.get_running_loop().call_later,
        )
        self._certificates = Certificates(configuration.settings.clients, issuer=issuer)
        self.egress = EgressLink(egress, self._keys_told, log)
        self._issuers = Issuers(
            configuration.settings.issuers,
            send=self.egress.send,
            changed=self._trust_changed,
            clock=wall_clock,
            log=log,
        )
        self._version = version
        self._secure = secure
        self.front = Front(configuration.settings.http, secure=secure)
        self.identity = Identity(
            # Other issuers' tokens first: our own authenticator takes whatever looks like a JWT.
            (self._issuers, *authenticators(self._trust, issuer=issuer, audience=audience), self._certificates),
            trust=Standing(self._trust, self._issuers),
            roles=configuration.roles,
            clock=wall_clock,
        )
        self._public_keys = PublicKeys(self._trust)
        self.connections: Callable[[], tuple[int, int]] = lambda: (0, 0)
        """how many there are, and how many there may be: known once somebody listens"""
        self.workers: Callable[[], list[tuple[int, int, int]]] = list
        """of each worker its number, its connections, and how many exchanges it has begun"""
        self._metrics = Metrics(
            version=version,
            directory=self.directory,
            limits=self._limits,
            cache=self._cache,
            connections=lambda: self.connections(),
            workers=lambda: self.workers(),
            supervisors=lambda: self.announcements.supervisors,
            spans=lambda: (self._spans.written, self._spans.lost),
            send=self._send,
        )
        self.announcements.figures = self._metrics.supervisor.told
        self._call_log = CallLog(log)
        self._pipeline = pipeline = Pipeline(
            identity=self.identity,
            directory=self.directory,
            announcements=self.announcements,
            limits=self._limits,
            ledger=self._ledger,
            caching=Stage(self._cache),
            tracer=_tracer(configuration.settings.telemetry),
            log=log,
            sink=self._record,
        )
        self._native = NativeDoor(pipeline)
        history = HistoryDoor(pipeline, self._history)
        self._runagent = RunAgentDoor(pipeline, history, started=time.monotonic(), version=version)

    def close(self) -> None:
        """Let go of instances and databases."""
        self.announcements.close()
        self._call_log.summarise()
        self._quotas.close()
        self._ledger.close()
        self._history.close()
        self._spans.close()

    def configure(self, configuration: Configuration) -> None:
        """Take over other settings; calls that are under way go on as they began."""
        self._configuration.close()
        self._configuration = configuration
        self._certificates.configure(configuration.settings.clients)
        self._issuers.configure(configuration.settings.issuers)
        self.identity.set_roles(configuration.roles)
        self._pipeline.end_revoked()
        self._cache.resize(configuration.settings.cache_bytes)
        self._limits.configure(configuration.settings.limits)
        settings = configuration.settings
        self._history.configure(keep_seconds=settings.history_seconds, bytes_max=settings.history_bytes)
        self._spans.configure(settings.telemetry.spans_bytes)
        self._pipeline.tracer = _tracer(settings.telemetry)
        self.front = Front(configuration.settings.http, secure=self._secure)
        self._log.info("the settings have changed")

    def _trust_changed(self) -> None:
        """Nothing that was found before is believed, and open calls of the revoked end, before this returns."""
        self.identity.forget()
        self._pipeline.end_revoked()
        self._log.info("whom to believe has changed")

    def _keys_told(self, message: KeySet) -> None:
        self._issuers.take(message)

    def report_use(self) -> None:
        """Tell the supervisor which API keys were used since it was told last, and do so again in a minute."""
        for message in self._trust.take_used():
            self._send(message)
        asyncio.get_running_loop().call_later(USE_SECONDS, self.report_use)

    def _send(self, message: FromGateway) -> None:
        self.link.send(message)

    def _record(self, record: CallRecord, contents: Contents | None) -> None:
        """The one sink of call records: counters, the history, spans, and the log."""
        self._metrics.calls.record(record)
        self._history.add(record, contents)
        self._spans.add(record)
        self._call_log.write(record)

    async def _calls(self, ask: CallsAsk) -> bytes:
        """Some calls for the operator, those that are under way first."""
        return await page(ask, self._pipeline.open_calls(), self._history)

    def _traffic(self, question: TrafficQuestion) -> bytes:
        """What is called how often, for the operator."""
        return operator_traffic.page(
            question.agents, detailed=question.detailed, directory=self.directory, counts=self._metrics.calls
        )

    def place(self, peer: str) -> Hold | None:
        """For a connection of this peer; None where it has as many as it may. A proxy of ours may have any number."""
        proxies = self.front.proxies
        if proxies is not None and proxies.trusts(peer):
            return Hold({})
        return self._limits.connection(peer)

    async def answer(self, exchange: Exchange) -> Reply | None:
        """Give an exchange to its door."""
        if exchange.method == "OPTIONS":
            reply = self.front.preflight(exchange)
            if reply is not None:
                return reply
        parts = exchange.found.segments
        if parts is None:
            parts = exchange.found.segments = segments(exchange.path)
        match parts:
            case ("v1", *rest):
                return await self._native.answer(exchange, tuple(rest))
            case ("api", "v1", *rest):
                return await self._runagent.answer(exchange, tuple(rest))
            case ("livez",) | ("readyz",):
                return self._health(exchange, parts[0])
            case ("docs" | "docs.css" | "docs.js",):
                return self._page(exchange, parts[0])
            case ("metrics",):
                return await self._show_metrics(exchange)
            case ("openapi.json",):
                return await self._openapi(exchange)
            case (".well-known", "jwks.json"):
                return await self._public_keys.answer(exchange)
        hint = "/docs and /openapi.json say what there is"
        return problem(Refusal(errors.NOT_FOUND, "there is nothing at this path", hint=hint), exchange.id)

    def _page(self, exchange: Exchange, path: str) -> Reply | None:
        try:
            check_method(exchange, "GET", "HEAD")
        except Refusal as refusal:
            return problem(refusal, exchange.id)
        return documentation.find(path, exchange)

    async def _openapi(self, exchange: Exchange) -> Reply:
        """With the operations that the caller may know of, so it takes a token."""
        try:
            check_method(exchange, "GET", "HEAD")
            offers = await self._pipeline.catalogue(credentials(exchange))
        except Refusal as refusal:
            return problem(refusal, exchange.id)
        return Reply(200, msgspec.json.encode(openapi.document(offers, version=self._version)))

    async def _show_metrics(self, exchange: Exchange) -> Reply:
        """For whoever has the scope: what is called how often is not everybody's to know."""
        try:
            check_method(exchange, "GET", "HEAD")
            principal = await self._pipeline.principal(credentials(exchange))
            if not principal.grants.has("metrics:read"):
                raise forbidden()
        except Refusal as refusal:
            return problem(refusal, exchange.id)
        body, content_type = await self._metrics.page(exchange.header("accept") or "")
        return Reply(200, body, content_type=content_type)

    def _health(self, exchange: Exchange, which: str) -> Reply:
        """livez: this process answers. readyz: calls are taken, and the supervisor is there to start instances."""
        try:
            check_method(exchange, "GET", "HEAD")
        except Refusal as refusal:
            return problem(refusal, exchange.id)
        if which == "livez":
            return Reply(200, b'{"status":"ok"}')
        if self.announcements.draining:
            return Reply(503, b'{"status":"draining"}', headers={"Retry-After": "1"})
        if not self.announcements.online:
            return Reply(503, b'{"status":"waiting for the supervisor"}', headers={"Retry-After": "1"})
        return Reply(200, b'{"status":"ok"}')


def _tracer(settings: Telemetry) -> Tracer:
    return Tracer(recording=settings.spans_bytes > 0, share=settings.share)


def wall_clock() -> float:
    """Seconds since the epoch, for tokens."""
    return time.time()
