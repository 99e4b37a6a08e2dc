"""In which order a queue is drained: what all workers of a queue should agree on, and what one of them has room for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from producer.contract import Priority

UNKNOWN_OUTPUT_TOKENS: Final = 512
"""What a job is expected to write before any has ended, should its ``max_tokens`` allow more."""
BYTES_PER_TOKEN: Final = 4.0
"""Of a prompt whose tokens nobody has counted yet; English text has about as many."""

MAX_MESSAGE_BYTES: Final = 20 * 1024 * 1024
"""Of a message in the queue. What the contract takes (``producer.contract``) needs less than 17 MiB, however a sender
escapes and encodes it."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What a lane is due while a more urgent one has jobs too: whichever comes first gives it the next job."""

    share: float
    """Of the jobs claimed from more urgent lanes: 1/8 is one job of this lane after eight of theirs."""
    patience_seconds: float
    """Since the lane had its last job, or began to wait."""


LANE_TURNS: Final[Mapping[Priority, Turns]] = {
    Priority.INTERACTIVE: Turns(0.0, 0.0),
    Priority.NORMAL: Turns(1 / 8, 10.0),
    Priority.BATCH: Turns(1 / 32, 60.0),
    Priority.BACKGROUND: Turns(1 / 128, 300.0),
}


@dataclass(frozen=True, slots=True)
class DrainPolicy:
    """Bounds on who goes before whom."""

    lane_turns: Mapping[Priority, Turns] = field(default_factory=lambda: dict(LANE_TURNS))
    deadline_horizon_seconds: float = 30.0
    """A job whose deadline is nearer than this goes before others of its lane."""
    prefix_window_seconds: float = 60.0
    """For its prompt prefix's sake a job goes only before such as came at most this much before it; 0: before none."""
    lead_tokens: int = 65_536
    """How far beyond its share, in tokens over its weight, a tenant may get for the sake of a deadline or a prefix."""
    max_message_bytes: int = MAX_MESSAGE_BYTES
    """A larger message is refused where it lies: no worker reads it."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a consumer has room for, and what it knows of its jobs."""

    reserved_slots: int = 0
    """Of its free slots, those for the most urgent lane alone."""
    takes_urgent: bool = True
    """Whether it takes jobs of that lane at all."""
    tokens: int | None = None
    """Tokens whose KV cache fits beside what it holds; None: no bound."""
    block_tokens: int = 1
    """The cache is given out in blocks of so many."""
    bytes_per_token: float = BYTES_PER_TOKEN
    """Of prompts, as it has seen them."""
    output_tokens: int = UNKNOWN_OUTPUT_TOKENS
    """What it expects a job to write at most, however much its ``max_tokens`` allow."""
    recent_prefixes: tuple[str, ...] = ()
    """What it ran lately, the latest first: each a tenant and a prefix, as :class:`Place` has them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message waited; ``producer/flows.lua`` says how this is written."""

    text: str

    @property
    def step(self) -> int:
        """Celery's priority of the lane."""
        return int(self.text.partition("|")[0])

    @property
    def is_flow(self) -> bool:
        """Whether it is more than the lane's list."""
        return "|" in self.text

    @property
    def prefix(self) -> str:
        """Tenant and prompt prefix, as claims name them; empty for a job that shares none."""
        if not self.is_flow:
            return ""
        _, tenant, *_, prefix = self.text.split("|")
        return prefix and f"{tenant}|{prefix}"

    @property
    def prompt_bytes(self) -> int | None:
        """Size of the prompt; None for one that came as tokens."""
        size = self.text.split("|")[3]
        return int(size) if size.isdigit() else None


def options_json(policy: DrainPolicy, room: Room) -> str:
    """What ``drain.lua`` calls its options."""
    return json.dumps(
        {
            "lane_shares": [policy.lane_turns[lane].share for lane in Priority],
            "lane_patience": [policy.lane_turns[lane].patience_seconds for lane in Priority],
            "deadline_horizon": policy.deadline_horizon_seconds,
            "prefix_window": policy.prefix_window_seconds,
            "lead_tokens": policy.lead_tokens,
            "bytes_per_token": room.bytes_per_token,
            "output_tokens": room.output_tokens,
            "room_tokens": -1 if room.tokens is None else max(0, room.tokens),
            "block_tokens": room.block_tokens,
            "recent": room.recent_prefixes,
            "skips_urgent": not room.takes_urgent,
            "max_message_bytes": policy.max_message_bytes,
        }
    )
