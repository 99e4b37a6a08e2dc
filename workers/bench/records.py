"""What a driver tells of a pass: one record per job, in seconds since the epoch by the machine's one clock."""

from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(slots=True)
class JobRecord:
    """How one job went."""

    index: int
    submitted_at: float
    """Before the call that hands it in."""
    ended_at: float = 0.0
    """Its result is in the caller's hands."""
    first_token_at: float | None = None
    """Its first token exists in the process that generates; None where the driver cannot tell."""
    prompt_tokens: int = 0
    output_tokens: int = 0
    failure: str = ""
    """Why it was not answered; empty when it was."""

    @property
    def end_to_end_seconds(self) -> float:
        """From before the call that hands it in until its result is in the caller's hands."""
        return self.ended_at - self.submitted_at

    @property
    def first_token_seconds(self) -> float | None:
        """From before the call that hands it in until its first token exists."""
        return None if self.first_token_at is None else self.first_token_at - self.submitted_at


@dataclass(slots=True)
class PassRecord:
    """How one pass went."""

    records: list[JobRecord]
    handed_in_at: float
    """When every job at 0 seconds had been handed in."""
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """CPU time that each of the driver's parts spent during the pass."""

    @property
    def answered(self) -> list[JobRecord]:
        """The jobs that have a result."""
        return [record for record in self.records if not record.failure]

    @property
    def wall_seconds(self) -> float:
        """From the first submit until the last result is in the caller's hands."""
        return max(r.ended_at for r in self.records) - min(r.submitted_at for r in self.records)

    @classmethod
    def parsed(cls, fields: dict[str, Any]) -> Self:
        """From its JSON form."""
        return cls(**fields | {"records": [JobRecord(**record) for record in fields["records"]]})
