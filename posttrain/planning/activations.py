"""What the forward pass keeps for the backward pass.

The count is that of Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1), redone for what transformers keeps of a
Llama layer: RMSNorm instead of LayerNorm, a gated MLP, grouped keys and values, no dropout, and attention without a
matrix of length squared (SDPA, flash) or with one (eager). Sizes are in bytes.
"""

from __future__ import annotations

from posttrain.planning.step import Setup


def layer_activations(setup: Setup) -> int:
    """Return the bytes that one decoder layer keeps for its backward pass, for a micro-batch on one device.

    In units of a token, with h the width, q and k those of all queries and of all keys, f that of the MLP, c and R the
    bytes of the compute dtype and of the residual stream: 2 (4h + 4) for the norms' inputs in float32, 2Rh for their
    outputs if the norms are trained, ch for the inputs of q, k and v and of gate and up (of each of the five where
    autocast copies it), c(2q + 2k) for attention, 4 a head for the sums of its softmax, and 4cf in the MLP.
    """
    shape, c = setup.shape, setup.compute
    h, q, f = shape.hidden, shape.queries, shape.intermediate
    token = 2 * (4 * h + 4) + _attention(setup) + 3 * c * f
    adapter = setup.adapter
    if adapter is None:
        token += 2 * setup.residual * h + c * f + (5 if setup.casts else 2) * c * h
    else:
        mask = 0 if not adapter.dropout else 1  # a byte each on a GPU, a number of the adapter's input on a processor
        if mask and setup.cpu:
            mask = 4 if setup.apart else c
        own = setup.apart or bool(adapter.dropout)
        for width, names in ((h, ("q_proj", "k_proj", "v_proj")), (h, ("gate_proj", "up_proj")), (q, ("o_proj",))):
            found = sum(name in adapter.names for name in names)
            # What goes into o_proj is attention's output, which is kept anyway.
            token += width * (found * (c + mask) if own else c * min(found, 1) * (names != ("o_proj",)))
        if "down_proj" in adapter.names:
            token += f * (c + mask)
        token += c * adapter.r * len(adapter.names)
    if shape.head_norms:  # inputs in float32, and outputs if trained
        token += (shape.queries + shape.keys) * (4 + (c if adapter is None else 0))
    return token * setup.tokens


def _attention(setup: Setup) -> int:
    """Return the bytes a token that attention keeps: queries, keys, values, output, and what else the kind needs."""
    shape, c = setup.shape, setup.compute
    q, k, heads = shape.queries, shape.keys, shape.heads
    if setup.attention == "eager":
        # Keys and values repeated for each query head, and the softmax in float32 and in the compute dtype. The output
        # is kept for o_proj alone.
        adapter = setup.adapter
        alone = adapter is None or ("o_proj" in adapter.names and not setup.apart and not adapter.dropout)
        return (3 + alone) * c * q + heads * setup.row * (4 if c == 4 else 4 + c)
    if setup.attention == "sdpa" and (setup.packed or setup.stage == "dpo"):
        # A mask keeps packed documents, and padding, apart. Then keys and values are repeated, and the mask is turned
        # into numbers of the compute dtype, a row of it for each token.
        return 4 * c * q + 4 * heads + c * setup.row
    return c * (2 * q + 2 * k) + 4 * heads


def activations(setup: Setup) -> int:
    """Return the bytes that the whole forward pass keeps, up to the LM head.

    With checkpointing the input of each layer is kept, and what one layer keeps, which is computed anew in its turn.
    """
    shape = setup.shape
    layers = shape.layers * layer_activations(setup)
    if setup.checkpointing:
        layers = shape.layers * setup.residual * shape.hidden * setup.tokens
    last = setup.tokens * (4 * shape.hidden + 4 + (2 if setup.adapter is None else 1) * setup.residual * shape.hidden)
    return layers + last
