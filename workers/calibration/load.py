"""A short saturating load on one engine: a closed loop of random jobs, as text, so that tokenizing counts too."""

import asyncio
import itertools
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from producer.contract import GenerationRequest, SamplingOptions
from workers.engine.base import Engine, EngineRequest
from workers.engine.entrance import NO_PATIENCE, Patience
from workers.engine.warm_up import PARAGRAPH

PROMPT_TOKENS: Final = (50, 300)
OUTPUT_TOKENS: Final = (32, 512)
PROMPT_SHARE: Final = 4
"""A prompt takes at most one in so many tokens of the context, where that is short; the output at most half."""
WORDS: Final = PARAGRAPH.split()
BYTES_PER_WORD: Final = len(PARAGRAPH) / len(WORDS)


@dataclass(frozen=True, slots=True)
class Phase:
    """When to load the engine, and when to look."""

    start_at: float
    """On the machine's monotonic clock, the same for all engines that take part."""
    ramp_seconds: float
    measured_seconds: float

    @property
    def end_at(self) -> float:
        """When it is over, on the same clock."""
        return self.start_at + self.ramp_seconds + self.measured_seconds


@dataclass(frozen=True, slots=True)
class JobMix:
    """Random greedy jobs of a model that fit into its context; no two alike, so no prefix is cached."""

    model: str
    max_model_len: int
    bytes_per_token: float

    def jobs(self, seed: str) -> Iterator[GenerationRequest]:
        """Without end."""
        draw = random.Random(seed)  # noqa: S311 - prompts, not secrets
        longest_prompt = max(1, min(PROMPT_TOKENS[1], self.max_model_len // PROMPT_SHARE))
        longest_output = max(1, min(OUTPUT_TOKENS[1], self.max_model_len // 2))
        words_per_token = self.bytes_per_token / BYTES_PER_WORD
        while True:
            size_tokens = draw.randint(min(PROMPT_TOKENS[0], longest_prompt), longest_prompt)
            max_tokens = draw.randint(min(OUTPUT_TOKENS[0], longest_output), longest_output)
            yield GenerationRequest(
                model=self.model,
                prompt=" ".join(draw.choices(WORDS, k=max(1, int(size_tokens * words_per_token)))),
                sampling=SamplingOptions(temperature=0.0, ignore_eos=True, max_tokens=max_tokens),
            )


class Load:
    """One phase on one engine, as full as a worker keeps it: a job per sequence, the next ones in groups."""

    def __init__(self, engine: Engine, mix: JobMix, phase: Phase, patience: Patience) -> None:
        self._engine = engine
        self._patience = patience
        self._phase = phase
        self._name = f"calibration-{os.getpid()}-{phase.start_at}"
        self._jobs = mix.jobs(self._name)
        self._numbers = itertools.count()
        self._answered_tokens = 0

    async def tokens_per_second(self) -> float:
        """Output tokens per second between the end of the ramp and the end of the phase.

        Raises:
            EngineError: a job failed; no figure comes of an engine that does not answer.
        """
        await asyncio.sleep(self._phase.start_at - time.monotonic())
        count = self._engine.capacity().max_num_seqs
        lanes = [asyncio.create_task(self._lane((number + 1) / count)) for number in range(count)]
        try:
            await _unless_one_fails(lanes, self._phase.ramp_seconds)
            began, before = time.monotonic(), self._tokens()
            await _unless_one_fails(lanes, self._phase.measured_seconds)
            return (self._tokens() - before) / (time.monotonic() - began)
        finally:
            for lane in lanes:
                lane.cancel()  # an engine takes a cancelled consumer for an abort
            await asyncio.gather(*lanes, return_exceptions=True)

    def _tokens(self) -> int:
        counted = self._engine.generated_tokens()
        return self._answered_tokens if counted is None else counted

    async def _lane(self, first_share: float) -> None:
        """One job after another; the first is cut to a share, so that from the start jobs end evenly and not in waves.

        Raises:
            EngineError: one failed.
        """
        share, patience = first_share, NO_PATIENCE
        while True:
            job = next(self._jobs)
            sampling = job.sampling.model_copy(
                update={"max_tokens": max(1, int((job.sampling.max_tokens or 1) * share))}
            )
            attempt = EngineRequest(
                f"{self._name}-{next(self._numbers)}",
                job.model_copy(update={"sampling": sampling}),
                patience=patience,
            )
            async for increment in self._engine.generate(attempt):
                self._answered_tokens += sum(choice.token_count for choice in increment.choices)
            share, patience = 1.0, self._patience


async def _unless_one_fails(lanes: Sequence["asyncio.Task[None]"], seconds: float) -> None:
    ended, _ = await asyncio.wait(lanes, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for lane in ended:
        lane.result()
