"""Releases checked by whoever has them: digests, signature, the chain of manifests, and the same build once more."""

from __future__ import annotations
