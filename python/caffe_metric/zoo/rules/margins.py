"""Layers that put a margin on the target's logit, each in its fork's words.

A function takes the layer and gives a Margin; what cannot be one raises Refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


class Refused(Exception):
    """Why a layer cannot be rewritten."""


@dataclass
class Margin:
    """angular: added to the target's angle, in radians. cosine: taken from its logit.

    in_test: the margin stands in phase TEST, too. why: what is to be said.
    """

    angular: float = 0.0
    cosine: float = 0.0
    in_test: bool = False
    why: list[str] = field(default_factory=list)


def _checked(margin: Margin) -> Margin:
    if not 0 <= margin.angular < math.pi / 2:
        raise Refused(f"an angular margin of {margin.angular:g}, must be in [0, pi/2)")
    if margin.cosine < 0:
        raise Refused(
            f"adds {-margin.cosine:g} to the target's logit: the margin would help the target"
        )
    return margin


def label_specific_add(message) -> Margin:
    """z_y + bias, where z_y > -bias: Wang et al. 2018 (CosFace, AM-Softmax), with a condition."""
    given = message.label_specific_add_param
    bias, why = given.bias, []
    if given.HasField("bias_base"):
        bias = _final_bias(given)
        why.append(f"an annealed bias: its final value, {bias:g}")
    if bias < 0:
        why.append(
            f"the published code adds the margin only where z_y > {-bias:g}, which is not "
            "in the paper: dropped"
        )
    return _checked(Margin(cosine=-bias, why=why + _no_test(given)))


def _final_bias(given) -> float:
    """The limit of clamp(base + (1 + gamma t)^power - 1, min, max) for many iterations t."""
    gamma, power = given.bias_gamma, given.bias_power
    if gamma == 0 or power == 0:
        end = given.bias_base
    elif power < 0:
        end = given.bias_base - 1
    elif gamma > 0:
        end = math.inf
    elif float(power).is_integer():
        end = given.bias_base + (math.inf if power % 2 == 0 else -math.inf)
    else:
        raise Refused(f"bias_gamma {gamma:g} with bias_power {power:g}: ends as not a number")
    return min(max(end, given.bias_min), given.bias_max)


def _no_test(given) -> list[str]:
    return ["transform_test never had an effect: TEST is without the margin"] * bool(
        given.transform_test
    )


def cosin_add_m(message) -> Margin:
    """cos(theta + m), past pi - m the line c - m sin m: Deng et al. 2018 (ArcFace)."""
    given = message.cosin_add_m_param
    if given.HasField("t"):
        raise Refused(
            "t: the support vector guided softmax weighs the other logits, too; "
            "nearest: MarginInnerProduct with angular_margin, without t"
        )
    return _checked(Margin(angular=given.m, why=_no_test(given)))


def arcface(message) -> Margin:
    """As CosinAddm."""
    given = message.arcface_param
    if not given.HasField("m"):
        raise Refused("m is not set, and its default was never published")
    return _checked(Margin(angular=given.m, why=_no_test(given)))


def combined_margin(message) -> Margin:
    """cos(m1 theta + m2) - m3."""
    given = message.combined_margin_param
    if given.m1 != 1:
        set_or_not = "" if given.HasField("m1") else ", its default"
        raise Refused(
            f"m1 is {given.m1:g}{set_or_not}: there is no layer with cos(m1 theta + m2); "
            "nearest: MarginInnerProduct with m1 1"
        )
    why = [
        "past theta + m2 = pi the published logit rises again or is clamped, here it goes on "
        "falling"
    ]
    return _checked(Margin(given.m2, given.m3, why=why + _no_test(given)))


def label_margin(message) -> Margin:
    """Meant: cos(theta + bias). Published: sin(bias) is computed as cos(bias)."""
    given = message.label_margin_param
    why = [
        "as it was meant: the published code takes cos for sin, and its GPU gradient has the "
        "wrong sign"
    ]
    if not 0 < given.bias < math.pi / 2:
        raise Refused(f"bias is {given.bias:g}, must be an angle in (0, pi/2)")
    return _checked(Margin(angular=given.bias, why=why + _no_test(given)))


def label_specific_margin(message) -> Margin:
    """HARD: cos(theta + margin), the margin in degrees."""
    given = message.label_specific_margin_param
    if given.type != 0:
        raise Refused(
            "type SOFT is cos(margin * theta) for any margin; nearest: "
            "MarginInnerProduct with type DOUBLE, TRIPLE or QUADRUPLE"
        )
    if given.auto_tune:
        raise Refused("auto_tune: the margin follows the angles of the batch")
    degrees, why = given.margin_base, []
    if given.gamma != 0 and given.power != 0:
        if given.gamma < 0 or given.power < 0:
            raise Refused(f"gamma {given.gamma:g} and power {given.power:g}: a margin that falls")
        degrees = given.margin_max
        why.append(f"an annealed margin: its final value, margin_max {degrees:g}")
    if given.margin_base > given.margin_max:
        raise Refused(
            f"margin_base {given.margin_base:g} is above margin_max "
            f"{given.margin_max:g}: set margin_max to the margin that is meant"
        )
    why.insert(0, f"{degrees:g} degrees")
    if given.pass_bp:
        why.append("pass_bp goes: the gradient is that of the forward pass")
    return _checked(Margin(math.radians(degrees), in_test=given.margin_on_test, why=why))


MARGINS = {
    "LabelSpecificAdd": label_specific_add,
    "CosinAddm": cosin_add_m,
    "Arcface": arcface,
    "CombinedMargin": combined_margin,
    "LabelMargin": label_margin,
    "LabelSpecificMargin": label_specific_margin,
}
