"""What the layers under older module names have in common."""

from __future__ import annotations


class OlderParameters:
    """Goes on with a param_str that names parameters which the layer does not have.

    The older layers did not look at them, so their prototxts may hold any.
    """

    KNOWN: tuple[str, ...] = ()

    def parse(self, values):
        for name in values:
            if name not in self.KNOWN:
                self.log(f"{self.title}: parameter '{name}' is not used")
        return super().parse({name: values[name] for name in values if name in self.KNOWN})
