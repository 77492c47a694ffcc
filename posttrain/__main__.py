"""Entry when the package is run as a folder (`accelerate launch posttrain …`), a module or a script."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    # Run as a folder, Python puts the folder itself at the head of the path, where posttrain/data or posttrain/train
    # would shadow other modules of those names. The package has to be found beside it instead.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    sys.path.insert(0, str(here.parent))

from posttrain.cli import main

if __name__ == "__main__":
    sys.exit(main())
