"""Size, perplexity, kernels and time of a model's quantised variants: bits {4, 8} by groups {none, 32, 64, 128}.

    python tests/benchmarks/measure_quantize.py MODEL ROWS --work DIR

MODEL is a folder with a full model, ROWS a file of conversations in any shape of the source `generic`; calibration and
held-out text are drawn from it, apart from each other. What an earlier call has finished in DIR is kept. The table goes
to standard output; `variants.json` and the manifest are in DIR/quantized.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml

from posttrain.recipe import load
from posttrain.stages.manifest import Manifest
from posttrain.stages.runner import run

# What matters most comes first, in case there is not time for all.
MATRIX = [(4, 64), (8, 64), (4, 32), (4, 128), (8, 32), (8, 128), (4, -1), (8, -1)]


def recipe(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the recipe to run."""
    return {
        "name": "measure-quantize",
        "output_dir": str(arguments.work),
        "model": {"base": str(arguments.model), "chat_template": arguments.chat_template},
        "quantize": {
            "calibration": {"path": str(arguments.rows), "samples": arguments.samples, "length": arguments.length},
            "heldout": {"samples": arguments.heldout, "length": arguments.length},
            "variants": [
                {"bits": bits, "group_size": group, "sym": not arguments.asymmetric, "mse": arguments.mse}
                for bits, group in MATRIX
                if bits in arguments.bits
            ],
        },
    }


def main() -> None:
    """Build the variants and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--chat-template", default="tokenizer")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--heldout", type=int, default=16)
    parser.add_argument("--asymmetric", action="store_true", help="sym: false for all variants")
    parser.add_argument("--mse", type=float, default=0.0, help="search the range of each group")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 8], help="those of the matrix with so many bits")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    file = arguments.work / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(arguments)), encoding="utf-8")
    run(load(file))
    folder = arguments.work / "quantized"
    content = json.loads((folder / "variants.json").read_text(encoding="utf-8"))
    metrics = Manifest.read(folder).metrics
    base = content["base"]
    print(f"unquantised: {base['bytes'] / 1e6:.1f} MB, perplexity {base['perplexity']['value']:.3f}")
    for row in content["variants"]:
        works = ",".join(name for name, found in row["backends"].items() if found["generates"]) or "none"
        measured = f"{row['perplexity_ratio'] - 1:+.2%}" if row["perplexity_ratio"] is not None else row["failed"]
        size = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] is not None else "-"
        print(f"{row['name']:<34} {size:>10} {measured:>9}  {works:<12} {metrics[row['name'] + '/seconds']:.0f} s")


if __name__ == "__main__":
    main()
