"""Loads the language identifier when it is imported, for processes to be forked from the one that did.

Where heliport is missing nothing is loaded: the step that needs it says so.
"""

from __future__ import annotations

from importlib.util import find_spec

from posttrain.data.steps.identifier import identifier

if find_spec("heliport") is not None:
    identifier()
