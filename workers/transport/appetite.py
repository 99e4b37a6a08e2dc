"""How much this process may claim: slots and KV cache, and what its jobs so far say about the size of the next ones."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from workers.transport.claimed import ClaimedMessage
from workers.transport.drain_policy import BYTES_PER_TOKEN, UNKNOWN_OUTPUT_TOKENS, Room

KV_CACHE_SHARE: Final = 0.95
"""Of the KV cache; the rest is for estimates that were too low."""
FULL_MEMORY_SECONDS: Final = 1.0
"""So long a queue counts as having more than fits, since a claim found it so; claims of a busy worker come oftener."""
RECENT_PREFIXES: Final = 8
REMEMBERED_JOBS: Final = 256
LEAST_JOBS: Final = 16
"""Ended jobs from which on their outputs tell how long the next ones are."""
OUTPUT_QUANTILE: Final = 0.95
LEAST_PROMPT_BYTES: Final = 256
"""Of prompts that say something about others."""
PROMPT_MEMORY: Final = 0.9
"""Of what was known of bytes per token before a job ended; the rest is that job's."""


class Appetite:
    """Thread-safe: claims are the hub's, ends are the finishers'.

    Args:
        kv_cache_tokens: what the engine has room for; None: not known, and no bound.
        block_tokens: the blocks that it is given out in.
        reserved_slots: slots for the most urgent lane alone.
    """

    def __init__(self, kv_cache_tokens: int | None = None, block_tokens: int = 1, reserved_slots: int = 0) -> None:
        self.reserved_slots = reserved_slots
        self.takes_urgent = True
        """Whether jobs of the most urgent lane are taken at all."""
        self._kv_cache_tokens = None if kv_cache_tokens is None else int(kv_cache_tokens * KV_CACHE_SHARE)
        self._block_tokens = block_tokens
        self._bytes_per_token = BYTES_PER_TOKEN
        self._output_tokens = UNKNOWN_OUTPUT_TOKENS
        self._outputs: deque[int] = deque(maxlen=REMEMBERED_JOBS)
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._full_until = 0.0
        self._lock = threading.Lock()

    def room(self, held_tokens: int) -> Room:
        """What fits beside jobs of so many tokens."""
        with self._lock:
            return Room(
                reserved_slots=self.reserved_slots,
                takes_urgent=self.takes_urgent,
                tokens=None if self._kv_cache_tokens is None else max(0, self._kv_cache_tokens - held_tokens),
                block_tokens=self._block_tokens,
                bytes_per_token=self._bytes_per_token,
                output_tokens=self._output_tokens,
                recent_prefixes=tuple(reversed(self._recent)),
            )

    def met_full_memory(self) -> None:
        """There was no memory for what is next in the queue."""
        self._full_until = time.monotonic() + FULL_MEMORY_SECONDS

    @property
    def is_memory_full(self) -> bool:
        """Whether that was so a moment ago: what ends is replaced by what waited for its memory."""
        return time.monotonic() < self._full_until

    def took(self, messages: Iterable[ClaimedMessage]) -> None:
        """These were claimed: their prefixes are in the engine's cache now."""
        with self._lock:
            for message in messages:
                if prefix := message.place.prefix:
                    self._recent[prefix] = None
                    self._recent.move_to_end(prefix)
            while len(self._recent) > RECENT_PREFIXES:
                self._recent.popitem(last=False)

    def learn(self, prompt_bytes: int | None, prompt_tokens: int, output_tokens: int) -> None:
        """A job ended, and this is what it was; ``prompt_bytes`` is None for one that came as tokens."""
        with self._lock:
            if prompt_bytes and prompt_bytes >= LEAST_PROMPT_BYTES and prompt_tokens:
                seen = prompt_bytes / prompt_tokens
                self._bytes_per_token = PROMPT_MEMORY * self._bytes_per_token + (1 - PROMPT_MEMORY) * seen
            self._outputs.append(output_tokens)
            if len(self._outputs) >= LEAST_JOBS:
                ordered = sorted(self._outputs)
                self._output_tokens = max(1, ordered[int(len(ordered) * OUTPUT_QUANTILE)])

    def calibrate(self, bytes_per_token: float) -> None:
        """What the engine's tokenizer makes of text like any other, before the first job."""
        with self._lock:
            self._bytes_per_token = bytes_per_token
