"""Quantised variants of a checkpoint: GPTQ by GPTQModel, each measured, reloaded and made to generate.

`build` is what the stage calls. All that loads a model runs in processes of its own (`worker`), so that what GPTQModel
logs, keeps in memory or crashes on ends with them.
"""

from __future__ import annotations
