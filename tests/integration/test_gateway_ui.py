"""The door of the operator's page: who may come in, which forms it takes, what its answers tell browsers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import pytest
import redis

from producer import Producer, keys
from producer.api_keys import Role
from tests.burying import Undertaker
from tests.gateways import running_gateway

PAGES = ("/ui/", "/ui/jobs", "/ui/dead", "/ui/try", "/ui/job?id=x", "/ui/letter?id=x", "/ui/job/events?id=x", "/ui/no")


@dataclass(frozen=True)
class Page:
    """A browser's view of ``/ui``, and the keys there are."""

    client: httpx.Client
    redis_url: str
    operator: str = ""
    acme: str = ""

    def post(self, path: str, token: str | None = None, **fields: str) -> httpx.Response:
        """Send a form as a browser would that shows a page of ours."""
        given = self.token() if token is None else token
        return self.client.post(path, data=fields | {"form_token": given}, headers={"Sec-Fetch-Site": "same-origin"})

    def token(self) -> str:
        """What this browser's forms have."""
        for path in ("/ui/try", "/ui/login"):
            if found := re.search(r'name="form_token" value="(\w+)"', self.client.get(path).text):
                return found[1]
        pytest.fail("no form on any page")


@pytest.fixture
def locked(redis_url: str, tmp_path: Path) -> Iterator[Page]:
    """Of a gateway that asks for keys."""
    with Producer(redis_url) as producer:
        producer.declare_model("m")
        operator, acme = producer.create_key("ops", role=Role.OPERATOR), producer.create_key("acme")
    with (
        running_gateway(redis_url, tmp_path, "--require-keys") as address,
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        yield Page(client, redis_url, operator, acme)


@pytest.fixture
def unlocked(redis_url: str, tmp_path: Path) -> Iterator[Page]:
    """Of one that does not."""
    with Producer(redis_url) as producer:
        producer.declare_model("m")
    with running_gateway(redis_url, tmp_path) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield Page(client, redis_url)


def test_nothing_is_shown_to_who_is_not_logged_in(locked: Page) -> None:
    """Every page sends them to the login, and no form does anything; an API key in a header is no way in."""
    for path in PAGES:
        for headers in ({}, {"Authorization": f"Bearer {locked.operator}"}, {"Cookie": "fleet-ui=guessed"}):
            answer = locked.client.get(path, headers=headers)
            assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/ui/login")
    for path in ("/ui/letter/replay", "/ui/letter/purge", "/ui/job/cancel", "/ui/try"):
        answer = locked.post(path, id="x", model="m", text="x")
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/login")
    with redis.Redis.from_url(locked.redis_url) as server:
        assert server.exists(keys.JOBS) == 0
    assert locked.client.get("/ui/static/ui.css").status_code == 200


def test_only_an_operators_key_opens_a_session(locked: Page) -> None:
    """Its id is fresh, is in Redis as a hash for 8 hours, and ends with it."""
    before = locked.client.get("/ui/login").cookies.get("fleet-ui")
    assert before
    assert locked.post("/ui/login", key="fleet-wrong").status_code == 401
    assert locked.post("/ui/login", key=locked.acme).status_code == 403
    assert locked.post("/ui/login").status_code == 401
    with redis.Redis.from_url(locked.redis_url) as server:
        assert server.keys("fleet:ui-session:*") == []
        answer = locked.post("/ui/login", key=locked.operator, next="/ui/dead?model=m")
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/dead?model=m")
        cookie = SimpleCookie(answer.headers["set-cookie"])["fleet-ui"]
        assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (True, "strict", "/ui", "")
        assert cookie.value != before, "what the browser came with is no session"
        [name] = server.keys("fleet:ui-session:*")
        assert cookie.value.encode() not in name
        assert locked.operator.encode() not in (server.get(name) or b"")
        assert 8 * 3600 - 60 < server.ttl(name) <= 8 * 3600
        assert locked.client.get("/ui/").status_code == 200
        assert locked.client.get("/v1/models").status_code == 401, "the cookie is for the page alone"
        assert locked.client.get("/ui/login").headers["location"] == "/ui/"
        server.delete(name)
        assert locked.client.get("/ui/").status_code == 303


@pytest.mark.parametrize("wanted", ["https://evil.example/", "//evil.example", "/v1/models", "/uix", "/ui/\r\nX: y"])
def test_logging_in_leads_nowhere_else(locked: Page, wanted: str) -> None:
    """Whatever a link said."""
    assert locked.post("/ui/login", key=locked.operator, next=wanted).headers["location"] == "/ui/"


def test_over_tls_the_cookie_is_secure(locked: Page) -> None:
    """Behind a proxy that says so, or by what the browser says."""
    token = locked.token()
    host = f"{locked.client.base_url.host}:{locked.client.base_url.port}"
    for headers in ({"X-Forwarded-Proto": "https", "Sec-Fetch-Site": "same-origin"}, {"Origin": f"https://{host}"}):
        form = {"key": locked.operator, "form_token": token}
        answer = locked.client.post("/ui/login", data=form, headers=headers)
        assert answer.status_code == 303
        assert "; Secure" in answer.headers["set-cookie"]
        locked.client.cookies.clear()
        token = locked.token()


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {},
    ],
)
def test_forms_of_other_pages_are_refused(unlocked: Page, headers: dict[str, str]) -> None:
    """With the right token too; nothing is queued."""
    fields = {"model": "m", "text": "x", "form_token": unlocked.token()}
    refused = unlocked.client.post("/ui/try", data=fields, headers=headers)
    assert refused.status_code == 403
    assert "not sent from this page" in refused.text
    with redis.Redis.from_url(unlocked.redis_url) as server:
        assert server.exists(keys.JOBS) == 0


def test_forms_need_the_token_of_their_browser(unlocked: Page) -> None:
    """None, a wrong one and another browser's are refused; ours is taken, from browsers too that send an Origin."""
    with httpx.Client(base_url=unlocked.client.base_url, timeout=60) as other:
        stranger = Page(other, "").token()
    ours = unlocked.token()
    for token in ("", "00", stranger, "ü"):
        assert unlocked.post("/ui/try", token, model="m", text="x").status_code == 403
    for content, kind, status in (
        (b"{}", "application/json", 415),
        (b"\xff=\xff", "application/x-www-form-urlencoded", 400),
        (b"&".join([b"a=b"] * 50), "application/x-www-form-urlencoded", 400),
    ):
        headers = {"Content-Type": kind, "Sec-Fetch-Site": "same-origin"}
        assert unlocked.client.post("/ui/try", content=content, headers=headers).status_code == status
    base = unlocked.client.base_url
    fields = {"model": "m", "text": "x", "form_token": ours}
    taken = unlocked.client.post("/ui/try", data=fields, headers={"Origin": f"http://{base.host}:{base.port}"})
    assert taken.status_code == 303
    with Producer(unlocked.redis_url) as producer:
        assert producer.status(taken.headers["location"].partition("=")[2]).model == "m"


def test_without_keys_the_page_is_for_names_of_this_machine_only(unlocked: Page) -> None:
    """A name that somebody else pointed at it (DNS rebinding) sees nothing."""
    port = unlocked.client.base_url.port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", "[::"):
        refused = unlocked.client.get("/ui/", headers={"Host": host})
        assert refused.status_code == 403
        assert "<table" not in refused.text
    for host in ("localhost", f"localhost:{port}", "127.0.0.1", f"[::1]:{port}"):
        assert unlocked.client.get("/ui/", headers={"Host": host}).status_code == 200


def test_every_answer_tells_browsers_to_be_strict(unlocked: Page) -> None:
    """Pages, errors, refusals, files and forms."""
    answers = [unlocked.client.get(path) for path in (*PAGES, "/ui/static/ui.js", "/ui/static/none")]
    answers += [unlocked.client.get("/ui/", headers={"Host": "evil.example"}), unlocked.client.post("/ui/try")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"


def test_a_wrong_form_says_what_is_wrong(unlocked: Page) -> None:
    """To people with the form as they left it, to a script as JSON; what the contract refuses too."""
    page = unlocked.post("/ui/try", model="m", text="keep <this>", max_tokens="0")
    assert page.status_code == 400
    assert "keep &lt;this&gt;" in page.text
    assert re.search(r'role="alert"[^>]*>[^<]*max_tokens', page.text)
    for fields, problem in (
        ({"text": ""}, "Text: write something"),
        ({"text": "x", "temperature": "warm"}, "Temperature: a number"),
        ({"text": "x", "temperature": "nan"}, "temperature"),
        ({"text": "x", "model": "other"}, "not known to this fleet"),
    ):
        form = {"model": "m"} | fields | {"form_token": unlocked.token()}
        headers = {"Accept": "application/json", "Sec-Fetch-Site": "same-origin"}
        refused = unlocked.client.post("/ui/try", data=form, headers=headers)
        assert refused.status_code in (400, 404)
        assert problem in refused.json()["message"]


def test_a_form_that_is_sent_twice_is_one_job(unlocked: Page) -> None:
    """A double click, or a page that is loaded again; other text is another job, and so is the next form."""
    page = unlocked.client.get("/ui/try").text
    [key] = re.findall(r'name="key" value="([\w-]+)"', page)
    form = {"model": "m", "text": "x", "key": key}
    first, again = (unlocked.post("/ui/try", **form).headers["location"] for _ in range(2))
    assert first == again
    other = unlocked.post("/ui/try", **form | {"text": "y"}).headers["location"]
    [next_key] = re.findall(r'name="key" value="([\w-]+)"', unlocked.client.get("/ui/try").text)
    later = unlocked.post("/ui/try", **form | {"key": next_key}).headers["location"]
    headers = {"Accept": "application/json", "Sec-Fetch-Site": "same-origin", "Idempotency-Key": "own"}
    fields = {"model": "m", "text": "x", "form_token": unlocked.token()}
    keyed = [unlocked.client.post("/ui/try", data=fields, headers=headers).json() for _ in range(2)]
    assert keyed[0]["id"] == keyed[1]["id"]
    assert keyed[0]["key"] != keyed[1]["key"]
    with redis.Redis.from_url(unlocked.redis_url) as server:
        assert len({first, other, later}) + 1 == server.zcard(keys.JOBS) == 4


def test_what_is_not_there_is_said(unlocked: Page) -> None:
    """Jobs, letters and pages; and actions on them."""
    for path in ("/ui/job?id=none", "/ui/letter?id=none", "/ui/none", "/ui/job", "/ui/job/events?id=none"):
        assert unlocked.client.get(path).status_code == 404
    for path in ("/ui/letter/replay", "/ui/letter/purge", "/ui/job/cancel"):
        assert unlocked.post(path, id="none").status_code == 404
    assert unlocked.client.get("/ui/jobs?after=none").status_code == 400
    assert unlocked.client.get("/ui/dead?offset=-1").status_code == 200
    assert unlocked.client.get("/ui/letter/replay").status_code == 405
    with redis.Redis.from_url(unlocked.redis_url) as server:
        junk = Undertaker(server).quarantine(b"junk")
    refused = unlocked.post("/ui/letter/replay", id=junk)
    assert (refused.status_code, "names no job" in refused.text) == (409, True)


def test_long_lists_come_in_pages(unlocked: Page) -> None:
    """Letters and jobs, to the last one."""
    with redis.Redis.from_url(unlocked.redis_url) as server, Producer(unlocked.redis_url) as producer:
        producer.lists_jobs = True
        undertaker = Undertaker(server)
        letters = [undertaker.quarantine(b"junk %d" % number) for number in range(30)]
        jobs = [producer.submit(model="m", prompt="x", tenant="t").job_id for _ in range(60)]
        producer.submit(model="m", prompt="x")
    for path, pattern, whole in (
        ("/ui/dead?model=m", r"/letter\?id=([\w.-]+)", letters),
        ("/ui/jobs?tenant=t", r"/job\?id=([\w-]+)", jobs),
    ):
        found: list[str] = []
        place: str | None = path
        while place:
            text = unlocked.client.get(place).text
            found += re.findall(pattern, text)
            further = re.search(r'rel="next" href="([^"]+)"', text)
            place = further[1].replace("&amp;", "&") if further else None
        assert found == whole[::-1]
    assert "/job?id=" in unlocked.client.get("/ui/jobs?without=none").text
    assert "/job?id=" not in unlocked.client.get("/ui/jobs?state=failed").text


def test_nobody_is_let_in_while_redis_is_away(locked: Page) -> None:
    """Who is logged in is told so; whose session can not be looked up sees nothing."""
    locked.post("/ui/login", key=locked.operator)
    with redis.Redis.from_url(locked.redis_url) as server:
        server.config_set("requirepass", "secret")
        try:
            server.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            answer = locked.client.get("/ui/")
            assert answer.status_code == 503
            assert "<table" not in answer.text
        finally:
            server.config_set("requirepass", "")
    assert locked.client.get("/ui/").status_code == 200
