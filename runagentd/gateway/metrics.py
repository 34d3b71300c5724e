"""What happened to calls, counted, and shown in the form of Prometheus together with what the supervisor counts.

Runs as: the gateway.
Reads from strangers: nothing that becomes a label: tags are those of an agent's configuration, outcomes those of the
error table. Callers are never told apart here, for a label that strangers choose is memory that strangers fill.

Counting is a dictionary and a list on the way of every call (0.9 µs); prometheus_client only writes the text.
docs/metrics.md names every metric; a test compares the two.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.agents import Agent
from runagentd.gateway.directory import Directory
from runagentd.gateway.guard.limits import Limits
from runagentd.gateway.histogram import SECONDS, Histogram
from runagentd.gateway.kept.cache import Cache
from runagentd.gateway.kept.invocation import GOOD
from runagentd.gateway.requests import CallRecord
from runagentd.wire.control import AskFigures, FiguresTold, FromGateway
from runagentd.wire.figures import STEP_SECONDS, AgentFigures, Count, Durations, Figures

_NOT_FOUND = errors.NOT_FOUND.code
ANSWER_SECONDS = 2.0
"""How long a scrape waits for the supervisor; without it, what the gateway knows is shown."""


class TagCounts:
    """Calls of one entrypoint."""

    def __init__(self) -> None:
        self.calls = 0
        self.failed = 0
        self.took = Histogram()


class AgentCounts:
    """Calls of one agent, put together from all its entrypoints."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.took = Histogram()
        self.tags: dict[str, TagCounts] = {}


class CallCounts:
    """One for the gateway; `record` is called with every record, refused calls too."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str | None, str | None, str], int] = {}
        self._ran: dict[tuple[str | None, str | None], tuple[Histogram, Histogram]] = {}
        """how long calls of an entrypoint took, and how long those of its agent waited"""
        self._queued: dict[str | None, Histogram] = {}
        self.chunks = 0
        self.result_bytes = 0
        self.since_ns = time.monotonic_ns()

    def record(self, record: CallRecord) -> None:
        """One more call that has ended."""
        agent, outcome = record.agent, record.outcome
        # A tag that an agent has not is whatever a caller wrote.
        tag = record.tag if outcome != _NOT_FOUND else None
        key = (agent, tag, outcome)
        self._calls[key] = self._calls.get(key, 0) + 1
        self.chunks += record.chunks
        self.result_bytes += record.result_bytes
        if record.queue_seconds is not None:
            both = self._ran.get((agent, tag))
            if both is None:
                both = self._ran[(agent, tag)] = (Histogram(), self._queued.setdefault(agent, Histogram()))
            took, queued = both
            took.add(record.seconds)
            queued.add(record.queue_seconds)

    def by_agent(self) -> dict[str, AgentCounts]:
        """The same, by the ids of agents; calls that came to no agent are left out."""
        found: dict[str, AgentCounts] = {}
        for (agent, tag, outcome), count in self._calls.items():
            if agent is None:
                continue
            counts = found.setdefault(agent, AgentCounts())
            counts.outcomes[outcome] += count
            if tag is not None:
                of_tag = counts.tags.setdefault(tag, TagCounts())
                of_tag.calls += count
                of_tag.failed += count if outcome != GOOD else 0
        for (agent, tag), (took, _) in self._ran.items():
            if agent is not None and agent in found:
                found[agent].took.merge(took)
                if tag is not None:
                    found[agent].tags.setdefault(tag, TagCounts()).took.merge(took)
        return found

    def metrics(self, shown: Callable[[str | None], str]) -> Iterator[Metric]:
        """All of them; `shown` gives the label of an agent."""
        calls = CounterMetricFamily(
            "runagentd_calls", "Calls that have ended, refused ones too.", labels=("agent", "tag", "outcome")
        )
        for (agent, tag, outcome), count in sorted(self._calls.items(), key=str):
            calls.add_metric((shown(agent), tag or "", outcome), count)
        yield calls
        took = HistogramMetricFamily(
            "runagentd_call_duration_seconds",
            "From the arrival of a call that a runner got to its last byte.",
            labels=("agent", "tag"),
        )
        for (agent, tag), (histogram, _) in sorted(self._ran.items(), key=lambda each: str(each[0])):
            took.add_metric((shown(agent), tag or ""), _cumulative(SECONDS, histogram.buckets), histogram.sum)
        yield took
        queued = HistogramMetricFamily(
            "runagentd_queue_duration_seconds", "From the arrival of a call until a runner got it.", labels=("agent",)
        )
        for agent, histogram in sorted(self._queued.items(), key=str):
            queued.add_metric((shown(agent),), _cumulative(SECONDS, histogram.buckets), histogram.sum)
        yield queued
        yield CounterMetricFamily("runagentd_stream_chunks", "Chunks and results given to callers.", value=self.chunks)
        yield CounterMetricFamily(
            "runagentd_result_bytes", "Bytes of results and chunks given to callers.", value=self.result_bytes
        )


class SupervisorFigures:
    """What the supervisor counts, asked for at a scrape; scrapes that come at the same time share an answer."""

    def __init__(self, send: Callable[[FromGateway], None]) -> None:
        self._send = send
        self._number = 0
        self._pages: list[Figures] = []
        self._asked: asyncio.Future[list[Figures]] | None = None

    def told(self, message: FiguresTold) -> None:
        """A page of an answer; of one that nobody waits for any more nothing is kept."""
        if message.number != self._number or self._asked is None or self._asked.done():
            return
        self._pages.append(message.figures)
        if not message.figures.more:
            self._asked.set_result(self._pages)

    async def ask(self) -> list[Figures]:
        """All pages; none where the supervisor does not answer."""
        if self._asked is None or self._asked.done():
            self._number += 1
            self._pages = []
            self._asked = asyncio.get_running_loop().create_future()
            self._send(AskFigures(number=self._number))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.shield(self._asked)
        except TimeoutError:
            return []


class Metrics:
    """Everything that `GET /metrics` shows. `connections` gives how many there are, and how many there may be.

    `workers` gives of each its number, its connections, and how many exchanges it has begun.
    `supervisors` gives how many have been here, `spans` how many were written and lost.
    """

    def __init__(
        self,
        *,
        version: str,
        directory: Directory,
        limits: Limits,
        cache: Cache,
        connections: Callable[[], tuple[int, int]],
        workers: Callable[[], list[tuple[int, int, int]]],
        supervisors: Callable[[], int],
        spans: Callable[[], tuple[int, int]],
        send: Callable[[FromGateway], None],
    ) -> None:
        self._version = version
        self._directory = directory
        self._limits = limits
        self._cache = cache
        self._connections = connections
        self._workers = workers
        self._supervisors = supervisors
        self._spans = spans
        self._labels: dict[str, str] = {}
        """which agent had each label last: counts stay when an agent goes, and their series must go on"""
        self.calls = CallCounts()
        self.supervisor = SupervisorFigures(send)

    async def page(self, accept: str) -> tuple[bytes, str]:
        """The text and its media type: OpenMetrics where that is asked for, else the older form."""
        pages = await self.supervisor.ask()
        for agent in self._directory.all():
            self._labels[self._shown(agent.id)] = agent.id
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Once(list(self._metrics(pages))))
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def _metrics(self, pages: Sequence[Figures]) -> Iterator[Metric]:
        yield InfoMetricFamily("runagentd_build", "The version of this daemon.", value={"version": self._version})
        yield from self.calls.metrics(self._shown)
        yield from self._of_agents()
        yield from self._of_limits()
        yield CounterMetricFamily(
            "runagentd_supervisors",
            "Supervisors that this gateway has met: more than one where one was lost.",
            value=self._supervisors(),
        )
        written, lost = self._spans()
        yield CounterMetricFamily("runagentd_spans", "Spans written down.", value=written)
        yield CounterMetricFamily("runagentd_spans_lost", "Spans that a disk that failed has cost.", value=lost)
        yield from _of_supervisor(pages, self._shown)

    def _shown(self, agent_id: str | None) -> str:
        """An agent's name where no other has it, else its id: what people know it by.

        One that is served no more keeps what it was shown by, unless another agent has that by now.
        """
        if not agent_id:
            return ""
        agent = self._directory.find_id(agent_id)
        if agent is not None:
            return self._directory.names(agent.id)[-1]
        return next((label for label, of in reversed(self._labels.items()) if of == agent_id), agent_id)

    def _of_agents(self) -> Iterator[Metric]:
        info = InfoMetricFamily("runagentd_agent", "What is served.", labels=("agent",))
        running = GaugeMetricFamily(
            "runagentd_calls_running", "Calls whose function has not stopped.", labels=("agent",)
        )
        waiting = GaugeMetricFamily("runagentd_calls_waiting", "Calls that wait for a place.", labels=("agent",))
        bound = GaugeMetricFamily(
            "runagentd_instances_bound",
            "Instances that take calls of one caller only, and have one.",
            labels=("agent",),
        )
        limit = GaugeMetricFamily(
            "runagentd_agent_limit",
            "Each limit of an agent's policy that the gateway keeps.",
            labels=("agent", "limit"),
        )
        cancels = HistogramMetricFamily(
            "runagentd_cancel_duration_seconds",
            "From telling a function to stop until it has stopped.",
            labels=("agent",),
        )
        for agent in self._directory.all():
            shown = self._shown(agent.id)
            info.add_metric((shown,), {"id": agent.id, "version": agent.version, "policy": agent.policy})
            running.add_metric((shown,), agent.open_calls())
            waiting.add_metric((shown,), agent.waiting)
            bound.add_metric((shown,), agent.bound())
            cancels.add_metric((shown,), _cumulative(SECONDS, agent.cancels.buckets), agent.cancels.sum)
            for name, value in _limits_of(agent):
                limit.add_metric((shown, name), value)
        yield from (info, running, waiting, bound, limit, cancels)

    def _of_limits(self) -> Iterator[Metric]:
        configured = GaugeMetricFamily(
            "runagentd_limit",
            "Each limit of runagentd.toml: of a kind, for one or for everybody (empty).",
            labels=("kind", "for", "limit"),
        )
        for kind, name, what, value in self._limits.configured():
            configured.add_metric((kind, name, what), value)
        yield configured
        there, most = self._connections()
        yield GaugeMetricFamily("runagentd_connections", "Connections of clients.", value=there)
        yield GaugeMetricFamily("runagentd_connections_max", "Connections that there may be.", value=most)
        by_worker = GaugeMetricFamily(
            "runagentd_worker_connections", "Connections of clients to a worker of the gateway.", labels=("worker",)
        )
        requests = CounterMetricFamily(
            "runagentd_worker_requests", "Requests that a worker of the gateway has read.", labels=("worker",)
        )
        for number, of_worker, begun in self._workers():
            by_worker.add_metric((str(number),), of_worker)
            requests.add_metric((str(number),), begun)
        yield by_worker
        yield requests
        yield GaugeMetricFamily("runagentd_cache_bytes", "What the response cache takes.", value=self._cache.size)
        yield GaugeMetricFamily(
            "runagentd_cache_bytes_max", "What the response cache may take.", value=self._cache.bytes_max
        )
        answers = CounterMetricFamily(
            "runagentd_cache_answers", "Answers of entrypoints that are kept, by where they came from.",
            labels=("agent", "from"),
        )  # fmt: skip
        for agent_id, counts in self._cache.counts.items():
            for name in ("hits", "stale", "misses", "joined"):
                answers.add_metric((self._shown(agent_id), name), getattr(counts, name))
        yield answers


def _limits_of(agent: Agent) -> Iterator[tuple[str, float]]:
    limits = agent.limits
    yield "concurrency", limits.concurrency
    yield "queue", limits.queue
    yield "deadline_seconds", limits.deadline_ms / 1000
    yield "cancel_grace_seconds", limits.cancel_grace_ms / 1000
    yield "request_bytes", limits.request_bytes
    yield "result_bytes", limits.result_bytes
    yield "log_bytes_per_minute", limits.log_bytes_per_minute


def _of_supervisor(pages: Sequence[Figures], shown: Callable[[str | None], str]) -> Iterator[Metric]:
    """Nothing where the supervisor does not answer: a gauge that is missing is seen, a zero is believed."""
    yield GaugeMetricFamily("runagentd_supervisor_up", "Whether the supervisor answers.", value=bool(pages))
    if not pages:
        return
    first = pages[0]
    agents = [agent for page in pages for agent in page.agents]
    yield CounterMetricFamily(
        "runagentd_gateways",
        "Gateways that this supervisor has met: more than one where one was lost.",
        value=first.gateways,
    )
    yield GaugeMetricFamily("runagentd_spares", "Jails that are ready for an agent.", value=first.spares)
    yield GaugeMetricFamily(
        "runagentd_host_memory_pressed", "Whether the host is short of memory.", value=first.pressed
    )
    starts = CounterMetricFamily(
        "runagentd_cold_starts", "Instances that became ready, by where they came from.", labels=("kind",)
    )
    for count in first.starts:
        starts.add_metric((count.name,), count.count)
    yield starts
    yield _histogram(
        "runagentd_cold_start_seconds", "From the begin of a spawn to being ready.", "kind", first.start_times
    )
    yield _histogram("runagentd_spawn_seconds", "Each step of a launch.", "step", first.steps)
    yield _counted(
        GaugeMetricFamily("runagentd_instances", "Instances by state.", labels=("agent", "state")),
        ((shown(agent.agent), agent.states) for agent in agents),
    )
    yield _counted(
        CounterMetricFamily("runagentd_instance_ends", "Ends of instances by cause.", labels=("agent", "cause")),
        ((shown(agent.agent), agent.ends) for agent in agents),
    )
    for name, meaning, value in _GAUGES:
        gauge = GaugeMetricFamily(name, meaning, labels=("agent",))
        for agent in agents:
            gauge.add_metric((shown(agent.agent),), value(agent))
        yield gauge
    used = CounterMetricFamily("runagentd_cpu_seconds", "Processor time of all instances.", labels=("agent",))
    pressed = CounterMetricFamily(
        "runagentd_pressure_seconds",
        "Time that some process of an instance waited for cpu, memory or io (cgroup v2).",
        labels=("agent", "resource"),
    )
    for agent in agents:
        used.add_metric((shown(agent.agent),), agent.cpu_microseconds / 1e6)
        for each in agent.pressure:
            pressed.add_metric((shown(agent.agent), each.name), each.count / 1e6)
    yield from (used, pressed)


_GAUGES: tuple[tuple[str, str, Callable[[AgentFigures], float]], ...] = (
    ("runagentd_memory_bytes", "Memory of all instances.", lambda agent: agent.memory),
    ("runagentd_tasks", "Processes and threads of all instances.", lambda agent: agent.tasks),
    ("runagentd_memory_max_bytes", "Memory that each instance may have.", lambda agent: agent.memory_max),
    ("runagentd_tasks_max", "Processes and threads that each instance may have.", lambda agent: agent.tasks_max),
    (
        "runagentd_cpu_max_cores",
        "Processors that each instance may use.",
        lambda agent: agent.cpu_max_thousandths / 1000,
    ),
    ("runagentd_instances_min", "Instances that there are at least.", lambda agent: agent.instances_min),
    ("runagentd_instances_max", "Instances that there may be.", lambda agent: agent.instances_max),
)


def _histogram(name: str, meaning: str, label: str, told: Iterable[Durations]) -> Metric:
    family = HistogramMetricFamily(name, meaning, labels=(label,))
    for each in told:
        family.add_metric((each.name,), _cumulative(STEP_SECONDS, each.buckets), each.microseconds / 1e6)
    return family


def _counted(family: GaugeMetricFamily | CounterMetricFamily, rows: Iterable[tuple[str, tuple[Count, ...]]]) -> Metric:
    for agent, counts in rows:
        for count in counts:
            family.add_metric((agent, count.name), count.count)
    return family


def _cumulative(bounds: Sequence[float], buckets: Sequence[int]) -> list[tuple[str, float]]:
    total = 0
    found: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, bounds), "+Inf"), buckets, strict=True):
        total += count
        found.append((bound, total))
    return found


class _Once(Collector):
    """Metrics that were made already."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def forbidden() -> Refusal:
    """For who is known and may not look."""
    return Refusal(
        errors.PERMISSION,
        "this token does not allow to see metrics: it needs the scope metrics:read",
        headers={"WWW-Authenticate": 'Bearer realm="runagentd", error="insufficient_scope", scope="metrics:read"'},
    )
