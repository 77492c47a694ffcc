"""The chain of stages: which there are, what is built already, and building the rest."""

from __future__ import annotations

from posttrain.stages.context import Context
from posttrain.stages.graph import Stage, chain
from posttrain.stages.manifest import MANIFEST, Manifest
from posttrain.stages.runner import Done, run, survey
from posttrain.stages.status import StageStatus

__all__ = ["MANIFEST", "Context", "Done", "Manifest", "Stage", "StageStatus", "chain", "run", "survey"]
