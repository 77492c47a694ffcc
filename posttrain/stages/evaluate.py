"""What determines the figures of the eval stage: the models, the tasks with their prompts, and how they are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.assets import is_hub_id, locate
from posttrain.evaluate.tasks import JUDGED, expand, missing_extras, problems, task_name
from posttrain.recipe.schema_evaluate import EvalTask, Ifeval, MultipleChoice, TaskGroup, Translation
from posttrain.recipe.suggest import did_you_mean
from posttrain.stages.checkpoints import BASE, checkpoints, chosen, model_names
from posttrain.stages.external import External, external

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe
    from posttrain.recipe.schema_generate import Teacher
    from posttrain.stages.context import Context

# Stages that models come from. The base is under each adapter, so it is always one.
INPUTS = ("cpt", "sft", "dpo", "quantize")
VERDICTS = "answers"  # the folder beside the stages in which answers of judges are kept, as those of teachers are
_IDENTITY = ("model", "revision")
_NOTES = 8  # of the results, printed at the end


def judge_of(recipe: Recipe) -> Teacher | None:
    """Return the model that judges: the recipe's judge, or its teacher."""
    return recipe.judge or recipe.teacher


def evaluate_part(recipe: Recipe) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return the `Stage.part` of the eval stage."""

    def part(resolved: Mapping[str, Any]) -> dict[str, Any]:
        assert recipe.eval is not None
        tasks = expand(recipe.eval.tasks)
        found: dict[str, Any] = {"eval": resolved["eval"], "seed": resolved["seed"]}
        found["model"] = {"trust_remote_code": resolved["model"]["trust_remote_code"]}
        if BASE in chosen(recipe) and recipe.cpt is None:
            found["model"] |= {key: resolved["model"][key] for key in ("base", "revision", "tokenizer")}
        if any(isinstance(task, Ifeval) for task in tasks):
            from posttrain.evaluate.ifeval import IFEVAL_VERSION

            found["ifeval"] = IFEVAL_VERSION
        if any(isinstance(task, JUDGED) for task in tasks):
            from posttrain.evaluate.judge.asking import judge_prompts

            section = resolved["judge"] or resolved["teacher"]
            found["judge"] = {key: section[key] for key in _IDENTITY} if section is not None else None
            found["prompts"] = dict(judge_prompts())
        return found

    return part


def evaluate_files(recipe: Recipe) -> list[External]:
    """Return the tasks' files and the package's own task files, baselines, and the base model where it is measured."""
    from posttrain.evaluate.kinds.choice import task_file

    assert recipe.eval is not None
    found = []
    for key, task in _keyed(recipe.eval.tasks):
        for name in ("path", "fewshot_path"):
            if (written := getattr(task, name, None)) is not None:
                at = key if name == "path" else f"{key.rpartition('.')[0]}.{name}"
                found += _external(at, str(written), task)
        if isinstance(task, MultipleChoice):
            path = task_file(task.task, task.language)
            found.append(External(f"eval.task_files.{task.task}-{task.language}", path.name, path))
    for index, baseline in enumerate(recipe.eval.baselines):
        found.append(external(f"eval.baselines.{index}.path", baseline.path))
    if recipe.cpt is None and recipe.model.base is not None:
        found.append(external("model.base", recipe.model.base))
        if recipe.model.tokenizer is not None:
            found.append(external("model.tokenizer", recipe.model.tokenizer))
    return list({file.key: file for file in found}.values())


def _keyed(entries: Sequence[EvalTask]) -> Iterator[tuple[str, EvalTask]]:
    """Yield each task with the key of its path in the recipe."""
    for index, entry in enumerate(entries):
        for task in expand([entry]):
            at = f"eval.tasks.{index}"
            yield (f"{at}.paths.{task_name(task)}" if isinstance(entry, TaskGroup) else f"{at}.path"), task


def _external(key: str, written: str, task: EvalTask) -> list[External]:
    if is_hub_id(written):
        return [External(key, written, None)]
    if isinstance(task, Translation):
        from posttrain.evaluate.kinds.translation import aligned_files

        files = aligned_files(written, task.source, task.target)
        if files is not None:
            sides = zip((task.source, task.target), files, strict=True)
            return [External(f"{key}.{language}", str(file), file) for language, file in sides]
    return [External(key, written, Path(locate(written)).expanduser())]


def evaluate_problems(recipe: Recipe, world_size: int) -> list[str]:
    """Return what is wrong with the section before anything is built: names, tasks, packages, small files."""
    assert recipe.eval is not None
    settings = recipe.eval
    found = problems(settings.tasks, judge=judge_of(recipe) is not None) + missing_extras(settings.tasks)
    known = model_names(recipe)
    baselines = [baseline.name for baseline in settings.baselines]
    for index, name in enumerate(settings.models):
        if name not in known:
            found.append(f"eval.models.{index}: the recipe makes no model {name!r}; {did_you_mean(name, known)}")
    for index, entry in enumerate(settings.tasks):
        found += [
            f"eval.tasks.{index}.models: no model is called {name!r}; {did_you_mean(name, [*known, *baselines])}"
            for name in entry.models
            if name not in known and name not in baselines
        ]
    for name in dict.fromkeys(baselines):
        if name in known or baselines.count(name) > 1:
            found.append(f"eval.baselines: {name!r} is the name of another model too; give it its own")
    if not known and not baselines:
        found.append("eval: there is no model to measure; give model.base, or baselines")
    for task in expand(settings.tasks):
        against = getattr(task, "against", None)
        if against is not None and against not in chosen(recipe) and against not in baselines:
            found.append(f"eval.tasks: {task_name(task)}: against: no model called {against!r} is measured")
    return found + _unreadable(settings.tasks)


def _unreadable(entries: Sequence[EvalTask]) -> list[str]:
    """Return what is wrong with local IFEval prompts: they are few, and a fault would be found only hours later."""
    from posttrain.errors import UserError
    from posttrain.evaluate.ifeval import VERIFIERS, load_prompts

    found = []
    for task in expand(entries):
        if not isinstance(task, Ifeval) or task.path is None or is_hub_id(task.path):
            continue
        path = Path(locate(task.path)).expanduser()
        if path.suffix != ".jsonl" or not path.is_file():
            continue
        try:
            prompts = load_prompts(path, task.language)
        except UserError as error:
            found += [f"eval: {task_name(task)}: {problem}" for problem in error.problems]
            continue
        needing = sorted(
            {
                instruction.id
                for prompt in prompts
                if not any(each.id in task.skip_instructions for each in prompt.instructions)
                for instruction in prompt.instructions
                if VERIFIERS[instruction.id].needs_language
            }
        )
        if needing and find_spec("heliport") is None:
            found.append(
                f"eval: {task_name(task)}: {', '.join(needing)} need heliport, which is not installed; pip install -c "
                f"constraints.txt -e '.[language]', or leave them out: skip_instructions: [{', '.join(needing)}]"
            )
    return found


def _first(notes: Sequence[str]) -> list[str]:
    """Return the notes that are printed; all of them are in the results."""
    more = len(notes) - _NOTES
    return [*notes[:_NOTES], *([f"{more} more notes are in table.md"] if more > 0 else [])]


def measure(context: Context) -> None:
    """Measure the models of a recipe: the build of the eval stage.

    Raises:
        Interrupted: A signal stopped a judge.
        UserError: Tasks or models cannot be read.
    """
    import torch

    from posttrain.data.generate.models import device
    from posttrain.evaluate.run import Plan, evaluate
    from posttrain.evaluate.table import primary, primary_table
    from posttrain.train.loop import quiet_libraries

    quiet_libraries()
    recipe = context.recipe
    assert recipe.eval is not None
    plan = Plan(
        settings=recipe.eval,
        checkpoints=checkpoints(recipe, context.inputs, context.parts),
        folder=context.folder,
        work=context.work,
        verdicts=Path(recipe.output_dir) / VERDICTS,
        seed=context.seed,
        device=torch.device("cpu") if recipe.launch.cpu else device(),
        judge=judge_of(recipe),
        judge_section="judge" if recipe.judge is not None else "teacher",
        console=context.console,
        read=context.provenance,
        reached=lambda place: setattr(context, "reached", place),
    )
    results = evaluate(plan)
    context.console.print(primary_table(results))
    for note in _first(results["notes"]):
        context.console.print(f"eval  {note}", highlight=False, markup=False, soft_wrap=True)
    for model, tasks in results["results"].items():
        for task, metrics in tasks.items():
            metric = primary(results["tasks"][task])
            if metric in metrics:
                context.report({f"{model}/{task}/{metric}": metrics[metric]["value"]})
