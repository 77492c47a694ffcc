"""Memory of the LM head and the loss, which the trainers work through in chunks.

TRL multiplies up to 4,096 positions with up to 32,768 tokens of the vocabulary at a time, and computes the same
products again in the backward pass, so all logits are never held at once. On a GPU only the positions that have a loss
are in it, and a kernel folds each chunk in place; on a processor every position is, and the chunk is folded by plain
operations in float32, whose intermediate results are what most of the memory here is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posttrain.planning.step import Setup

POSITIONS = 4096
VOCABULARY = 32768
# Bytes for each logit of a chunk on a processor, besides the chunk itself. Forward: the scaled logits, their
# exponentials, and the product of both. Backward: scaled logits twice, log-probabilities, probabilities, the gradient,
# two more of those on the way, and which token is the target.
_FORWARD = 3 * 4
_BACKWARD = 7 * 4 + 1


def full_logits(setup: Setup) -> int:
    """Return the bytes that all logits of a micro-batch would take in float32, with their gradient."""
    return setup.tokens * setup.shape.vocab * 4 * 2


def evaluated_logits(setup: Setup) -> int:
    """Return the bytes of all logits of an evaluation's batch, and of accelerate's float32 copy of 16-bit ones."""
    tokens = setup.eval_rows * setup.length * (2 if setup.stage == "dpo" else 1)
    return tokens * setup.shape.vocab * (4 if setup.compute == 4 else setup.compute + 4)


def _chunk(setup: Setup) -> int:
    return min(setup.tokens, POSITIONS) * min(setup.shape.vocab, VOCABULARY)


def _cast_weight(setup: Setup) -> int:
    """Return the bytes of the copy of a chunk of the head's weight, where that is not in the compute dtype."""
    width = min(setup.shape.vocab, VOCABULARY)
    return width * setup.shape.hidden * setup.compute if setup.casts else 0


def head_forward(setup: Setup) -> int:
    """Return the bytes that the LM head takes in the forward pass."""
    logits = _chunk(setup)
    if not setup.cpu:
        return min(setup.tokens, POSITIONS) * VOCABULARY * setup.compute + _cast_weight(setup)
    return logits * (setup.compute + _FORWARD) + _cast_weight(setup)


def head_backward(setup: Setup) -> int:
    """Return the bytes that the LM head takes in the backward pass.

    Gradients of its input and, if it is trained, of its weight are summed up in float32 before they are cast.
    """
    logits = _chunk(setup)
    hidden = setup.shape.hidden
    sums = setup.tokens * hidden * (4 + (0 if setup.residual == 4 else setup.residual))
    if setup.adapter is None:
        sums += setup.shape.vocab * hidden * 4
    if not setup.cpu:
        buffer = min(setup.tokens, POSITIONS) * VOCABULARY * setup.compute
        return buffer + sums + _cast_weight(setup)
    return logits * (setup.compute + _BACKWARD) + sums + _cast_weight(setup)
