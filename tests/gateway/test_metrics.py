"""What is counted, who may see it, and that docs/metrics.md names all of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from runagentd import signing
from runagentd.gateway import metrics
from runagentd.gateway.histogram import SECONDS
from runagentd.gateway.metrics import CallCounts
from runagentd.gateway.requests import CallRecord
from runagentd.wire.channel import Frame
from runagentd.wire.control import AgentRemoved, AskFigures, FiguresTold
from runagentd.wire.figures import STEP_SECONDS
from tests.fakes_gateway import STATE_ID, TRACE, Gateway, HttpAnswer, answer
from tests.wire.messages import FIGURES

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"
DASHBOARD = Path(__file__).resolve().parents[2] / "docs" / "grafana.json"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def token(gateway: Gateway, *scopes: str) -> str:
    audience = signing.audience(STATE_ID)
    return signing.mint(
        gateway.key, issuer=audience, audience=audience, subject="watcher", agents=[], scopes=scopes, ttl_seconds=60
    )


def scrape(gateway: Gateway, *, accept: str = "text/plain") -> HttpAnswer:
    """The answer to a scrape, with the test as the supervisor."""
    asked = gateway.send("GET", "/metrics", token=token(gateway, "metrics:read"), Accept=accept)
    question = gateway.supervisor.receive()
    assert isinstance(question, AskFigures)
    gateway.supervisor.send(FiguresTold(number=question.number, figures=FIGURES))
    return answer(asked)


def samples(text: str) -> dict[str, float]:
    """Each sample by its name with its labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_calls_are_counted_by_agent_tag_and_outcome(gateway: Gateway) -> None:
    """Good ones, refused ones and failed ones, with what they took and how long they waited."""
    runner = gateway.ready()
    for good in (True, True, False):
        asked = gateway.send("POST", INVOKE, b"{}")
        call = runner.expect(Frame.CALL)
        if good:
            runner.result(call.call, 1)
        else:
            runner.error(call.call, "exception", "no", type="ValueError")
        answer(asked)
    gateway.ask("POST", "/v1/agents/echo-1/entrypoints/made-up-by-a-caller:invoke", b"{}")
    gateway.ask("POST", INVOKE, b"{}", token="nonsense")
    got = scrape(gateway)
    assert (got.status, got.headers["content-type"].split(";")[0]) == (200, "text/plain")
    text = got.body.decode()
    assert "made-up-by-a-caller" not in text
    found = samples(text)
    assert found['runagentd_calls_total{agent="echo",outcome="OK",tag="say"}'] == 2
    assert found['runagentd_calls_total{agent="echo",outcome="FUNCTION_ERROR",tag="say"}'] == 1
    assert found['runagentd_calls_total{agent="echo",outcome="NOT_FOUND",tag=""}'] == 1
    assert found['runagentd_calls_total{agent="",outcome="AUTHENTICATION_ERROR",tag=""}'] == 1
    assert found['runagentd_call_duration_seconds_count{agent="echo",tag="say"}'] == 3
    assert found['runagentd_call_duration_seconds_bucket{agent="echo",le="300.0",tag="say"}'] == 3
    assert found['runagentd_queue_duration_seconds_count{agent="echo"}'] == 3
    assert found['runagentd_calls_running{agent="echo"}'] == 0


def test_the_counts_of_an_agent_that_was_removed_keep_their_label(gateway: Gateway) -> None:
    """Else its series would end, and another begin with old counts."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    runner.result(runner.expect(Frame.CALL).call, 1)
    answer(asked)
    row = 'runagentd_calls_total{agent="echo",outcome="OK",tag="say"}'
    assert samples(scrape(gateway).body.decode())[row] == 1
    gateway.supervisor.send(AgentRemoved(agent="echo-1"))
    after = samples(scrape(gateway).body.decode())
    assert 'runagentd_calls_running{agent="echo"}' not in after
    assert after[row] == 1


def test_every_configured_limit_is_a_gauge(gateway: Gateway) -> None:
    """A limit that nobody can see is one that lies."""
    gateway.ready()
    found = samples(scrape(gateway).body.decode())
    assert found['runagentd_agent_limit{agent="echo",limit="concurrency"}'] == 1
    assert found['runagentd_agent_limit{agent="echo",limit="queue"}'] == 4
    assert found['runagentd_agent_limit{agent="echo",limit="deadline_seconds"}'] == 5
    assert found['runagentd_limit{for="",kind="failed_login",limit="rate_per_second"}'] == 5
    assert found['runagentd_limit{for="",kind="failed_login",limit="burst"}'] == 20
    assert found["runagentd_cache_bytes_max"] == 64 * 1024 * 1024


def test_what_the_supervisor_counts_is_shown_beside_it(gateway: Gateway) -> None:
    """And where it does not answer, nothing of it: a zero would be believed."""
    found = samples(scrape(gateway).body.decode())
    assert found['runagentd_instances{agent="a",state="ready"}'] == 2
    assert found['runagentd_instance_ends_total{agent="a",cause="oom"}'] == 1
    assert found['runagentd_memory_bytes{agent="a"}'] == 3
    assert found['runagentd_spawn_seconds_count{step="seccomp"}'] == 0
    assert found["runagentd_supervisor_up"] == 1
    assert found['runagentd_pressure_seconds_total{agent="a",resource="memory"}'] == 8


def test_without_a_supervisor_the_rest_is_shown(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape is most wanted when something is down."""
    monkeypatch.setattr(metrics, "ANSWER_SECONDS", 0.05)
    found = samples(gateway.ask("GET", "/metrics", token=token(gateway, "metrics:read")).body.decode())
    assert found["runagentd_supervisor_up"] == 0
    assert "runagentd_spares" not in found


def test_how_long_functions_took_to_stop_is_measured(gateway: Gateway) -> None:
    """From the cancel to the closing frame."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    call = runner.expect(Frame.CALL)
    asked.close()
    runner.until(Frame.CANCEL)
    runner.error(call.call, "cancelled", "stopped")
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    gateway.wait_until(lambda: not agent.open_calls())
    found = samples(scrape(gateway).body.decode())
    assert found['runagentd_cancel_duration_seconds_count{agent="echo"}'] == 1


def test_only_who_has_the_scope_sees_them(gateway: Gateway) -> None:
    """401 for nobody, 403 with the scope's name for somebody else."""
    assert gateway.ask("GET", "/metrics", token=None).status == 401
    refused = gateway.ask("GET", "/metrics", token=token(gateway, "agents:invoke:*/*", "agents:read"))
    assert refused.status == 403
    assert 'scope="metrics:read"' in refused.headers["www-authenticate"]
    assert gateway.ask("POST", "/metrics", b"", token=token(gateway, "metrics:read")).status == 405


def test_openmetrics_where_it_is_asked_for(gateway: Gateway) -> None:
    """By the media type that Prometheus itself sends."""
    got = scrape(gateway, accept="application/openmetrics-text; version=1.0.0")
    assert got.headers["content-type"].startswith("application/openmetrics-text")
    assert got.body.endswith(b"# EOF\n")


def test_callers_and_what_they_write_are_no_labels() -> None:
    """A label that strangers choose is memory that strangers fill: a thousand made-up tags are one sample."""
    counts = CallCounts()
    for number in range(1000):
        counts.record(
            CallRecord(
                request_id=str(number), door="native", peer=str(number), subject=str(number), principal=str(number),
                agent="a", tag=f"tag-{number}", instance=None, outcome="NOT_FOUND", cause=None, detail=None,
                started_unix=0.0, seconds=0.1, queue_seconds=None, request_bytes=None, result_bytes=0, chunks=0,
                client=str(number), trace=TRACE,
            )
        )  # fmt: skip
    calls = next(iter(counts.metrics(str)))
    assert [(sample.labels, sample.value) for sample in calls.samples] == [
        ({"agent": "a", "tag": "", "outcome": "NOT_FOUND"}, 1000)
    ]


def test_the_document_names_every_metric_and_no_other(gateway: Gateway) -> None:
    """docs/metrics.md: name, type, labels, meaning."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    runner.result(runner.expect(Frame.CALL).call, 1)
    answer(asked)
    text = scrape(gateway).body.decode()
    served = dict(re.findall(r"^# TYPE (runagentd_\w+) (\w+)$", text, re.MULTILINE))
    written = dict(re.findall(r"^\| `(runagentd_\w+)` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE))
    assert written == served


def test_the_document_names_the_labels_and_buckets_that_are_served(gateway: Gateway) -> None:
    """Whoever writes a query reads them there."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    runner.result(runner.expect(Frame.CALL).call, 1)
    answer(asked)
    rows = re.findall(r"^\| `(runagentd_\w+)` \| (\w+) \| ([\w, -]+) \|", DOCUMENT.read_text(), re.MULTILINE)
    written = {name: set(labels.split(", ")) - {"-"} for name, _, labels in rows}
    for family in text_string_to_metric_families(scrape(gateway).body.decode()):
        for sample in family.samples:
            name = family.name + ("_total" if family.type == "counter" else "")
            assert set(sample.labels) - {"le"} == written.get(name, written.get(family.name)), sample
    in_words = " ".join(DOCUMENT.read_text().split())
    assert (
        "those of calls up to 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250 and 500 ms, 1, 2.5, 5, 10, 30, 60 and 300 s"
    ) in in_words
    assert [second * 1000 for second in SECONDS[:11]] == [0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500]
    assert SECONDS[11:] == (1, 2.5, 5, 10, 30, 60, 300)
    assert "up to 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100 and 500 ms" in in_words
    assert [second * 1000 for second in STEP_SECONDS] == [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 500]


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    """docs/grafana.json, in the form that Grafana imports: panels with targets, and a variable for the data source."""
    board = json.loads(DASHBOARD.read_text())
    assert board["schemaVersion"] >= 36
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "agent"]
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    written = set(re.findall(r"^\| `(runagentd_\w+)` \|", DOCUMENT.read_text(), re.MULTILINE))
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert {"x", "y", "w", "h"} == set(panel["gridPos"])
        for target in panel["targets"]:
            for name in re.findall(r"runagentd_\w+", target["expr"]):
                assert re.sub(r"_(bucket|sum|count)$", "", name) in written, name
