"""A row of the result: ours against one peer, in one unit, and what was promised."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np


@dataclass(frozen=True)
class Row:
    """Ours against a peer.

    what, size: the layer, and its size in words.
    peer: what it is measured against.
    unit: of `ours` and `theirs`, which are medians.
    ratio: the median over the rounds of ours / theirs; spread holds its quartiles.
    promise: the ratio that is promised not to be exceeded, or None.
    threads: of the BLAS.
    missing: why there is no number, where there is none.
    """

    what: str
    size: str
    peer: str
    unit: str = "ms"
    ours: float | None = None
    theirs: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    promise: float | None = None
    threads: int = 1
    missing: str = ""

    @property
    def verdict(self) -> str:
        """kept, BROKEN, not measured; or nothing, where nothing is promised."""
        if self.ratio is None:
            return "not measured"
        if self.promise is None:
            return ""
        return "kept" if self.ratio <= self.promise else "BROKEN"


@dataclass(frozen=True)
class Point:
    """A point of a curve: how the cost of something grows."""

    plot: str  # what the curves of a picture have in common
    curve: str
    axis: str  # what x is
    x: float
    unit: str
    y: float


@dataclass
class Result:
    """What a case gives."""

    rows: list[Row] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def as_dict(self) -> dict:
        """For JSON."""
        rows = [{**asdict(row), "verdict": row.verdict} for row in self.rows]
        return {"rows": rows, "points": [asdict(point) for point in self.points]}

    @classmethod
    def of(cls, values: dict) -> Result:
        """The inverse of as_dict."""
        rows = [{key: row[key] for key in row if key != "verdict"} for row in values["rows"]]
        return cls([Row(**row) for row in rows], [Point(**point) for point in values["points"]])


def timed_row(what, size, times, ours, peer, promise=None, threads=1, scale=1.0) -> Row:
    """The row of two contenders that were timed in the same rounds; the peer's time * scale."""
    rounds = min(len(times[ours]), len(times[peer]))
    theirs = scale * times[peer]
    ratios = times[ours][:rounds] / theirs[:rounds]
    low, high = np.quantile(ratios, [0.25, 0.75])
    return Row(
        what=what,
        size=size,
        peer=peer,
        ours=1e3 * float(np.median(times[ours])),
        theirs=1e3 * float(np.median(theirs)),
        ratio=float(np.median(ratios)),
        spread=(float(low), float(high)),
        promise=promise,
        threads=threads,
    )
