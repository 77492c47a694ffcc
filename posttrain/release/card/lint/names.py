"""Names: the card, its code and its links speak of the repositories that there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from posttrain.preflight.findings import Finding, error, warning
from posttrain.release.card.inputs import branch_of
from posttrain.release.card.lint.facts import Facts
from posttrain.release.card.lint.markdown import Card
from posttrain.release.card.usage import usage_digest

_HUB_LINK = re.compile(
    r"https?://(?:huggingface\.co|hf\.co)/(?P<datasets>datasets/)?(?P<repository>[\w.-]+(?:/[\w.-]+)?)"
)
_BRANCH = re.compile(r"/tree/(?P<branch>[\w.-]+)")
_DOWNLOAD = re.compile(r"\bhf download (?P<repository>\S+)(?: --revision (?P<branch>\S+))?")
_LOADS = ("from_pretrained", "pipeline", "snapshot_download", "hf_hub_download")


def check(card: Card, facts: Facts) -> Iterator[Finding]:
    """Check the title, the code and the links."""
    if card.title != facts.title:
        yield error(f"the card is headed {card.title!r}, and the repository is called {facts.title!r}")
    yield from _usage(card, facts)
    yield from _downloads(card, facts)
    yield from _links(card, facts)


def _usage(card: Card, facts: Facts) -> Iterator[Finding]:
    blocks = [text for language, text in card.code if language == "python"]
    if not blocks:
        yield error("there is no code that shows how the model is used")
    loaded = False
    for text in blocks:
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError) as fault:
            yield error(f"the usage code is no Python: {fault}")
            continue
        for repository, branch in _loads(tree):
            loaded = True
            if repository != facts.repository:
                yield error(f"the usage code loads {repository!r}, and the repository is {facts.repository!r}")
            elif branch_of(branch) != branch_of(facts.card.get("branch")):
                yield error(
                    f"the usage code loads the branch {branch or 'main'!r}, and the model is on {_branch(facts)!r}"
                )
    if blocks and not loaded:
        yield error("the usage code loads no model by its name")
    if blocks and facts.usage.get("code_sha256") != usage_digest(card.text):
        if facts.usage:
            yield error("the usage code is not the code that was run (results/usage.json)")
        else:
            yield warning("nothing in the folder says that the usage code was run (results/usage.json)")


def _branch(facts: Facts) -> str:
    return str(facts.card.get("branch") or "main")


def _loads(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    """Yield what each call that loads something loads, and from which branch; variables are followed."""
    strings: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and (text := _string(node.value, {})) is not None:
            strings.update({target.id: text for target in node.targets if isinstance(target, ast.Name)})
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called not in _LOADS:
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        first = next((keywords[key] for key in ("model", "repo_id") if key in keywords), None)
        if first is None and node.args:
            first = node.args[-1 if called == "pipeline" else 0]
        repository = _string(first, strings) if first is not None else None
        revision = _string(keywords["revision"], strings) if "revision" in keywords else None
        yield repository if repository is not None else "?", revision


def _string(node: ast.expr, known: dict[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return known.get(node.id) if isinstance(node, ast.Name) else None


def _downloads(card: Card, facts: Facts) -> Iterator[Finding]:
    for language, text in card.code:
        if language == "python":
            continue
        for match in _DOWNLOAD.finditer(text):
            if match["repository"] != facts.repository or branch_of(match["branch"]) != facts.card.get("branch"):
                yield error(f"the code downloads {match[0].removeprefix('hf download ')!r}, which is not this model")


def _links(card: Card, facts: Facts) -> Iterator[Finding]:
    """Check that links to the hub lead to this model, its family, its base or its data."""
    branches = {(each["repository"], branch_of(each.get("revision"))) for each in facts.card.get("family", ())}
    models = {repository for repository, _ in branches} | {facts.card.get("base_model")}
    data = {source["provenance"]["path"] for part in facts.data.get("sets", {}).values() for source in part["sources"]}
    data |= {str(each.get("path")) for stage in facts.manifests.values() for each in stage.get("sources") or ()}
    for stage in facts.manifests.values():
        data |= {str(each.get("path")) for each in ((stage.get("recipe") or {}).get("cpt") or {}).get("text") or ()}
    for link in card.links:
        match = _HUB_LINK.match(link)
        if match is None:
            continue
        if match["repository"] not in (data if match["datasets"] else models):
            what = "data set it was trained on" if match["datasets"] else "model of its family"
            yield error(f"the link to {link} leads to no {what}")
        elif (branch := _BRANCH.search(link)) and (match["repository"], branch["branch"]) not in branches:
            yield error(f"the link to {link} leads to no branch of the family")
