// Pages work without this; with it they refresh in place and show an answer while it is written.
"use strict";

const WRITE_EVERY_MS = 200; // screen readers are told of so many words at once

// ---- what changes by itself ----

const live = document.getElementById("live");
const said = document.getElementById("said");
const pause = document.getElementById("pause");
let refreshTimer = 0;

function say(text) {
  if (said && said.textContent !== text) said.textContent = text;
}

// Put fresh HTML in, and leave scrolled tables, open details and the focus as they are.
function replace(html) {
  const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = [...live.querySelectorAll("[id]")].map((one) => [one.id, one.scrollLeft]);
  const fresh = new DOMParser().parseFromString(html, "text/html");
  live.replaceChildren(...fresh.body.childNodes);
  for (const [id, left] of scrolled) {
    const one = left && document.getElementById(id);
    if (one) one.scrollLeft = left;
  }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function isReading() {
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && live.contains(selection.anchorNode);
}

async function refresh() {
  clearTimeout(refreshTimer);
  if (!document.hidden && !isReading()) {
    try {
      const answer = await fetch(live.dataset.src);
      if (answer.redirected) { // logged out meanwhile
        location.reload();
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const html = await answer.text();
      if (pause?.getAttribute("aria-pressed") === "true") return;
      replace(html);
      say(live.querySelector("[data-said]")?.dataset.said ?? "");
    } catch {
      say("The gateway does not answer; what is shown is old. Trying again.");
    }
  }
  plan();
}

function plan() {
  clearTimeout(refreshTimer);
  if (live.querySelector("[data-final]") || pause?.getAttribute("aria-pressed") === "true") return;
  refreshTimer = setTimeout(refresh, Number(live.dataset.seconds) * 1000);
}

if (live) plan();

if (pause) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    const isPaused = pause.getAttribute("aria-pressed") !== "true";
    pause.setAttribute("aria-pressed", String(isPaused));
    if (!isPaused) refresh();
  });
}

// ---- an answer while it is written ----

const stream = document.getElementById("stream");
const streamState = document.getElementById("stream-state");
let source = null;

function follow(address, onEnd) {
  let unwritten = "";
  let writing = 0;
  const write = () => {
    clearTimeout(writing);
    writing = 0;
    if (unwritten) stream.append(unwritten);
    unwritten = "";
  };
  const end = (text) => {
    source.close();
    write();
    stream.setAttribute("aria-busy", "false");
    streamState.textContent = text;
    onEnd();
  };
  source?.close();
  stream.textContent = "";
  stream.setAttribute("aria-busy", "true");
  streamState.textContent = "Waiting for the first words…";
  source = new EventSource(address);
  source.addEventListener("delta", (event) => {
    for (const choice of JSON.parse(event.data).choices) if (choice.index === 0) unwritten += choice.text;
    writing ||= setTimeout(write, WRITE_EVERY_MS);
    if (streamState.textContent.startsWith("Waiting")) streamState.textContent = "Being written…";
  });
  source.addEventListener("restarted", () => {
    unwritten = "";
    stream.textContent = "";
    streamState.textContent = "The worker died; the answer begins anew.";
  });
  source.addEventListener("ended", (event) => {
    const { usage, timings, choices } = JSON.parse(event.data);
    const seconds = timings.total_seconds.toFixed(2);
    end(`Done: ${usage.completion_tokens} tokens in ${seconds} s, ended by: ${choices[0].finish_reason}.`);
  });
  source.addEventListener("error", (event) => {
    // Either the job's own error, or the connection's: then the browser tries again, unless it was refused.
    if (event.data) end(`It failed: ${JSON.parse(event.data).error.message}`);
    else if (source.readyState === EventSource.CLOSED) end("There is no answer: see the job's page.");
  });
}

if (stream?.dataset.events) follow(stream.dataset.events, refresh);

// ---- the form that tries a prompt ----

const form = document.getElementById("try");

if (form) {
  const problem = document.getElementById("problem");
  const button = form.querySelector("button");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    problem.hidden = true;
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        headers: { Accept: "application/json" },
        body: new URLSearchParams(new FormData(form)),
      });
      const isJson = answer.headers.get("content-type")?.startsWith("application/json");
      const told = isJson ? await answer.json() : {};
      if (!answer.ok || !isJson) throw new Error(told.message ?? "It was refused: reload the page and try again.");
      form.elements.key.value = told.key; // the next sending is another job
      document.getElementById("answer").hidden = false;
      document.getElementById("job-page").href = told.page;
      follow(told.events, () => {});
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    } finally {
      button.disabled = false;
      button.focus();
    }
  });
}
