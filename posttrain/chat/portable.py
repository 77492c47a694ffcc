"""Chat templates for software that does not know the markers of assistant text."""

from __future__ import annotations

import re

_MARKER = re.compile(r"\{%([-+]?)\s*((?:end)?generation)\s*([-+]?)%\}")


def portable(text: str) -> str:
    """Turn the `{% generation %}` markers of a template into comments, which render the same.

    A comment trims the blanks around it by the same signs and settings as a block does, so not a byte of any
    rendering changes; the markers themselves are an extension that only transformers has.
    """
    return _MARKER.sub(r"{#\1 \2 \3#}", text)
