"""API keys, revocation and the rotation of signing keys, as a client of the gateway sees them."""

from __future__ import annotations

import base64
import http.client
import json
import time

import jwt
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from runagentd import apikeys, signing
from runagentd.gateway.guard import trust
from runagentd.wire import control
from runagentd.wire.channel import Frame
from runagentd.wire.trust import ApiKey, ApiKeySecret
from tests.fakes_gateway import TIMEOUT, Gateway, HttpAnswer, answer

BY_WORKERS_TOO = True

INVOKE = "/v1/agents/echo/entrypoints/say:invoke"


def add_key(gateway: Gateway, *, expires: int = 0, addresses: tuple[str, ...] = (), scopes: str = "*/*") -> str:
    """A new API key of alice's that the gateway knows."""
    identity = apikeys.new_id()
    text = apikeys.create(identity)
    gateway.store.add_api_key(
        ApiKey(
            id=identity, subject="alice", tenant=None, scopes=(f"agents:invoke:{scopes}",), created=int(time.time()),
            expires=expires, addresses=addresses, secrets=(ApiKeySecret(digest=apikeys.digest(text), until=0),),
        ),
        "test",
    )  # fmt: skip
    gateway.spread()
    return text


def agents(gateway: Gateway, token: str) -> HttpAnswer:
    return gateway.ask("GET", "/v1/agents", token=token)


def detail(got: HttpAnswer) -> str:
    """What a 401 says; its form is always the same."""
    body = got.json()
    assert (got.status, body["code"]) == (401, "AUTHENTICATION_ERROR")
    assert got.headers["www-authenticate"] == 'Bearer realm="runagentd", error="invalid_token"'
    return str(body["detail"])


def test_an_api_key_may_do_what_its_scopes_say(gateway: Gateway) -> None:
    """On both doors, like a token."""
    gateway.supervisor.serve()
    key, other = add_key(gateway), add_key(gateway, scopes="other/*")
    assert [row["name"] for row in agents(gateway, key).json()["agents"]] == ["echo"]
    assert agents(gateway, other).json()["agents"] == []
    assert gateway.ask("GET", "/api/v1/agents/echo/architecture", token=key).status == 200


def test_a_key_that_is_wrong_in_any_way_is_told_the_same(gateway: Gateway) -> None:
    """Whether an id exists is nobody's business; a typo is told as one, for that says nothing."""
    key = add_key(gateway)
    identity = apikeys.parse(key)
    assert identity is not None
    unknown = "the API key is not known here, or no longer"
    assert detail(agents(gateway, apikeys.create(apikeys.new_id()))) == unknown
    assert detail(agents(gateway, apikeys.create(identity))) == unknown
    assert detail(agents(gateway, add_key(gateway, expires=int(time.time()) - 1))) == unknown
    assert detail(agents(gateway, key[:-1] + ("0" if key[-1] != "0" else "1"))) == (
        "the API key is mistyped: its checksum does not fit"
    )


def test_a_key_with_networks_is_good_in_them_only(gateway: Gateway) -> None:
    """Also once it was found good from inside."""
    assert agents(gateway, add_key(gateway, addresses=("127.0.0.0/8", "2001:db8::/32"))).status == 200
    elsewhere = add_key(gateway, addresses=("192.0.2.0/24",))
    for _ in range(2):
        assert detail(agents(gateway, elsewhere)) == "this key may not be used from this address"


def test_during_a_rotation_both_secrets_are_good_and_after_it_the_new_one(gateway: Gateway) -> None:
    """So that a fleet can be changed without a gap."""
    first = add_key(gateway)
    identity = apikeys.parse(first) or ""
    second, third = apikeys.create(identity), apikeys.create(identity)
    gateway.store.rotate_api_key(identity, apikeys.digest(second), overlap_seconds=60)
    gateway.spread()
    assert [agents(gateway, key).status for key in (first, second)] == [200, 200]
    gateway.store.rotate_api_key(identity, apikeys.digest(third), overlap_seconds=0)
    gateway.spread()
    assert [agents(gateway, key).status for key in (first, second, third)] == [401, 401, 200]


def test_the_use_of_keys_is_reported_in_batches(gateway: Gateway) -> None:
    """Each once."""
    key = add_key(gateway)
    for _ in range(3):
        agents(gateway, key)
    gateway.inside(gateway.application.report_use)
    assert gateway.supervisor.receive() == control.ApiKeysUsed(ids=(apikeys.parse(key) or "",))


@pytest.mark.parametrize("how", ["id", "subject", "all"])
def test_a_revoked_token_is_refused_though_it_was_good_a_moment_ago(gateway: Gateway, how: str) -> None:
    """And others go on, where they are not meant."""
    token, other = gateway.token(subject="alice"), gateway.token(subject="bob")
    assert [agents(gateway, each).status for each in (token, other)] == [200, 200]
    now = int(time.time()) + 1
    match how:
        case "id":
            gateway.store.revoke_id(claim(token, "jti"), until=0)
        case "subject":
            gateway.store.revoke_subject("alice", before=now)
        case _:
            gateway.store.revoke_all(before=now)
    gateway.spread()
    assert detail(agents(gateway, token)) == "the token, key or certificate was revoked"
    assert agents(gateway, other).status == (401 if how == "all" else 200)


def claim(token: str, name: str) -> str:
    return str(jwt.decode(token, options={"verify_signature": False})[name])


def stop_stream(gateway: Gateway, token: str) -> None:
    gateway.store.revoke_id(claim(token, "jti"), until=0)
    gateway.spread()


def test_a_revocation_ends_a_stream_of_events(gateway: Gateway) -> None:
    """With an error event and a body that is cut short; the runner is told to stop."""
    runner = gateway.ready(streams=True)
    token = gateway.token()
    connection = gateway.send("POST", INVOKE, b"{}", token=token, Accept="text/event-stream")
    call = runner.expect(Frame.CALL).call
    runner.chunk(call, 1)
    connection.sock.settimeout(TIMEOUT)
    got = b""
    while b"event: chunk" not in got:
        got += connection.sock.recv(65536)
    stop_stream(gateway, token)
    while piece := connection.sock.recv(65536):
        got += piece
    connection.close()
    event = json.loads(got.partition(b"event: error\ndata: ")[2].partition(b"\n")[0])
    assert (event["code"], event["status"], event["detail"]) == (
        "AUTHENTICATION_ERROR", 401, "the token, key or certificate was revoked",
    )  # fmt: skip
    assert not got.endswith(b"0\r\n\r\n")
    assert runner.until(Frame.CANCEL).call == call


def test_a_revocation_ends_a_websocket(gateway: Gateway) -> None:
    """With an error frame, and 1008 (RFC 6455, section 7.4.1)."""
    runner = gateway.ready("say_stream", streams=True)
    token = gateway.token()
    url = f"ws://127.0.0.1:{gateway.port}/api/v1/agents/echo/run-stream"
    fields = {"Authorization": f"Bearer {token}"}
    with connect(url, additional_headers=fields, compression=None, open_timeout=5, close_timeout=1) as ws:
        ws.send(json.dumps({"entrypoint_tag": "say_stream"}))
        call = runner.expect(Frame.CALL).call
        runner.chunk(call, 1)
        assert [json.loads(ws.recv(timeout=TIMEOUT))["type"] for _ in range(2)] == ["status", "data"]
        stop_stream(gateway, token)
        said = json.loads(ws.recv(timeout=TIMEOUT))
        assert said["type"] == "error"
        assert "the token, key or certificate was revoked" in said["error"]
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=TIMEOUT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
    assert runner.until(Frame.CANCEL).call == call


def test_a_revocation_ends_a_call_that_waits_for_its_result_and_one_that_waits_for_a_place(gateway: Gateway) -> None:
    """Both are told 401; a call of somebody else's in between is not touched."""
    runner = gateway.ready()
    alice, bob = gateway.token(subject="alice"), gateway.token(subject="bob")
    first = gateway.send("POST", INVOKE, b"{}", token=alice)
    call = runner.expect(Frame.CALL).call
    others = [gateway.send("POST", INVOKE, b"{}", token=token) for token in (bob, alice)]
    gateway.wait_until(lambda: gateway.application.directory.find("echo").waiting == 2)  # type: ignore[union-attr]
    gateway.store.revoke_subject("alice", before=int(time.time()) + 1)
    gateway.spread()
    assert detail(answer(first)) == detail(answer(others[1])) == "the token, key or certificate was revoked"
    assert runner.until(Frame.CANCEL).call == call
    runner.error(call, "cancelled", "stopped")
    call = runner.expect(Frame.CALL).call
    runner.result(call, "for bob")
    assert answer(others[0]).json() == "for bob"


def test_a_revocation_reaches_a_request_whose_body_is_still_on_its_way(gateway: Gateway) -> None:
    """It was believed when its head came."""
    gateway.ready()
    token = gateway.token()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=TIMEOUT)
    connection.putrequest("POST", INVOKE)
    connection.putheader("Authorization", f"Bearer {token}")
    connection.putheader("Content-Length", "2")
    connection.endheaders(b"{")
    pipeline = gateway.application._pipeline
    gateway.wait_until(lambda: [running.principal is not None for running in pipeline._running] == [True])
    stop_stream(gateway, token)
    connection.send(b"}")
    assert detail(answer(connection)) == "the token, key or certificate was revoked"


def test_a_key_that_was_dropped_ends_what_it_signed(gateway: Gateway) -> None:
    """A rotation alone does not."""
    token = gateway.token()
    signing.rotate(str(gateway.folder / "keys"), now=int(time.time()), force=True)
    gateway.spread()
    assert agents(gateway, token).status == 200
    gateway.key = signing.create_or_open(str(gateway.folder / "keys"))
    second = gateway.token()
    assert agents(gateway, second).status == 200
    signing.rotate(str(gateway.folder / "keys"), now=int(time.time()), drop=True)
    gateway.spread()
    assert [agents(gateway, each).status for each in (token, second)] == [200, 401]
    assert detail(agents(gateway, second)) == "the token names a key that is not known here"


def test_the_public_keys_are_there_for_everybody(gateway: Gateway) -> None:
    """RFC 7517: what signs now and what will next, and no private member."""
    got = gateway.ask("GET", "/.well-known/jwks.json", token=None)
    assert (got.status, got.headers["content-type"]) == (200, "application/jwk-set+json")
    assert got.headers["cache-control"] == "public, max-age=300"
    keys = got.json()["keys"]
    rows = gateway.store.signing_keys()
    assert [key["kid"] for key in keys] == [row.id for row in rows]
    assert all(sorted(key) == ["alg", "crv", "kid", "kty", "use", "x"] for key in keys)
    assert base64.urlsafe_b64decode(keys[1]["x"] + "=") == rows[1].public
    assert gateway.ask("HEAD", "/.well-known/jwks.json", token=None).status == 200
    assert gateway.ask("POST", "/.well-known/jwks.json", b"{}", token=None).status == 405


def test_a_gateway_that_was_not_told_whom_to_believe_refuses_nobody_and_believes_nobody(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits, and then says that it is starting."""
    monkeypatch.setattr(trust, "INTRODUCTION_SECONDS", 0.05)
    gateway.inside(gateway.application._trust._known.clear)
    gateway.inside(gateway.application.identity.forget)
    got = agents(gateway, gateway.token())
    assert (got.status, got.json()["detail"], got.headers["retry-after"]) == (503, "the daemon is starting", "1")


def test_what_a_supervisor_tells_anew_replaces_what_was_told_before(gateway: Gateway) -> None:
    """A key that was revoked while there was no supervisor is not kept."""
    key = add_key(gateway)
    gateway.store.revoke_api_key(apikeys.parse(key) or "")
    gateway.supervisor.drop()
    assert agents(gateway, key).status == 200  # nobody has said otherwise yet
    gateway.supervisor.trust = list(gateway.store.changes(-1).messages())
    gateway.supervisor.connect()
    assert agents(gateway, key).status == 401
