"""What became of each layer, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass

CHANGED, STAYS, REFUSED = "changed", "stays", "refused"


@dataclass(frozen=True)
class Line:
    """A line of the report.

    line: where the layer stands in the old net. layer: its name, "" for the net itself. verdict:
    CHANGED, STAYS or REFUSED.
    """

    line: int
    layer: str
    was: str
    now: str
    why: str
    verdict: str

    def __str__(self) -> str:
        why = f" ({self.why})" if self.why else ""
        return f"{self.line} {self.layer or '-'}: {self.was} -> {self.now}{why}"

    def as_json(self) -> dict:
        return asdict(self)
