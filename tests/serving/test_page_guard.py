"""What stands before the page: hosts, other sites, sizes; and what answers tell the browser."""

import asyncio

import pytest

from fewshot_ad.serving.limits import Limits
from fewshot_ad.serving.page_guard import FORMS, Guard

LIMITS = Limits(body_bytes=1000)


async def inner(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"inside"})


def ask(method="GET", *, is_local=True, host="127.0.0.1:7860", **headers):
    """Status, body and headers of one request."""
    given = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "headers": raw}
    asyncio.run(Guard(inner, LIMITS, is_local=is_local)(scope, None, send))
    return sent[0]["status"], sent[1]["body"].decode(), dict(sent[0]["headers"])


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "localhost"])
def test_this_machine_may_ask(host):
    assert ask(host=host)[:2] == (200, "inside")


@pytest.mark.parametrize("host", ["evil.example:7860", "127.0.0.1.evil.example", "", "192.168.0.7"])
def test_a_name_that_only_points_here_may_not(host):
    assert ask(host=host)[0] == 400
    assert ask(host=host, is_local=False)[0] == 200


def test_forms_of_other_sites_are_refused():
    sent = {"content_length": "10", "host": "localhost:7860"}
    assert ask("POST", origin="http://localhost:7860", **sent)[0] == 200
    assert ask("POST", **sent)[0] == 200
    for origin in ("https://evil.example", "http://localhost:9999", "null"):
        assert ask("POST", origin=origin, **sent)[0] == 403


@pytest.mark.parametrize(
    ("length", "status"),
    [(str(1000 + FORMS), 200), (str(1001 + FORMS), 413), ("", 411), ("-5", 411), ("²", 411)],
)
def test_bodies_are_bounded_and_say_their_length(length, status):
    assert ask("POST", content_length=length)[0] == status


def test_a_body_without_a_length_is_refused():
    assert ask("POST")[0] == 411


def test_answers_forbid_the_browser_to_ask_others():
    headers = ask()[2]
    assert headers[b"x-own"] == b"1"
    policy = headers[b"content-security-policy"].decode()
    assert policy.startswith("default-src 'self'")
    assert "http" not in policy
    assert "*" not in policy
