"""What a stage was built with: packages, commit and hardware, found out without importing anything heavy."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from posttrain import __version__

PACKAGES = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "gptqmodel",
    "heliport",
    "lm_eval",
    "numpy",
    "omegaconf",
    "optimum",
    "peft",
    "sacrebleu",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)
_CLONE = Path(__file__).resolve().parents[2]


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and those packages that change results, where installed."""
    found = {"python": platform.python_version(), "posttrain": __version__}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return dict(sorted(found.items()))


def commit() -> dict[str, Any] | None:
    """Return the commit of the clone that this package runs from and whether files were changed since, or None."""
    if not (_CLONE / ".git").exists():
        return None
    try:
        head = _git("rev-parse", "HEAD")
        return {"commit": head.strip(), "changed": bool(_git("status", "--porcelain", "--untracked-files=no").strip())}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_CLONE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


def hardware() -> dict[str, Any]:
    """Return processor, logical cores and memory in bytes; what torch makes of it only where it is loaded already."""
    found: dict[str, Any] = {"cpu": _cpu(), "cores": os.cpu_count(), "machine": platform.machine()}
    with suppress(OSError, ValueError, AttributeError):
        found["memory"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        # The last bits of sums depend on both: on how many numbers are added at once, and by how many threads.
        found["isa"] = torch.backends.cpu.get_cpu_capability()
        found["threads"] = torch.get_num_threads()
    if torch is not None and torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return found


def _cpu() -> str:
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if match := re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE):
            return match[1].strip()
    return platform.processor() or platform.machine()
