"""What mkdocs does beside its plugins: formulas without a script, no word of another host."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</(?:span|div)>', re.DOTALL
)


def on_page_content(text, **_):
    """TeX to MathML, which browsers draw by themselves."""

    def mathml(found):
        display = "block" if found.group(2) == "[" else "inline"
        return convert(html.unescape(found.group(3)), display=display)

    return FORMULA.sub(mathml, text)
