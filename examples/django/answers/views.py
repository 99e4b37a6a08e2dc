"""A form, a page for each answer that fills while it is generated, and a button that cancels it."""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import aget_object_or_404, get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from answers.fleet import async_producer, producer
from answers.forms import QuestionForm
from answers.models import Question
from answers.refusals import refusal
from producer import (
    FleetError,
    FleetUnreachable,
    InvalidRequest,
    ResultNotReady,
    StreamDelta,
    StreamEnded,
    StreamRestarted,
)


@never_cache  # the back button brings a form with another key
def ask(request: HttpRequest) -> HttpResponse:
    """The form; when it is sent, queue the question and go to its page."""
    form = QuestionForm(request.POST or None, initial={"key": uuid.uuid4()})
    if form.is_valid():
        try:
            question = asked(form.cleaned_data["prompt"], form.cleaned_data["key"])
        except InvalidRequest as error:
            form.add_error(None, str(error))
        else:
            return redirect(question)
    return render(request, "answers/ask.html", {"form": form}, status=400 if form.errors else 200)


def asked(prompt: str, key: uuid.UUID) -> Question:
    """The question, queued and kept. When keeping it fails, sending the form again finds the same job."""
    job = producer.submit(
        model=settings.FLEET_MODEL,
        messages=[{"role": "user", "content": prompt}],
        sampling={"max_tokens": 512},
        priority="interactive",
        stream=True,
        idempotency_key=str(key),
    )
    question, _ = Question.objects.get_or_create(job_id=uuid.UUID(job.job_id), defaults={"prompt": prompt})
    return question


@require_GET
def look(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """The page of a question."""
    question = get_object_or_404(Question, pk=job_id)
    question.look()
    return render(request, "answers/answer.html", {"question": question})


@require_POST
def cancel(_: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """Stop it, queued or running; what has ended stays."""
    question = get_object_or_404(Question, pk=job_id)
    producer.cancel(str(job_id))
    return redirect(question)


@require_GET
async def follow(request: HttpRequest, job_id: uuid.UUID) -> StreamingHttpResponse:
    """Events ``delta``, ``restarted`` (forget all text so far), ``ended`` and ``failed``."""
    if not isinstance(request, ASGIRequest):
        raise ImproperlyConfigured("streams need an ASGI server: uvicorn webapp.asgi:application")
    await aget_object_or_404(Question, pk=job_id)
    await async_producer.status(str(job_id))  # 503 is said here: later the status was sent already
    told = events(str(job_id), after=request.headers.get("Last-Event-ID", ""))
    return StreamingHttpResponse(told, content_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def events(job_id: str, after: str) -> AsyncIterator[str]:
    """What the job says from the position ``after`` on, as server-sent events."""
    yield "retry: 1000\n\n"
    try:
        async with aclosing(
            async_producer.stream(job_id, after=after, timeout_seconds=settings.STREAM_SECONDS)
        ) as told:
            async for event in told:
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
