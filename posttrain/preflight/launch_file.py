"""The accelerate configuration that a recipe names, against the recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.assets import read_launch_file
from posttrain.preflight.findings import Finding, error, note, warning

if TYPE_CHECKING:
    from posttrain.preflight.subject import Subject

PRECISION = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}
_WRAPPING = "TRANSFORMER_BASED_WRAP"
_LAYERS = "fsdp_transformer_layer_cls_to_wrap"
# Batch and gradient settings that the trainer takes from the recipe; a number in the file would contradict it.
_OF_THE_RECIPE = ("gradient_accumulation_steps", "gradient_clipping")


def check(subject: Subject) -> Iterator[Finding]:
    """Find contradictions between the launch file and the recipe.

    Raises:
        UserError: The file cannot be read.
    """
    launch = subject.recipe.launch
    if launch.config is None:
        if launch.num_processes > 1 and not launch.cpu:
            yield from _whole_models(subject)
        return
    content = read_launch_file(launch.config)
    where = f"launch.config: {launch.config}"
    yield from _precision(subject, where, content)
    stated = content.get("num_processes")
    if isinstance(stated, int) and stated != subject.processes:
        yield note(
            f"{where} states num_processes {stated}; launch.num_processes={subject.processes} of the recipe holds"
        )
    if content.get("use_cpu") and not launch.cpu:
        yield error(f"{where} trains on the processor (use_cpu), and launch.cpu is false; set launch.cpu=true")
    kind = str(content.get("distributed_type", "NO"))
    if kind == "FSDP":
        yield from _fsdp(subject, where, content)
    elif kind == "DEEPSPEED":
        yield from _deepspeed(subject, where, content)
    elif kind == "NO" and subject.processes > 1:
        yield error(
            f"{where} has distributed_type NO, which starts one process, and {subject.processes} are to train; use "
            "launch/accelerate/ddp.yaml, fsdp2.yaml or zero3.yaml"
        )
    elif kind == "MULTI_CPU":
        yield error(
            f"{where}: with MULTI_CPU accelerate leaves starting the processes to mpirun; use MULTI_GPU, cpu: true"
        )


def _precision(subject: Subject, where: str, content: Mapping[str, Any]) -> Iterator[Finding]:
    wanted = PRECISION[subject.recipe.model.dtype]
    given = content.get("mixed_precision")
    given = "no" if given in (None, False) else str(given)  # YAML reads a bare `no` as false
    if given not in ("no", wanted):
        dtype = next((dtype for dtype, precision in PRECISION.items() if precision == given), given)
        yield error(
            f"{where} has mixed_precision {given}, and model.dtype is {subject.recipe.model.dtype}; set model.dtype="
            f"{dtype}, or mixed_precision: {wanted} in the file"
        )


def _whole_models(subject: Subject) -> Iterator[Finding]:
    shape = subject.shape
    if shape is not None and shape.parameters.total > 2e10 and subject.training(to_do=True):
        yield warning(
            f"launch.config: none is given, so each of {subject.processes} processes holds the whole model of "
            f"{shape.parameters.total / 1e9:.0f}B parameters; name launch/accelerate/fsdp2.yaml or zero3.yaml"
        )


def _fsdp(subject: Subject, where: str, content: Mapping[str, Any]) -> Iterator[Finding]:
    settings = content.get("fsdp_config") or {}
    version = str(settings.get("fsdp_version", 1))
    if version != "2":
        yield error(
            f"{where} has fsdp_version {version}; posttrain saves and resumes under version 2: set fsdp_version: 2 and "
            "fsdp_reshard_after_forward: true in place of fsdp_sharding_strategy"
        )
    for key in ("fsdp_sharding_strategy", "fsdp_backward_prefetch", "fsdp_use_orig_params", "fsdp_sync_module_states"):
        if version == "2" and key in settings:
            yield warning(f"{where}: {key} has no meaning under FSDP2; leave it out")
    reshard = settings.get("fsdp_reshard_after_forward")
    if version == "2" and reshard is not None and str(reshard).lower() not in ("true", "false"):
        yield error(f"{where}: fsdp_reshard_after_forward is {reshard!r}; under FSDP2 it is true or false")
    policy = str(settings.get("fsdp_auto_wrap_policy", "NO_WRAP")).upper()
    if policy == "NO_WRAP":
        yield error(
            f"{where}: without fsdp_auto_wrap_policy the whole model is one unit, gathered at once on every device; "
            f"set fsdp_auto_wrap_policy: {_WRAPPING}"
        )
    elif policy == _WRAPPING and settings.get(_LAYERS):
        yield from _layer_classes(subject, where, str(settings[_LAYERS]))
    if settings.get("fsdp_activation_checkpointing") in (True, "true"):
        yield error(
            f"{where}: fsdp_activation_checkpointing is on, which the recipe says with gradient_checkpointing; two "
            "kinds on top of each other compute each layer three times: leave it out of the file"
        )
    state = str(settings.get("fsdp_state_dict_type", "SHARDED_STATE_DICT")).upper()
    if state == "FULL_STATE_DICT":
        yield warning(
            f"{where}: with FULL_STATE_DICT every checkpoint on the way is gathered in one process; SHARDED_STATE_DICT "
            "is faster, and the end of a stage is in ordinary safetensors either way"
        )
    yield from _quantised(subject, where, "FSDP2")


def _layer_classes(subject: Subject, where: str, named: str) -> Iterator[Finding]:
    """Look for the class of the decoder layers in the source of transformers, which is not imported for it."""
    spec, kind = find_spec("transformers"), subject.config.get("model_type")
    if spec is None or spec.origin is None:
        return
    source = Path(spec.origin).parent / "models" / str(kind) / f"modeling_{kind}.py"
    if not source.is_file():
        return
    known = re.findall(r"^class (\w+)\(", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
    layers = [name for name in known if name.endswith(("DecoderLayer", "Block"))]
    for name in (part.strip() for part in named.split(",")):
        if name not in known:
            yield error(
                f"{where}: {_LAYERS} names {name}, and a model of type {kind} has no such class; give "
                f"{' or '.join(layers) or 'its decoder layer'}, or leave it out: transformers knows it"
            )


def _deepspeed(subject: Subject, where: str, content: Mapping[str, Any]) -> Iterator[Finding]:
    settings = content.get("deepspeed_config") or {}
    if settings.get("deepspeed_config_file"):
        yield note(f"{where}: what is in {settings['deepspeed_config_file']} is not checked")
        return
    stage = settings.get("zero_stage", 2)
    if stage not in (0, 1, 2, 3):
        yield error(f"{where}: zero_stage is {stage!r}; give 3, or 2 for a model that fits one device")
    if stage == 3 and settings.get("zero3_save_16bit_model") is not True:
        yield error(
            f"{where}: without zero3_save_16bit_model: true the whole model cannot be gathered at the end of a "
            "stage; set it"
        )
    if stage == 3 and settings.get("zero3_init_flag") is not True:
        yield warning(
            f"{where}: without zero3_init_flag: true every process loads the whole model before it is divided; set it"
        )
    for key in _OF_THE_RECIPE:
        if settings.get(key) not in (None, "auto"):
            yield error(f"{where}: {key} is {settings[key]}, which follows from the recipe; leave it out of the file")
    yield from _quantised(subject, where, f"ZeRO-{stage}")


def _quantised(subject: Subject, where: str, how: str) -> Iterator[Finding]:
    for name, section in subject.training().items():
        if getattr(section, "quantization", "none") == "nf4":
            yield error(
                f"{where}: {name}.quantization: nf4 keeps 4-bit weights whole on each device, which {how} would "
                "divide; use launch/accelerate/ddp.yaml, or quantization: none"
            )
