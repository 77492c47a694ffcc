"""Loads the language identifier when it is imported, for processes to be forked from the one that did.

Where heliport is missing nothing is loaded: the step that needs it says so.
"""

from __future__ import annotations

from posttrain.data.steps.identifier import identifier, is_installed

if is_installed():
    identifier()
