"""The code on a card that shows how the model is used: written once, and run as it stands there."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from posttrain.errors import UserError
from posttrain.release.card.inputs import CardInputs
from posttrain.release.card.quantised import working_backends
from posttrain.release.card.text import fenced
from posttrain.release.environment import child_environment

RECORD = "results/usage.json"  # says which code was run
TIMEOUT = 3600.0  # seconds; a large model is read from a disk

_PYTHON = re.compile(r"^(?P<fence>`{3,})python\n(?P<code>.*?)\n(?P=fence)$", flags=re.MULTILINE | re.DOTALL)
_REPOSITORY = re.compile(r'^repository = "(?P<repository>[\w./-]+)"$', flags=re.MULTILINE)
_BRANCH = re.compile(r'^branch = "(?P<branch>[\w.-]+)"$', flags=re.MULTILINE)
_WIDTH = 100  # columns of the card that a line of code fits into
_COMMIT = "0" * 40  # a name of the folder in the hub's cache


def usage_code(inputs: CardInputs) -> str:
    """Return the Python code that loads the model by its repository's name and has it answer, and prints the answer."""
    branch = ", revision=branch" if inputs.branch else ""
    backend = _backend(inputs)
    trust = _trusts(inputs)
    remote = ", trust_remote_code=True" if trust else ""
    quantised = ", quantization_config=quantization" if backend else ""
    lines = [
        f"from transformers import AutoModelForCausalLM, AutoTokenizer{', GPTQConfig' if backend else ''}",
        "",
        f'repository = "{inputs.repository}"',
        *([f'branch = "{inputs.branch}"'] if inputs.branch else []),
        f"tokenizer = AutoTokenizer.from_pretrained(repository{branch}{remote})",
    ]
    if backend:
        bits = (inputs.variant or {})["bits"]
        lines.append(f'quantization = GPTQConfig(bits={bits}, backend="{backend}")')
    extra = f'{branch}, dtype="auto", device_map="auto"{quantised}{remote}'
    call = f"model = AutoModelForCausalLM.from_pretrained(repository{extra})"
    lines += [call] if len(call) <= _WIDTH else [f"{call[: call.index('(')]}(", f"    repository{extra}", ")"]
    lines.append("")
    if inputs.has_chat:
        lines += [
            f'messages = [{{"role": "user", "content": {_literal(inputs.prompt)}}}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ").to(model.device)",
        ]
    else:
        lines.append(f'inputs = tokenizer({_literal(inputs.prompt)}, return_tensors="pt").to(model.device)')
    lines += [
        f"output = model.generate(**inputs, max_new_tokens={inputs.max_new_tokens}, do_sample=False)",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    return "\n".join(lines)


def usage_block(inputs: CardInputs) -> str:
    """Return the same as a block of Markdown."""
    return fenced(usage_code(inputs), "python")


def _literal(text: str) -> str:
    """Write a text as a string of Python; what JSON escapes means the same there."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")


def _backend(inputs: CardInputs) -> str | None:
    """Return the kernel that a variant has to be given, None where the one that transformers takes works."""
    record = inputs.variant
    working = working_backends(record) if record is not None else []
    return None if "auto" in working or not working else working[0]


def _trusts(inputs: CardInputs) -> bool:
    return bool((inputs.recipe.get("model") or {}).get("trust_remote_code"))


def usage_of(card: str) -> str | None:
    """Return the usage code of a card: its first block of Python, or None."""
    match = _PYTHON.search(card)
    return match["code"] if match else None


def usage_digest(card: str) -> str | None:
    """Return the SHA-256 of the usage code of a card, None where it has none."""
    found = usage_of(card)
    return None if found is None else hashlib.sha256(found.encode()).hexdigest()


def usage_record(card: str) -> str:
    """Return the content of `RECORD` for a card whose code was run by `run_usage`."""
    return json.dumps({"format": 1, "code_sha256": usage_digest(card)}, indent=2, sort_keys=True) + "\n"


def run_usage(card_text: str, folder: Path, timeout: float = TIMEOUT) -> str:
    """Run the usage code of a card, letter for letter, in a fresh process without a network.

    The process finds the repository that the code names in a cache of the hub made for it, whose snapshot is `folder`.
    So nothing is replaced: neither in the code nor in transformers.

    Args:
        card_text: The card.
        folder: The released folder.
        timeout: Seconds until the code counts as broken.

    Returns:
        What it printed; an empty line where the model has no answer.

    Raises:
        UserError: The card has no such code, or the code fails or takes longer.
    """
    found = usage_of(card_text)
    repository = _REPOSITORY.search(found) if found is not None else None
    if found is None or repository is None:
        raise UserError(f"{folder.name}: its card has no usage code that names a repository; write the card anew")
    branch = _BRANCH.search(found)
    with tempfile.TemporaryDirectory() as place:
        cache, program = Path(place) / "hub", Path(place) / "code" / "usage.py"
        _cached(cache, repository["repository"], branch["branch"] if branch is not None else "main", folder)
        program.parent.mkdir()
        program.write_text(found + "\n", encoding="utf-8")
        environment = child_environment()
        environment.pop("PYTHONPATH", None)  # the code of a card has what is installed, and nothing of a clone
        environment |= {
            "HF_HOME": place,
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
        try:
            done = subprocess.run(
                [sys.executable, str(program)],
                cwd=program.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{folder.name}: the usage code of its card did not end within {timeout:,.0f} s") from None
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = said[-1] if said else f"exit code {done.returncode}"
        raise UserError(f"{folder.name}: the usage code of its card fails: {reason}")
    return done.stdout


def _cached(cache: Path, repository: str, revision: str, folder: Path) -> None:
    """Put a folder into a cache of the hub as the snapshot of a branch of a repository."""
    place = cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "snapshots").mkdir(exist_ok=True)
    (place / "refs" / revision).write_text(_COMMIT, encoding="utf-8")
    snapshot = place / "snapshots" / _COMMIT
    if not snapshot.exists():
        snapshot.symlink_to(folder.resolve(), target_is_directory=True)
