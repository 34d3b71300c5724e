"""One sample of every record that processes exchange, shared by the tests of forms and by the fuzzers.

messages.txt beside it holds their bytes, so that a change of form is a visible diff. After a change that is meant:
`python -m tests.wire.messages > tests/wire/messages.txt`, and read what changed.
"""

from __future__ import annotations

from runagentd.wire import (
    admin,
    build,
    control,
    figures,
    issuers,
    launch,
    manifest,
    packages,
    record,
    traffic,
    trust,
)  # fmt: skip

LIMITS = control.CallLimits(
    concurrency=1,
    queue=16,
    deadline_ms=300_000,
    cancel_grace_ms=250,
    request_bytes=1_048_576,
    result_bytes=8_388_608,
    traceback=False,
    log_line_bytes=16_384,
    log_bytes_per_minute=1_048_576,
    history_contents=False,
    one_by_one=False,
)

CACHE = admin.CacheState(
    size=1,
    size_max=2,
    purged=3,
    rows=(admin.CacheRow(agent="a", entries=4, size=5, hits=6, stale=7, misses=8, joined=9, stored=10, evicted=11),),
)

CALLS = admin.CallsAsk(agent="a", status="failed", since_unix_ms=1, before=2, limit=3)

CALLS_PAGE = admin.CallsPage(
    rows=(
        admin.CallRow(
            request_id="r",
            trace_id="0af7651916cd43dd8448eb211c80319c",
            agent="a",
            tag="t",
            subject="alice",
            status="failed",
            outcome="TIMEOUT_ERROR",
            cause="deadline",
            detail="d",
            started_unix_ms=1,
            microseconds=2,
            queue_microseconds=None,
            request_bytes=3,
            result_bytes=4,
            chunks=5,
            door="native",
            peer="192.0.2.1",
            instance=None,
            client="curl/8",
        ),
    ),
    before=6,
    lost=7,
    kept=True,
)

EVENT = admin.Event(
    number=1,
    unix_ms=2,
    kind=admin.EventKind.INSTANCE_ENDED,
    agent="a",
    agent_name="chat",
    instance="00000000000000a1",
    cause="oom",
    detail="d",
)

FIGURES = figures.Figures(
    agents=(
        figures.AgentFigures(
            agent="a",
            states=(figures.Count(name="ready", count=2),),
            ends=(figures.Count(name="oom", count=1),),
            memory=3,
            tasks=4,
            cpu_microseconds=5,
            pressure=(figures.Count(name="memory", count=8_000_000),),
            memory_max=6,
            tasks_max=7,
            cpu_max_thousandths=1000,
            instances_min=0,
            instances_max=8,
        ),
    ),
    more=False,
    steps=(figures.Durations(name="seccomp", buckets=(0,) * 12, microseconds=9),),
    starts=(figures.Count(name="spare", count=1),),
    start_times=(),
    gateways=1,
    spares=1,
    pressed=False,
)

TRAFFIC = traffic.Traffic(
    since_ns=1,
    made_ns=2,
    bounds_microseconds=(250, 500),
    agents=(
        traffic.AgentTraffic(
            agent="a",
            state="ready",
            open=1,
            waiting=2,
            bound=1,
            calls=3,
            failed=1,
            times=traffic.Times(buckets=(1, 2, 0), microseconds=900),
            outcomes=(figures.Count(name="OK", count=2),),
            tags=(
                traffic.TagTraffic(
                    tag="t", calls=3, failed=1, times=traffic.Times(buckets=(1, 2, 0), microseconds=900)
                ),
            ),
            instances=(traffic.InstanceTraffic(instance="00000000000000a1", open=1, calls=3, bound=True),),
        ),
    ),
)

DESCRIBED = admin.Described(
    agent="a",
    manifest=b"M",
    version="v1",
    policy="base",
    policy_digest="d1",
    bounds=admin.Bounds(
        memory_max=1,
        pids_max=2,
        cpu_max_thousandths=3,
        concurrency=4,
        queue=5,
        deadline=6,
        cancel_grace=7,
        instances_min=8,
        instances_max=9,
        instances_most=10,
        target=11,
        idle=12,
        freeze=13,
        spawn="fork",
        isolation="instance",
    ),
    restarts=1,
    retry_after_ms=2,
    instances=(),
    total=0,
    ends=(admin.EndRow(unix_ms=1, instance="00000000000000a1", lived_ms=2, cause="oom", detail="d"),),
    traffic=b"T",
)

FROM_SUPERVISOR: tuple[control.FromSupervisor, ...] = (
    control.AgentServed(
        agent="a",
        manifest=b"M",
        version="v1",
        policy="base",
        policy_digest="d1",
        limits=LIMITS,
        generation=7,
        leaving=(control.Leaving(generation=3, keep=2),),
        shares=(control.Share(side=2, percent=10),),
        aliases=(control.Alias(name="canary", side=2),),
    ),
    control.AgentRemoved(agent="a"),
    control.TryCall(number=1, agent="a", instance="00000000000000a1", tag="well", timeout_ms=500),
    control.InstanceOffered(instance="00000000000000a1", agent="a", generation=7, limits=LIMITS),
    control.InstanceGone(
        instance="00000000000000a1",
        agent="a",
        cause=control.Cause.OUT_OF_MEMORY,
        detail="used 256 MiB",
        retry_after_ms=100,
    ),
    control.Drain(grace_ms=10_000),
    control.AllIntroduced(),
    control.TrustedKeys(keys=(trust.PublicKey(key_id="k1", public=b"P" * 32, until=0),)),
    control.ApiKeysKnown(
        keys=(
            trust.ApiKey(
                id="01JD0000000000000000000000",
                subject="alice",
                tenant="acme",
                scopes=("agents:read",),
                created=1,
                expires=0,
                addresses=("192.0.2.0/24",),
                secrets=(trust.ApiKeySecret(digest=b"D" * 32, until=2),),
            ),
        )
    ),
    control.ApiKeysGone(ids=("01JD0000000000000000000000",)),
    control.Revoked(token_ids=("j1",), subjects=(trust.SubjectRevoked(subject="alice", before=3),), before=4),
    control.TrustTold(epoch=5),
    control.CacheQuestion(number=1, purge=True, agent="a", tag="t"),
    control.Retire(agent="a", keep=2),
    control.HostPressed(pressed=True),
    control.CallsQuestion(number=1, ask=CALLS),
    control.FiguresTold(number=1, figures=FIGURES),
    control.TrafficQuestion(number=1, agents=("a",), detailed=True),
)

FROM_GATEWAY: tuple[control.FromGateway, ...] = (
    control.Outcomes(agent="a", ended=(control.Ended(side=2, calls=20, failures=2),)),
    control.Tried(number=1, problem="it answered false"),
    control.Hello(version=1),
    control.InstanceReady(instance="00000000000000a1", describe=b"{}"),
    control.InstanceFailed(instance="00000000000000a1", report=b"{}"),
    control.ReplaceInstance(instance="00000000000000a1", cause=control.Cause.PROTOCOL),
    control.Drained(),
    control.TrustTaken(epoch=5),
    control.ApiKeysUsed(ids=("01JD0000000000000000000000",)),
    control.CacheAnswer(number=1, state=CACHE),
    control.Demand(agent="a", instances=3),
    control.Retired(instance="00000000000000a1"),
    control.Idle(instance="00000000000000a1"),
    control.Wake(instance="00000000000000a1"),
    control.CallsAnswer(number=1, page=b"P"),
    control.AskFigures(number=1),
    control.TrafficAnswer(number=1, page=b"T"),
)

FROM_EGRESS: tuple[issuers.FromEgress, ...] = (
    issuers.KeySet(
        issuer="corp",
        source="s1",
        keys=(issuers.VerifyingKey(kid="k1", algorithms=("ES256",), public=b"P" * 32),),
        fetched=1,
        until=2,
    ),
)
TO_EGRESS: tuple[issuers.FromGateway, ...] = (issuers.Greeting(), issuers.Refresh(issuer="corp"))

PROBLEM = manifest.LoadProblem(where="run.py", what="no such file", hints=("create it",))

REQUESTS: tuple[admin.Request, ...] = (
    admin.Deploy(
        folder="/srv/chat",
        policies=(admin.PolicyChoice(agent="", policy="base"),),
        keep=True,
        name="chat",
        instances=admin.InstanceBounds(minimum=0, maximum=4),
        aliases=("stable",),
    ),
    admin.VersionsAsk(agent="a"),
    admin.Promote(agent="a", version="v1"),
    admin.Divide(agent="a", shares=(admin.WantedShare(version="v2", percent=10),), errors_max=5),
    admin.Remove(agent="a", version=""),
    admin.SetAlias(agent="a", alias="stable", version="v2"),
    admin.ManagedAsk(),
    admin.ListInstances(),
    admin.AllDeployed(),
    admin.Restart(agent="a"),
    admin.TrustChanged(),
    admin.CacheAsk(purge=False, agent="", tag=""),
    admin.Warm(agent="a", instances=2),
    admin.Scale(agent="a", minimum=1, maximum=4),
    CALLS,
    admin.EventsAsk(life="l", after=1, agent="a", wait_ms=2),
    admin.SettingsChanged(taken=True),
    admin.OverviewAsk(page=0),
    admin.DescribeAsk(agent="a"),
)

REPLIES: tuple[admin.Reply, ...] = (
    admin.Deployed(
        ok=False,
        agent="a",
        agent_name="chat",
        tags=("chat",),
        policy="base",
        hints=("h",),
        problems=(PROBLEM,),
        describe=b"",
        report=b"{}",
    ),
    admin.Instances(
        instances=(
            admin.InstanceRow(
                agent="a",
                agent_name="chat",
                instance="00000000000000a1",
                state="ready",
                policy="base",
                pid=1001,
                reaper_pid=1000,
                uid=1879048192,
                started_unix_ms=1,
                version="v1",
                cpu_microseconds=9,
                memory_bytes=2,
                memory_max=3,
                pids=4,
                restarts=5,
                last_cause="oom",
                spawn_started_ns=6,
                ready_ns=7,
                from_spare=True,
                stood_by=True,
                steps=(admin.StepTime(step="mount", microseconds=8),),
            ),
        ),
        total=1,
        daemons=(admin.DaemonRow(name="gateway", pid=9),),
        spares=1,
        standbys=2,
    ),
    admin.Versions(
        agent="a",
        agent_name="chat",
        stays=True,
        problem="",
        rows=(
            admin.VersionRow(
                number=2,
                version="d",
                code="c",
                environment="",
                configuration="m",
                policy="base",
                policy_digest="p",
                origin="/srv/chat",
                created_unix_ms=1,
                state="warm",
                percent=0,
                aliases=("stable",),
                instances=1,
                warm_until_unix_ms=3,
            ),
        ),
    ),
    admin.Promoted(
        agent="a", agent_name="chat", number=1, version="d", policy="base", before=2, warm=True, wider=("w",)
    ),
    admin.Planned(
        agent="a",
        agent_name="chat",
        digest="d",
        serving=2,
        served=True,
        number=1,
        changes=("code", "policy"),
        install=False,
        policy="base",
        keys=(admin.KeyChange(key="k", relation=admin.Relation.WIDER, before="1", after="2"),),
        aliases=(admin.AliasChange(alias="stable", before=2),),
        managed_by="/etc/runagentd/agents/chat.toml",
        origin="/srv/chat",
        hints=("h",),
    ),
    admin.Managed(rows=(admin.ManagedRow(agent="a", agent_name="chat", managed_by="/etc/chat.toml"),), total=1),
    admin.Divided(wider=(admin.WiderSide(number=2, keys=("w",)),)),
    admin.Done(),
    admin.Failed(message="no such agent"),
    admin.TrustSpread(taken=True),
    CACHE,
    admin.Scaled(minimum=1, maximum=4, warm=2),
    admin.CallsTold(page=b"P"),
    admin.EventsTold(life="l", events=(EVENT,), looked=1, lost=0, more=False),
    admin.Overview(pages=1, made_ns=2, names=("chat",), figures=FIGURES, traffic=b"T"),
    DESCRIBED,
    admin.Progress(text="chat: installing 14 packages"),
)

MANIFEST = manifest.Manifest(
    agent_id="00000000-0000-4000-8000-000000000001",
    agent_name="chat",
    description="",
    framework="default",
    version="1.0.0",
    entrypoints=(
        manifest.Entrypoint(
            tag="chat",
            file="run.py",
            module="app.invoke",
            extractor=(manifest.Extraction(name="text", path="$.text"),),
        ),
    ),
    environment=(manifest.Variable(name="MODE", value="test"),),
    persistent_folders=("storage",),
    import_paths=(".venv/lib/python3.11/site-packages",),
    requirements=("requirements.txt", "base.txt"),
    hints=("auth_settings is ignored",),
)

LOAD_REPORT = manifest.LoadReport(manifest=MANIFEST, problems=(PROBLEM,))

LAUNCH_REPORT = launch.LaunchReport(
    stage=launch.Stage.REFUSED,
    steps=(launch.StepReport(verb="bind", nanoseconds=1200),),
    verb="tmpfs",
    errno=1,
    message="operation not permitted",
)

JOB = launch.Job(manifest=b"M", concurrency=1, result_bytes=2, cancel_grace_ms=3, traceback=True, isolated=False)

EXIT = launch.ExitRecord(
    kind=launch.ExitKind.SIGNALLED, status=9, user_microseconds=1, system_microseconds=2, memory_peak=3
)


BUILDER: tuple[build.Answer, ...] = (
    build.Listening(),
    build.Progress(phase=build.Phase.FETCHING, packages=14, there=3),
    build.Built(packages=14),
    build.NotBuilt(words="no solution found", full=False),
)
BUILD_JOB = build.BuildJob(
    files=(build.RequirementsFile(name="requirements.txt", content=b"six\n"),),
    index="https://packages.example.com/simple",
    hosts=(build.Host(name="packages.example.com", port=443, address="127.1.0.1"),),
    authorities=b"",
    wheels=False,
    source=False,
    installer="/opt/runagentd/bin/uv",
    loader="/lib64/ld-linux-x86-64.so.2",
    interpreter="/usr/bin/python3.11",
    target="/env",
)
RELAY = packages.Relay(targets=(packages.Target(host="packages.example.com", port=443),))


def forms() -> str:
    """A line for each sample: its class and its bytes."""
    named = [
        *((type(m).__name__, control.pack(m)) for m in (*FROM_SUPERVISOR, *FROM_GATEWAY)),
        *((type(m).__name__, issuers.pack(m)) for m in (*FROM_EGRESS, *TO_EGRESS)),
        *((type(m).__name__, admin.pack(m)) for m in (*REQUESTS, *REPLIES)),
        *(
            (type(m).__name__, record.encode(m))
            for m in (MANIFEST, LOAD_REPORT, LAUNCH_REPORT, JOB, CALLS_PAGE, TRAFFIC)
        ),
        *((type(m).__name__, build.pack(m)) for m in BUILDER),
        *((type(m).__name__, record.encode(m)) for m in (BUILD_JOB, RELAY)),
        ("ExitRecord", launch.pack_exit(EXIT)),
    ]
    return "".join(f"{name} {data!r}\n" for name, data in named)


if __name__ == "__main__":
    print(forms(), end="")
