"""Figures, the bars for them, and tables of both."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, NamedTuple

from benchmarks.contenders import DRIVER, ENGINE, Contender

# Seconds, one figure for each round.
Rounds = list[float]


class Ratio(NamedTuple):
    """The ratio of two contenders: the median of all rounds, and the quartiles around it."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, rounds: Rounds, others: Rounds) -> "Ratio":
        ratios = [one / other for one, other in zip(rounds, others, strict=True)]
        return cls(*quantiles(ratios, n=4, method="inclusive"))

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f}-{self.high:.2f})"


class Bar(NamedTuple):
    """A bar: at most ``limit`` times what another contender on the same store takes."""

    limit: float
    other: dict[str, Contender]  # DRIVER or ENGINE


class Verdict(NamedTuple):
    what: str
    limit: float
    found: float
    judged: bool = True
    at_least: bool = False

    @property
    def missed(self) -> bool:
        met = self.found >= self.limit if self.at_least else self.found <= self.limit
        return self.judged and not met

    @property
    def bar(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:.3g}"

    def __str__(self) -> str:
        outcome = "**missed**" if self.missed else "met" if self.judged else "not judged"
        return f"{self.bar} {outcome}"


@dataclass
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)  # for --json

    def __str__(self) -> str:
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([f"### {self.title}", table, *self.notes]) + "\n"


def compare(
    title: str,
    rounds: Mapping[Contender, Rounds],
    bars: Mapping[Contender, list[Bar]],
    pinned: bool,
    absent: Mapping[Contender, str],
) -> Table:
    """Return a table of times, compared with the driver and Django's engine on the same store."""
    table = Table(title, ["", "µs", "to the driver", "to Django's engine", "bar"])
    for contender, own in rounds.items():
        ratios = {}
        for others in (DRIVER, ENGINE):
            if (other := others[contender.store]) in rounds:
                ratios[other] = Ratio.of(own, rounds[other])
        verdicts = []
        for bar in bars.get(contender, []):
            other = bar.other[contender.store]
            what = f"{title}: {contender.name} to {other.name}"
            # If the scheduler chooses the cores, the time of a round trip doubles, or does not.
            judged = pinned or bar.other is not DRIVER
            verdicts.append(Verdict(what, bar.limit, ratios[other].middle, judged))
        table.rows.append(
            [
                contender.name,
                f"{median(own) * 1e6:,.0f}",
                *[str(ratios.get(others[contender.store], "")) for others in (DRIVER, ENGINE)],
                ", ".join(map(str, verdicts)),
            ]
        )
        table.verdicts += verdicts
        table.figures[contender.name] = own
    for contender, problem in absent.items():
        table.rows.append([contender.name, f"cannot be used here: {problem}", "", "", ""])
    return table
