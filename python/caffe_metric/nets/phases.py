"""The nets that one net file stands for: phases, levels and stages."""

from __future__ import annotations

from dataclasses import dataclass

TRAIN, TEST = 0, 1
NAMES = ("TRAIN", "TEST")


@dataclass(frozen=True)
class State:
    """A NetState: what a solver, or a command line, asks of a net file."""

    phase: int
    level: int = 0
    stages: frozenset[str] = frozenset()

    def __str__(self) -> str:
        stages = " ".join(sorted(self.stages))
        level = f"level {self.level}" if self.level else ""
        return " ".join(part for part in (NAMES[self.phase], stages, level) if part)


def included(layer, state: State | int) -> bool:
    """Whether the net of a state, or of a phase without level and stages, has the layer."""
    if isinstance(state, int):
        state = State(state)
    if layer.include:
        return any(_meets(rule, state) for rule in layer.include)
    return not any(_meets(rule, state) for rule in layer.exclude)


def _meets(rule, state: State) -> bool:
    if rule.HasField("phase") and rule.phase != state.phase:
        return False
    if rule.HasField("min_level") and state.level < rule.min_level:
        return False
    if rule.HasField("max_level") and state.level > rule.max_level:
        return False
    return state.stages.issuperset(rule.stage) and not state.stages.intersection(rule.not_stage)


def states(layers) -> list[State]:
    """The states in which the layers make different nets: each phase, as it is and with each stage
    and level that a rule names."""
    rules = [rule for layer in layers for rule in [*layer.include, *layer.exclude]]
    stages = sorted({stage for rule in rules for stage in [*rule.stage, *rule.not_stage]})
    levels = {0}
    for rule in rules:
        levels.update([rule.min_level] if rule.HasField("min_level") else [])
        levels.update([rule.max_level + 1] if rule.HasField("max_level") else [])
    return [
        State(phase, level, frozenset(chosen))
        for phase in (TRAIN, TEST)
        for level in sorted(levels)
        for chosen in [(), *((stage,) for stage in stages)]
    ]
