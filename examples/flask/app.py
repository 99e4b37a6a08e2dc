"""Answers as pages: a form, a page for each answer that fills while it is generated, and a button that cancels it."""

import json
import logging
import os
import uuid
from collections.abc import Iterator

from flask import Blueprint, Flask, Response, current_app, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from producer import (
    FleetError,
    FleetUnreachable,
    InferenceFailed,
    InvalidRequest,
    Producer,
    QueueFull,
    ResultExpired,
    ResultNotReady,
    StreamDelta,
    StreamEnded,
    StreamRestarted,
    UnknownModel,
)

STREAM_SECONDS = float(os.environ.get("STREAM_SECONDS", "50"))
"""A stream holds a thread: it ends after this long, and a browser that is still there comes back by itself."""

log = logging.getLogger(__name__)
answers = Blueprint("answers", __name__)


def create_app() -> Flask:
    """The app and its producer: one for all threads of a process.

    It connects when it is first used, and a process that is forked later makes connections of its own.
    """
    app = Flask(__name__)
    app.config["MODEL"] = os.environ["FLEET_MODEL"]
    app.extensions["producer"] = Producer(os.environ.get("FLEET_REDIS_URL", "redis://127.0.0.1:6379/0"))
    app.register_blueprint(answers)
    app.register_error_handler(FleetError, refuse)
    return app


def fleet() -> Producer:
    """The app's producer."""
    producer: Producer = current_app.extensions["producer"]
    return producer


@answers.get("/")
def form() -> Response:
    """An empty form with a key of its own: sent twice, it is one job."""
    page = Response(render_template("ask.html", key=uuid.uuid4()))
    page.headers["Cache-Control"] = "no-store"  # the back button brings a form with another key
    return page


@answers.post("/answers")
def ask() -> AnyResponse:
    """Queue the question and send the browser to its page."""
    prompt = request.form["prompt"].strip()
    if not prompt:
        raise InvalidRequest("Please ask something.")
    job = fleet().submit(
        model=current_app.config["MODEL"],
        messages=[{"role": "user", "content": prompt}],
        sampling={"max_tokens": 512},
        priority="interactive",
        stream=True,
        idempotency_key=request.form["key"],
    )
    return redirect(url_for("answers.look", job_id=job.job_id), code=303)


@answers.get("/answers/<job_id>")
def look(job_id: str) -> str:
    """The page of an answer, as far as it is known."""
    status = fleet().status(job_id)
    try:
        text = fleet().result(job_id, timeout_seconds=0).text
    except ResultNotReady:
        return render_template("answer.html", job_id=job_id, state=status.state, is_open=True)
    except InferenceFailed as error:
        return render_template("answer.html", job_id=job_id, state=error.code)
    return render_template("answer.html", job_id=job_id, state="succeeded", text=text)


@answers.get("/answers/<job_id>/events")
def follow(job_id: str) -> Response:
    """Events ``delta``, ``restarted`` (forget all text so far), ``ended`` and ``failed``."""
    fleet().status(job_id)  # 404 and 503 are said here: later the status was sent already
    told = events(fleet(), job_id, after=request.headers.get("Last-Event-ID", ""))
    return Response(told, mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


def events(producer: Producer, job_id: str, after: str) -> Iterator[str]:
    """What the job says from the position ``after`` on, as server-sent events."""
    yield "retry: 1000\n\n"  # sends the headers, too
    try:
        for event in producer.stream(job_id, after=after, timeout_seconds=STREAM_SECONDS):
            match event:
                case StreamDelta(position, choices):
                    yield server_sent("delta", {"text": choices[0].text}, position)
                case StreamRestarted(position):
                    yield server_sent("restarted", {}, position)
                case StreamEnded(position):
                    yield server_sent("ended", {}, position)
    except (ResultNotReady, FleetUnreachable):
        return  # the browser comes back with the id of the last event that it has
    except FleetError as error:
        yield server_sent("failed", {"message": refusal(error)[1]})


def server_sent(name: str, data: dict[str, str], position: str = "") -> str:
    """One event (HTML standard, section 9.2); JSON has no line breaks that would end it early."""
    event_id = f"id: {position}\n" if position else ""
    return f"{event_id}event: {name}\ndata: {json.dumps(data)}\n\n"


@answers.post("/answers/<job_id>/cancel")
def cancel(job_id: str) -> AnyResponse:
    """Stop it, queued or running; what has ended stays."""
    fleet().cancel(job_id)
    return redirect(url_for("answers.look", job_id=job_id), code=303)


def refuse(error: FleetError) -> tuple[str, int, dict[str, str]]:
    """Everything that the fleet raises and no view above expects."""
    status, sentence = refusal(error)
    if status >= 500:
        log.error("%s: %s", type(error).__name__, error)
    return render_template("refused.html", sentence=sentence), status, {"Retry-After": "30"} if status == 503 else {}


def refusal(error: FleetError) -> tuple[int, str]:
    """Status and sentence for the visitor. The errors' own words are the operator's: they name addresses and models."""
    match error:
        case InvalidRequest():
            return 400, str(error)
        case ResultExpired():
            return 404, "There is no such answer, or not any more."
        case QueueFull():
            return 503, "Too many questions are waiting. Please try again in a minute."
        case UnknownModel() | FleetUnreachable():
            return 503, "No questions are taken at the moment. Please try again in a minute."
        case InferenceFailed():
            return error.code.http_status, f"There is no answer: {error.code}."
    return 500, "Something went wrong."
