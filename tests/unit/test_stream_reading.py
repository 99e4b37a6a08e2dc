"""What a reader is told, from entries and a result made by hand."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer import ChoiceDelta, InvalidRequest, StreamDelta, StreamEnded, StreamRestarted
from producer.contract import Choice, GenerationResult, Timings, TokenLogprob, Usage
from producer.stream_entries import RESTARTED, Piece, encode
from producer.stream_reading import StreamEvent, StreamReading

WORDS = ("the", " answer", " is", " forty", "-two")
LOGPROBS = tuple(TokenLogprob(token=word, token_id=number, logprob=-1.0) for number, word in enumerate(WORDS))


def entries(*words: str, finish_reason: str | None = None) -> list[bytes]:
    """One entry for each word, a token each."""
    pieces = []
    for number, word in enumerate(words):
        at = sum(map(len, words[:number]))
        reason = finish_reason if number == len(words) - 1 else None
        pieces.append(Piece(0, at, word, number, (number,), reason))
    return [encode([piece], 7) for piece in pieces]


def result(*texts: str, logprobs: tuple[TokenLogprob, ...] | None = None) -> GenerationResult:
    """The answer with these choices."""
    choices = tuple(
        Choice(index=index, text=text, token_count=9, finish_reason="length", logprobs=logprobs)
        for index, text in enumerate(texts)
    )
    usage, timings = Usage(prompt_tokens=7, completion_tokens=9), Timings(total_seconds=1)
    return GenerationResult(id="j", model="m", choices=choices, usage=usage, timings=timings, worker="w")


def heard(events: Iterable[StreamEvent], text: str = "") -> str:
    """What a client that does as it is told has in the end, of the first choice."""
    for event in events:
        if isinstance(event, StreamRestarted):
            text = ""
        if isinstance(event, StreamDelta):
            text += "".join(delta.text for delta in event.choices if delta.index == 0)
    return text


def test_each_entry_is_a_delta_and_the_result_the_end() -> None:
    """With a position after each; nothing is told twice."""
    reading = StreamReading()
    told = [*reading.entries(entries(*WORDS, finish_reason="length")), *reading.end(result("".join(WORDS)))]
    assert [event.position for event in told] == ["0-3", "0-10", "0-13", "0-19", "0-23", "0-23"]
    assert isinstance(told[-1], StreamEnded)
    assert told[-2] == StreamDelta("0-23", (ChoiceDelta(0, "-two", "length"),))


def test_what_no_entry_said_comes_from_the_result() -> None:
    """The last words of an answer, or all of one that was not streamed."""
    whole = result("".join(WORDS), logprobs=LOGPROBS)
    reading = StreamReading()
    first, *rest = [*reading.entries(entries("the")), *reading.end(whole)]
    assert first == StreamDelta("0-3", (ChoiceDelta(0, "the"),))
    assert rest[0] == StreamDelta("0-23", (ChoiceDelta(0, " answer is forty-two", "length", LOGPROBS),))
    assert heard(StreamReading().end(whole)) == "".join(WORDS)


def test_an_entry_that_was_written_twice_is_told_once() -> None:
    """Its writer did not hear the server's reply."""
    one, two, *_ = entries(*WORDS)
    assert heard(StreamReading().entries([one, two, one, two])) == "the answer"
    both = encode([Piece(0, 0, "the answer is", 0, (0, 1, 2), None, LOGPROBS[:3])], 7)
    *_, last = StreamReading().entries([one, two, both])
    assert last == StreamDelta("0-13", (ChoiceDelta(0, " is", None, LOGPROBS[2:3]),))


def test_behind_a_gap_the_reader_waits_for_the_result() -> None:
    """The stream was cut to its greatest length."""
    reading = StreamReading()
    one, _, three, *_ = entries(*WORDS)
    assert heard(reading.entries([one, three])) == "the"
    assert heard(reading.end(result("".join(WORDS))), "the") == "".join(WORDS)


def test_a_restart_is_told_once_and_what_follows_is_the_new_attempts() -> None:
    """No text of the first is among it."""
    reading = StreamReading()
    told = [*reading.entries(entries("one", " two")), *reading.entries([RESTARTED, *entries("first", " second")])]
    assert [type(event) for event in told] == [StreamDelta, StreamDelta, StreamRestarted, StreamDelta, StreamDelta]
    assert told[2] == StreamRestarted("1-0")
    assert heard([*told, *reading.end(result("first second third"))]) == "first second third"


def test_who_begins_after_a_restart_hears_nothing_of_what_was_given_up() -> None:
    """OpenAI's protocol can not take text back: with it, every repeat of a request would fail as the first one did."""
    reading = StreamReading()
    stored = [*entries("one"), RESTARTED, *entries("uno"), RESTARTED, *entries("first", " second")]
    told = [*reading.entries(stored), *reading.end(result("first second third"))]
    assert [type(event) for event in told] == [StreamDelta, StreamDelta, StreamDelta, StreamEnded]
    assert [event.position for event in told] == ["2-5", "2-12", "2-18", "2-18"]
    assert heard(told) == "first second third"
    [restarted, *_] = StreamReading("0-3").entries(stored)
    assert restarted == StreamRestarted("1-0")
    assert heard(StreamReading("2-5").entries(stored), "first") == "first second"


def test_a_restart_that_no_entry_told_shows_in_the_result() -> None:
    """The last entries had expired, or were never read."""
    reading = StreamReading()
    told = [*reading.entries(entries("one", " two")), *reading.end(result("first second"))]
    assert [type(event) for event in told][2:] == [StreamRestarted, StreamDelta, StreamEnded]
    assert heard(told) == "first second"


def test_two_choices_have_a_position_each() -> None:
    """Also while only one of them has begun."""
    reading = StreamReading()
    [event] = reading.entries([encode([Piece(1, 0, "other", 0, (1,))], 7)])
    assert event.position == "0-0.5"
    rest = [*StreamReading("0-0.5").entries([encode([Piece(1, 0, "other", 0, (1,))], 7)])]
    assert rest == []
    ended = [*reading.end(result("one", "other two"))]
    assert ended[0] == StreamDelta("0-3.9", (ChoiceDelta(0, "one", "length"), ChoiceDelta(1, " two", "length")))


@given(
    words=st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=8),
    void=st.lists(st.text(min_size=1, max_size=4), max_size=4),
    left=st.data(),
)
def test_whoever_leaves_and_comes_back_has_the_whole_answer(
    words: list[str], void: list[str], left: st.DataObject
) -> None:
    """Wherever it left, with an attempt before that was given up or not, from the entries and from the result."""
    stream = [*entries(*void), RESTARTED, *entries(*words)] if void else entries(*words)
    whole = result("".join(words))
    reading = StreamReading()
    events = [event for entry in stream for event in reading.entries([entry])]
    count = left.draw(st.integers(0, len(events)))
    seen, text = events[:count], heard(events[:count])
    position = seen[-1].position if seen else ""
    again = StreamReading(position)
    assert heard([*again.entries(stream), *again.end(whole)], text) == "".join(words)
    late = StreamReading(position)
    assert heard(late.end(whole), text) == "".join(words)


@pytest.mark.parametrize("position", ["x", "0", "0-", "-1", "0-1.", "0-1-2", "0-\u0661"])
def test_a_position_that_is_none_is_refused(position: str) -> None:
    """With what to give instead."""
    with pytest.raises(InvalidRequest, match="give back what an event of it said"):
        StreamReading(position)
