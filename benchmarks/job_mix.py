"""A mixed job set from a fixed seed: greedy jobs of many lengths and parameters, none like its neighbour."""

import random
from collections.abc import Iterator

from producer import ChatMessage, GenerationRequest, SamplingOptions

WORDS = [
    "queue",
    "worker",
    "engine",
    "token",
    "prompt",
    "answer",
    "batch",
    "lane",
    "lease",
    "result",
    "river",
    "mountain",
    "city",
    "night",
    "morning",
    "letter",
    "number",
    "story",
    "question",
    "window",
    "table",
    "garden",
    "paper",
    "music",
    "water",
    "light",
    "stone",
    "bridge",
    "voice",
    "road",
    "winter",
    "summer",
]


def mixed_jobs(count: int, model: str, *, longest_output_tokens: int, seed: int = 7) -> Iterator[GenerationRequest]:
    """``count`` greedy jobs: raw prompts, chats and token ids; penalties, stops and lengths all mixed.

    Each asks for the log probability of its tokens, so that the result tells token ids and not only text.
    """
    draw = random.Random(seed)  # noqa: S311 - a repeatable mix, not a secret
    for number in range(count):
        text = " ".join(draw.choices(WORDS, k=draw.randint(3, 120)))
        options = {
            "temperature": 0.0,
            "max_tokens": draw.randint(1, longest_output_tokens),
            "ignore_eos": draw.choice([True, True, False]),
            "logprobs": 0,
            "presence_penalty": draw.choice([None, None, 0.4]),
            "repetition_penalty": draw.choice([None, None, 1.1]),
            "stop": draw.choice([None, None, None, ("the",), ("e", "\n\n")]),
        }
        sampling = SamplingOptions.model_validate(options)
        match number % 4:
            case 0:
                messages = (ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content=text))
                yield GenerationRequest(model=model, messages=messages, sampling=sampling)
            case 1:
                ids = tuple(draw.randint(3, 250) for _ in range(draw.randint(2, 200)))
                yield GenerationRequest(model=model, prompt_token_ids=ids, sampling=sampling)
            case _:
                yield GenerationRequest(model=model, prompt=text, sampling=sampling)
