"""The operator's page as an operator has it: in a browser, on a running fleet."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import redis
from selenium.webdriver.common.keys import Keys

from producer import Priority, Producer
from producer.api_keys import Role
from tests.browsers import Browser, running_browser
from tests.burying import Undertaker
from tests.gateways import running_gateway
from tests.running import RunningFleet, simulated
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

ALL_DAY = {"max_tokens": 15_000, "ignore_eos": True}
NASTY = "<script>document.title='owned'</script><b id=owned>bold</b> & \"quotes\""


@dataclass(frozen=True)
class Stage:
    """A fleet that writes 50 tokens a second, its gateway and who may come in."""

    fleet: RunningFleet
    address: str
    """Of a gateway that asks for keys."""
    open_address: str
    """Of one that does not."""
    operator: str
    acme: str

    @property
    def producer(self) -> Producer:
        """Another way to the same queue."""
        listing = Producer(self.fleet.redis_url)
        listing.lists_jobs = True
        return listing

    @property
    def redis(self) -> redis.Redis:
        """A plain look at the server."""
        return redis.Redis.from_url(self.fleet.redis_url)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for all tests here."""
    folder = tmp_path_factory.mktemp("ui")
    (folder / "open").mkdir()
    with (
        EmbeddedServer(folder / "valkey", free_port()) as server,
        simulated(server.url, folder, seconds_per_token=0.02, max_num_seqs=4, max_model_len=20_000) as fleet,
        running_gateway(server.url, folder, "--require-keys") as address,
        running_gateway(server.url, folder / "open") as open_address,
        Producer(server.url) as producer,
    ):
        operator = producer.create_key("ops", role=Role.OPERATOR)
        acme = producer.create_key("acme")
        yield Stage(fleet, address, open_address, operator, acme)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests here."""
    with running_browser(tmp_path_factory.mktemp("chromium"), "--window-size=1280,900") as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser, stage: Stage) -> Iterator[Browser]:
    """It, logged in nowhere; nothing of a page was refused by its own policy, or failed, when the test is over."""
    chromium.open(f"{stage.address}/ui/static/ui.css")
    chromium.chrome.delete_all_cookies()
    chromium.complaints()
    yield chromium
    refusals = [one for one in chromium.complaints() if "favicon" not in one and "status of 4" not in one]
    assert refusals == []


def log_in(browser: Browser, stage: Stage, key: str = "") -> None:
    """With this operator's key, or the one that is always there."""
    browser.open(f"{stage.address}/ui/")
    browser.labelled("Key").send_keys(key or stage.operator, Keys.ENTER)
    browser.eventually(lambda: browser.heading == "Overview", "the overview")


def test_an_operator_logs_in_and_out(browser: Browser, stage: Stage) -> None:
    """To the page that was asked for; neither script nor Redis has the session's cookie; outside it opens nothing."""
    browser.open(f"{stage.address}/ui/dead?model=m")
    assert browser.chrome.title == "Log in · Inference Fleet"
    browser.labelled("Key").send_keys("fleet-wrong", Keys.ENTER)
    browser.eventually(lambda: "opens nothing" in browser.one("[role=alert]").text, "a wrong key is refused")
    browser.labelled("Key").send_keys(stage.acme, Keys.ENTER)
    browser.eventually(lambda: "role operator" in browser.one("[role=alert]").text, "another role is refused")
    browser.labelled("Key").send_keys(stage.operator, Keys.ENTER)
    browser.eventually(lambda: browser.heading == "Dead letters", "the page that was asked for")
    assert browser.chrome.current_url == f"{stage.address}/ui/dead?model=m"
    [cookie] = browser.chrome.get_cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/ui")
    assert browser.script("return document.cookie") == ""
    assert browser.script("return (await fetch('/v1/models')).status") == 401
    with stage.redis as server:
        assert all(cookie["value"].encode() not in name for name in server.keys("fleet:ui-session:*"))
    browser.press("Log out")
    browser.eventually(lambda: "You are logged out." in browser.text, "logged out")
    browser.chrome.add_cookie(cookie)
    browser.open(f"{stage.address}/ui/")
    assert browser.heading == "Log in", "the old cookie opens nothing"


def test_the_overview_counts_what_is_queued_and_who_works(browser: Browser, stage: Stage) -> None:
    """And goes on counting, without losing the reader's place; with a button to make it stop."""
    log_in(browser, stage)
    worker = next(row for row in browser.all("#workers-scroll tbody tr"))
    assert "simulated 0.1.0" in worker.text
    assert "ready" in worker.text
    with stage.producer as producer:
        producer.declare_model("idle")
        producer.set_queue_limit("idle", 12)
        for priority, count in ((Priority.BATCH, 3), (Priority.INTERACTIVE, 1)):
            for _ in range(count):
                producer.submit(model="idle", prompt="x", priority=priority, tenant="t" if count > 1 else None)
        scroll = browser.one("#workers-scroll")
        scroll.send_keys("")
        assert browser.script("return document.activeElement.id") == "workers-scroll"
        browser.eventually(lambda: browser.row("idle")["Waiting"] == "4", "the page refreshes itself")
        row = browser.row("idle")
        assert "no ready worker" in row["Model"]
        assert (row["Interactive"].split()[0], row["Batch"].split()[0], row["Normal"]) == ("1", "3", "0")
        assert (row["Limit"], row["Oldest"].split()[-1] in ("s", "ms")) == ("12", True)
        assert browser.script("return document.activeElement.id") == "workers-scroll", "the focus stays"
        browser.press("Pause")
        assert browser.one("#pause").get_attribute("aria-pressed") == "true"
        producer.submit(model="idle", prompt="x")
        browser.script("return refresh()")
        assert browser.row("idle")["Waiting"] == "4", "it stays as it is, whatever was on its way"
        browser.press("Pause")
        browser.eventually(lambda: browser.row("idle")["Waiting"] == "5", "it goes on")


def test_a_dead_letter_is_inspected_and_replayed(browser: Browser, stage: Stage) -> None:
    """From the overview to its history and message, back into the queue, and to its job; another one is purged."""
    with stage.producer as producer, stage.redis as server:
        producer.declare_model("deadly")
        job = producer.submit(model="deadly", prompt=f"Say {NASTY}", priority=Priority.BATCH)
        undertaker = Undertaker(server, "deadly")
        letter = undertaker.poison()
        junk = undertaker.quarantine(b"\xff junk <img src=x onerror=alert(1)>")
        log_in(browser, stage)
        browser.eventually(lambda: browser.row("deadly")["Dead"] == "2", "both are counted")
        browser.one("[id='dead-deadly']").click()
        assert browser.row(letter)["Code"] == "poisoned"
        browser.press(letter)
        assert browser.facts()["Reason"] == "it kills engines"
        assert browser.row("1")["What happened"] == "the engine died"
        browser.press("Show it")
        assert "<script>document.title=" in browser.one("pre").text
        browser.press("Replay")
        browser.eventually(lambda: "queued again" in browser.text, "it is replayed")
        assert browser.facts()["Id"] == job.job_id
        assert browser.facts()["State"] == "queued"
        assert [one.letter_id for one in producer.dead_letters()] == [junk]
        browser.open(f"{stage.address}/ui/letter?id={quote(letter)}")
        assert browser.heading == "Not Found"
        browser.open(f"{stage.address}/ui/letter?id={quote(junk)}")
        assert "can not be replayed" in browser.text
        browser.press("Show it")
        assert "\\xff junk <img" in browser.one("pre").text
        browser.press("Purge…")
        browser.press("Purge it")
        browser.eventually(lambda: "is removed" in browser.text, "it is purged")
        assert producer.dead_letters() == []


def test_a_jobs_timeline_is_shown_and_a_job_is_cancelled(browser: Browser, stage: Stage) -> None:
    """One that is done by its id, one that waits with the reason, one that runs until it is cancelled."""
    log_in(browser, stage)
    with stage.producer as producer:
        done = producer.submit(
            model="sim", prompt=NASTY, tenant="acme", sampling={"max_tokens": 12, "ignore_eos": True}
        )
        text = producer.result(done, timeout_seconds=60).text
        browser.press("Jobs")
        browser.labelled("Open a job").send_keys(done.job_id, Keys.ENTER)
        browser.eventually(lambda: browser.heading == "Job", "the job's page")
        facts = browser.facts()
        assert (facts["State"], facts["Tenant"], facts["Attempt"]) == ("succeeded", "acme", "1")
        assert "12 generated" in facts["Tokens"]
        assert [browser.row(step)["When"].endswith("UTC") for step in ("Enqueued", "Started", "Ended")] == [True] * 3
        assert [one.text.split(":")[0] for one in browser.all(".legend li")] == [
            "Waiting in the queue",
            "To the first token",
            "Generating",
        ]
        widths = [float(one.get_attribute("width") or 0) for one in browser.all("svg.bar rect")]
        assert sum(widths) == pytest.approx(1000, abs=1)
        assert browser.one("pre.answer").text == text

        producer.declare_model("nobody")
        waiting = producer.submit(model="nobody", prompt="x", tenant="acme")
        browser.open(f"{stage.address}/ui/job?id={waiting.job_id}")
        assert browser.facts()["Why it waits"].startswith("No worker is ready for its model.")

        running = producer.submit(model="sim", prompt="long", tenant="acme", sampling=ALL_DAY, stream=True)
        browser.open(f"{stage.address}/ui/jobs?tenant=acme&state=running")
        browser.eventually(lambda: browser.chrome.refresh() or browser.row(running.job_id), "it is listed as running")
        assert {row.text.split()[1] for row in browser.all("tbody tr")} == {"running"}
        browser.press(running.job_id)
        browser.eventually(lambda: len(browser.one("#stream").text) > 20, "its answer is followed")
        browser.press("Cancel the job")
        browser.eventually(lambda: browser.facts()["State"] == "cancelled", "it is cancelled")
        assert "The job is cancelled." in browser.text
        assert producer.status(running).state == "cancelled"


def test_a_prompt_is_tried_and_its_answer_grows(browser: Browser, stage: Stage) -> None:
    """In the page, as the gateway streams it; what is wrong is said; what was written stays in the form."""
    log_in(browser, stage)
    browser.press("Try a prompt")
    browser.labelled("Text").send_keys(f"Tell of {NASTY}")
    tokens = browser.labelled("Most tokens")
    tokens.clear()
    tokens.send_keys("150")
    browser.labelled("Temperature").clear()
    browser.labelled("Temperature").send_keys("0")
    browser.script("document.getElementById('try').noValidate = true; document.getElementById('text').dataset.kept = 1")
    browser.press("Send")
    browser.eventually(lambda: browser.one("#stream").text, "the first words")
    lengths = {len(browser.one("#stream").text)}
    browser.eventually(
        lambda: lengths.add(len(browser.one("#stream").text)) or "Done" in browser.one("#stream-state").text,
        "the answer is whole",
    )
    assert len(lengths) > 3, "it grew before the eyes"
    assert browser.one("#text").get_attribute("data-kept") == "1", "in the same page"
    text = str(browser.script("return document.getElementById('stream').textContent"))
    assert browser.script("return document.activeElement.textContent") == "Send"
    browser.press("Open the job's page")
    browser.eventually(lambda: browser.heading == "Job", "its job")
    with stage.producer as producer:
        result = producer.result(browser.facts()["Id"])
        assert producer.status(result.id).priority is Priority.INTERACTIVE
    assert browser.one("pre.answer").text == text == result.text
    browser.press("Try a prompt")
    browser.labelled("Text").send_keys("x")
    browser.labelled("Temperature").clear()
    browser.labelled("Temperature").send_keys("1.5")
    browser.script("document.getElementById('try').noValidate = true")
    browser.labelled("Most tokens").clear()
    browser.press("Send")
    browser.eventually(lambda: "Most tokens: a number" in browser.one("#problem").text, "what is wrong is said")
    assert browser.labelled("Temperature").get_attribute("value") == "1.5"


def test_nothing_that_others_wrote_is_markup(browser: Browser, stage: Stage) -> None:
    """Names, prompts and reasons, wherever they are shown."""
    with stage.producer as producer, stage.redis as server:
        producer.declare_model(NASTY)
        job = producer.submit(model=NASTY, prompt=NASTY, tenant=NASTY)
        log_in(browser, stage)
        for path in ("/", "/try", "/jobs", f"/jobs?tenant={quote(NASTY)}", f"/job?id={job.job_id}"):
            browser.open(f"{stage.address}/ui{path}")
            assert "<script>document.title" in str(browser.script("return document.body.textContent"))
            assert browser.all("#owned, main script") == []
            assert browser.chrome.title != "owned"
        browser.open(f"{stage.address}/ui/job?id={quote(NASTY)}")
        assert "<script>" in browser.text
        producer.cancel(job)
        producer.forget_model(NASTY)
        server.delete(f"fleet.{NASTY}")


def test_everything_can_be_done_with_the_keyboard(browser: Browser, stage: Stage) -> None:
    """Past the navigation by the skip link, along visible stops, into the form and off it goes."""
    log_in(browser, stage)
    body = browser.one("body")
    body.send_keys(Keys.TAB)
    skip = browser.chrome.switch_to.active_element
    assert (skip.text, skip.is_displayed()) == ("Skip to the content", True)
    assert skip.rect["x"] >= 0
    skip.send_keys(Keys.ENTER)
    assert browser.script("return document.activeElement.id") == "main"
    browser.open(f"{stage.address}/ui/try")
    stops: list[str] = []
    for _ in range(12):
        browser.chrome.switch_to.active_element.send_keys(Keys.TAB)
        focused = browser.chrome.switch_to.active_element
        style: Any = browser.script(
            "const s = getComputedStyle(document.activeElement); return s.outlineStyle + ' ' + s.outlineWidth"
        )
        assert style == "solid 3px", f"the focus on {focused.tag_name} can be seen"
        stops.append(focused.get_attribute("id") or focused.text)
        if stops[-1] == "text":
            break
    assert stops[0] == "Skip to the content"
    assert stops[-4:] == ["model", "kind-chat", "system", "text"]
    focused.send_keys("by hand", Keys.TAB, Keys.NULL)
    for _ in range(2):
        browser.chrome.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.chrome.switch_to.active_element.text == "Send"
    browser.chrome.switch_to.active_element.send_keys(Keys.ENTER)
    browser.eventually(lambda: "Done" in browser.one("#stream-state").text, "it was sent and answered")


PAGES = ("/", "/jobs", "/dead", "/try", "/job?id={job}", "/letter?id={letter}", "/nothing")

FINDINGS = """
const found = [];
const say = (what, one) => found.push(`${what}: ${one.outerHTML.slice(0, 120)}`);
const sheets = [...document.styleSheets].map((one) => `${one.href} ${one.cssRules.length > 0}`);
if (sheets.length !== 1 || !sheets[0].endsWith(' true')) found.push(`style sheets: ${sheets}`);
if (document.readyState !== 'complete') found.push(`the document is ${document.readyState}`);
if (document.documentElement.lang !== 'en') found.push('no language');
for (const name of ['header', 'main', 'nav']) if (!document.querySelector(name)) found.push(`no ${name}`);
const levels = [...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]));
if (levels[0] !== 1 || levels.filter((one) => one === 1).length !== 1) found.push(`h1: ${levels}`);
levels.forEach((one, at) => { if (at && one > levels[at - 1] + 1) found.push(`headings skip: ${levels}`); });
for (const one of document.querySelectorAll('input:not([type=hidden]), select, textarea'))
  if (!one.labels.length || !one.labels[0].textContent.trim()) say('no label', one);
for (const one of document.querySelectorAll('button, a, summary'))
  if (!(one.textContent.trim() || one.getAttribute('aria-label'))) say('no name', one);
for (const one of document.querySelectorAll('table')) if (!one.caption) say('no caption', one);
for (const one of document.querySelectorAll('th')) if (!one.scope) say('no scope', one);
for (const one of document.querySelectorAll('[style], style, script:not([src])')) say('inline', one);
for (const one of document.querySelectorAll('[aria-labelledby], [aria-describedby]'))
  for (const id of (one.getAttribute('aria-labelledby') || one.getAttribute('aria-describedby')).split(' '))
    if (!document.getElementById(id)) say('refers to nothing', one);
const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
ids.forEach((id, at) => { if (ids.indexOf(id) !== at) found.push(`twice: ${id}`); });
const luminance = (color) => {
  const [r, g, b] = color.match(/[\\d.]+/g).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (one) => {
  for (; one; one = one.parentElement) {
    const color = getComputedStyle(one).backgroundColor;
    if (color !== 'rgba(0, 0, 0, 0)') return color;
  }
  return 'rgb(255, 255, 255)';
};
for (const one of document.querySelectorAll('body *')) {
  const hasText = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!hasText || !one.checkVisibility()) continue;
  const [a, b] = [luminance(getComputedStyle(one).color), luminance(behind(one))];
  if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) say('contrast', one);
}
if (document.documentElement.scrollWidth > document.documentElement.clientWidth) found.push('scrolls sideways');
return found;
"""


def check_findings(browser: Browser, expected: list[str]) -> None:
    """What is wrong with the page, once the scheme that was asked for has reached it, which takes a moment."""
    with suppress(pytest.fail.Exception):
        eventually(lambda: browser.script(FINDINGS) == expected)
    assert browser.script(FINDINGS) == expected


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_pages_are_accessible(browser: Browser, stage: Stage, scheme: str, width: int) -> None:
    """Language, landmarks, headings, labels, captions, contrast (WCAG 2.2 AA) and no sideways scrolling at 320 px."""
    with stage.producer as producer, stage.redis as server:
        producer.declare_model("shown")
        producer.submit(model="shown", prompt="x")
        letter = Undertaker(server, "shown").poison()
        job = producer.submit(model="sim", prompt="x", sampling={"max_tokens": 5})
        producer.result(job, timeout_seconds=60)
        cdp = browser.chrome.execute_cdp_cmd
        cdp("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        cdp("Emulation.setDeviceMetricsOverride", size)
        try:
            browser.open(f"{stage.address}/ui/")
            titles = {browser.chrome.title}
            check_findings(browser, ["no nav"])  # the login page has nothing to navigate to
            log_in(browser, stage)
            for path in PAGES:
                browser.open(f"{stage.address}/ui{path.format(job=job.job_id, letter=letter)}")
                check_findings(browser, [])
                titles.add(browser.chrome.title)
            assert len(titles) == 1 + len(PAGES), "every page has a title of its own"
        finally:
            cdp("Emulation.clearDeviceMetricsOverride", {})
            cdp("Emulation.setEmulatedMedia", {"features": []})
            producer.purge_all_dead_letters()


def test_pages_work_without_scripts(stage: Stage, tmp_path: Path) -> None:
    """A prompt that is tried leads to its job's page, which reloads itself until the answer is there."""
    with running_browser(tmp_path, "--blink-settings=scriptEnabled=false") as browser:
        browser.open(f"{stage.open_address}/ui/")
        assert browser.row("sim")["Waiting"] == "0"
        assert not browser.one("#pause").is_displayed()
        browser.press("Try a prompt")
        browser.labelled("Text").send_keys("Once upon a time")
        browser.labelled("Most tokens").clear()
        browser.labelled("Most tokens").send_keys("100")
        browser.press("Send")
        browser.eventually(lambda: browser.heading == "Job", "the job's page")
        browser.eventually(lambda: browser.facts()["State"] == "succeeded", "it reloads until the job is done")
        job_id = browser.facts()["Id"]
        with stage.producer as producer:
            assert browser.one("pre.answer").text == producer.result(job_id).text


def test_a_page_whose_gateway_is_gone_says_so(stage: Stage, chromium: Browser, tmp_path: Path) -> None:
    """To everybody, and keeps what it shows."""
    with running_gateway(stage.fleet.redis_url, tmp_path) as address:
        chromium.open(f"{address}/ui/")
        assert chromium.row("sim")
    chromium.eventually(
        lambda: "does not answer" in str(chromium.script("return document.getElementById('said').textContent")),
        "it is said",
    )
    assert chromium.row("sim")
    chromium.complaints()


def test_a_revoked_key_ends_its_sessions(browser: Browser, stage: Stage) -> None:
    """Within seconds, and the open page goes to the login."""
    with stage.producer as producer:
        secret = producer.create_key("leaving", role=Role.OPERATOR)
        headers = {"Authorization": f"Bearer {secret}"}
        eventually(
            lambda: httpx.get(f"{stage.address}/v1/models", headers=headers, timeout=60).status_code == httpx.codes.OK,
            what="the fresh key is known",
        )
        log_in(browser, stage, secret)
        producer.revoke_key(next(key.key_id for key in producer.api_keys() if key.name == "leaving"))
    browser.eventually(lambda: browser.heading == "Log in", "the session is over")
