"""How much memory a training step takes on each device, from the shape of the model and the settings alone.

Sources. Sixteen bytes a parameter of model states, and what of them is divided among devices: ZeRO (arXiv 1910.02054).
4-bit weights: QLoRA (arXiv 2305.14314). Activations: `posttrain.planning.activations`; logits:
`posttrain.planning.workspace`. On a processor the sums are held against measurements; gathered shards and the buckets
of DDP follow from how FSDP2, DeepSpeed and torch describe them. Sizes are in bytes, and a gigabyte is 10^9 of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.planning.activations import activations, layer_activations
from posttrain.planning.step import BYTES, SHARDED, Setup
from posttrain.planning.workspace import evaluated_logits, head_backward, head_forward

# 4 bits a weight, an 8-bit scale for each 64 of them, and of the scales one of 32 bits for each 256 (the double
# quantisation of QLoRA): 4 + 8/64 + 32/(64 x 256) = 4.127 bits.
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
# 8-bit moments have a 32-bit scale for each 256 of them, both moments.
ADAM_8BIT_BYTES = 2 * (1 + 4 / 256)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on each device, at the moment of a step when they are most.

    Attributes:
        weights: All of them, trained and frozen.
        gradients: Of the trained weights.
        optimiser: Its moments, and under ZeRO-3 with 16-bit weights their 32-bit masters.
        reference: DPO's second copy.
        activations: What the forward pass keeps for the backward pass.
        head: The LM head and the loss: logits of a chunk of the vocabulary, and the head's gradient.
        working: Copies of weights for autocast, gathered shards, buckets, the optimiser's temporaries.
        moment: At which point of a step that is.
    """

    weights: int
    gradients: int
    optimiser: int
    reference: int
    activations: int
    head: int
    working: int
    moment: str

    @property
    def states(self) -> int:
        """Weights, gradients and optimiser state."""
        return self.weights + self.gradients + self.optimiser

    @property
    def total(self) -> int:
        """All of it."""
        return self.states + self.reference + self.activations + self.head + self.working


def frozen_bytes(setup: Setup) -> int:
    """Return the bytes of a whole copy of the model's weights that nobody trains, on one device and undivided."""
    counts, each = setup.shape.parameters, BYTES[setup.dtype]
    if not setup.nf4:
        return counts.total * each
    # Embedding, LM head, norms and biases stay as they are.
    biases = setup.shape.layers * sum(out for _, out, bias in setup.shape.linears().values() if bias)
    matrices = counts.blocks - biases
    return int(matrices * NF4_BYTES) + (counts.total - matrices) * each


def optimiser_bytes(setup: Setup) -> float:
    """Return the bytes of the optimiser's state for each trained parameter.

    ZeRO-3 keeps 32-bit moments, whatever the optimiser's name.
    """
    name = setup.optim
    if setup.strategy == "zero3":
        return 8.0
    if "8bit" in name:
        return ADAM_8BIT_BYTES / (2 if "lion" in name else 1)
    each = BYTES[setup.trainable_dtype]
    if name.startswith(("sgd", "lion", "paged_lion", "adagrad", "rmsprop")):
        return float(each)
    if name.startswith("adafactor"):
        return 0.0  # a row and a column of a matrix
    return 2.0 * each


def model_states(setup: Setup) -> tuple[int, int, int]:
    """Return the bytes of weights, gradients and optimiser state on each device.

    Full weights in ZeRO-3 are 2 bytes of weight, 2 of gradient, 4 of master weight and 8 of moments a parameter; with
    the other strategies and float32 weights 4, 4, 0 and 8. Either way 16.
    """
    trained = setup.trained
    weight = gradient = BYTES[setup.trainable_dtype]
    moments = optimiser_bytes(setup)
    if setup.strategy == "zero3" and setup.compute == 2:
        weight, gradient, moments = 2, 2, moments + 4
    weights = trained * weight + (0 if setup.adapter is None else frozen_bytes(setup))
    return tuple(int(part / setup.shards) for part in (weights, trained * gradient, trained * moments))  # type: ignore[return-value]


def _gathered(setup: Setup) -> int:
    """Return the bytes of weights that a device holds beside its own: casts, gathered layers, buckets of gradients."""
    shape, c = setup.shape, setup.compute
    blocks, layer = shape.parameters.blocks, shape.parameters.blocks // shape.layers
    whole = frozen_bytes(setup) / shape.parameters.total if setup.adapter is not None else c
    if setup.strategy in SHARDED:
        # Two layers, of which one is on its way; embedding, norm and LM head for the whole step; and the gradients of
        # one layer, with the buffer from which they are divided.
        ends = shape.parameters.total - blocks
        gradients = 2 * layer * c if setup.adapter is None else 0
        return int(2 * layer * whole + ends * c + gradients)
    casts = 0
    if setup.adapter is None and setup.casts:
        casts = blocks * c  # autocast keeps them until the forward pass ends, and the backward pass needs them
    elif setup.adapter is not None and BYTES[setup.trainable_dtype] != c:
        casts = setup.adapter.parameters * c
    buckets = setup.trained * BYTES[setup.trainable_dtype] if setup.strategy == "ddp" else 0
    return casts + buckets


def peak(setup: Setup) -> Memory:
    """Return the memory on each device at the moment of a step when it is most.

    Six moments are looked at: the LM head forward and backward, when all activations are kept; the backward pass of the
    last layer; that of the first, when all gradients are there; the optimiser's update; and the evaluation, which has
    all logits of its batch.
    """
    shape = setup.shape
    weights, gradients, optimiser = model_states(setup)
    # A second copy of the policy as it was loaded: full weights in their own dtype, or what is under the adapter.
    copy = shape.parameters.total * BYTES[setup.trainable_dtype] if setup.adapter is None else frozen_bytes(setup)
    reference = copy // setup.shards if setup.reference else 0
    kept, working = activations(setup), _gathered(setup)
    buckets = setup.trained * BYTES[setup.trainable_dtype] if setup.strategy == "ddp" else 0
    layer = layer_activations(setup)
    # Gradients of activations on their way back through a layer: those of the MLP's width, and the residual's.
    passing = setup.tokens * (2 * setup.compute * shape.intermediate + 2 * setup.residual * shape.hidden)
    again = layer if setup.checkpointing else 0
    embedding = shape.vocab * shape.hidden * BYTES[setup.trainable_dtype] if setup.adapter is None else 0
    so_far = gradients if setup.accumulate > 1 or setup.strategy in SHARDED else 0
    head_gradient = 0 if so_far and not shape.tied else embedding // setup.shards
    moments = {
        "the LM head forward": (so_far, kept, head_forward(setup), working),
        "the LM head backward": (so_far, kept, head_backward(setup), working),
        "the last layer backward": (so_far, kept + again + passing, head_gradient, working),
        "the first layer backward": (
            gradients,
            layer + passing,
            embedding * (2 if shape.tied else 1) // setup.shards,
            buckets,
        ),
        "the optimiser's update": (gradients, 0, 0, buckets + _update(setup)),
        "the evaluation": (0, 0, evaluated_logits(setup), working if setup.shards > 1 else buckets),
    }
    found = [
        Memory(
            weights=weights,
            gradients=parts[0],
            optimiser=optimiser,
            reference=reference,
            activations=parts[1],
            head=parts[2],
            working=parts[3],
            moment=name,
        )
        for name, parts in moments.items()
    ]
    return max(found, key=lambda memory: memory.total)


def _update(setup: Setup) -> int:
    """Return the bytes of the optimiser's temporaries: one number a parameter on a GPU, where AdamW goes by lists.

    On a processor the weights are updated one matrix after another.
    """
    each = BYTES[setup.trainable_dtype]
    if setup.cpu:
        shape = setup.shape
        largest = max(shape.vocab * shape.hidden, shape.hidden * shape.intermediate) if setup.adapter is None else 0
        return 2 * largest * each
    lists = setup.optim == "adamw_torch" and setup.strategy != "zero3"
    return int(setup.trained * each / setup.shards) if lists else 0
