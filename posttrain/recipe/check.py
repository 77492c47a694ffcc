"""A tree of nodes against the schema: either a `Recipe`, or everything that is wrong with it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from posttrain.recipe.convert import Mismatch, alternatives, convert_scalar, describe_type, describe_value
from posttrain.recipe.interpolation import UNRESOLVED
from posttrain.recipe.origins import DEFAULT, Node, Path, dotted, to_node, to_plain, walk
from posttrain.recipe.ranges import rule_for
from posttrain.recipe.schema import Recipe
from posttrain.recipe.schema_evaluate import TASKS
from posttrain.recipe.schema_generate import ROLLOUTS
from posttrain.recipe.suggest import did_you_mean, either, nearest
from posttrain.recipe.trainer_keys import CONFIGS, check_trainer, passes_through

ENTRIES = {("data", "sft"): "sft", ("data", "preference"): "preference"}
GENERATE = ("generate",)
TASK_ENTRIES = ("eval", "tasks")


class _Wrong:
    """Stands for a value whose problem has been noted, so that the rest can be checked all the same."""


_WRONG = _Wrong()


@cache
def hints(section: Any) -> dict[str, Any]:
    """Return the type of every key of a section."""
    return typing.get_type_hints(section)


def _fields(section: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(section)


def _section_of(hint: Any) -> type | None:
    """Return the dataclass among the members of a type, if there is one."""
    types = (choice for choice in alternatives(hint) if isinstance(choice, type))
    return next((choice for choice in types if dataclasses.is_dataclass(choice)), None)


def _items_of(hint: Any) -> Any | None:
    """Return the type of the items where a type may be a list."""
    return next((typing.get_args(c)[0] for c in alternatives(hint) if typing.get_origin(c) is list), None)


def fill_defaults(node: Node, section: type, like: Any = None) -> None:
    """Add to a section every key that it leaves out and that has a default, in sections below it too.

    Args:
        node: The section, changed in place.
        section: Its dataclass.
        like: An instance whose values are the defaults, where those of the class are not.
    """
    if not isinstance(node.value, dict):
        return
    for field in _fields(section):
        below = _section_of(hints(section)[field.name])
        default = _default(field, like)
        # A section's default is filled in below, as a section that gives some of its keys is.
        plain = {} if below is not None and dataclasses.is_dataclass(default) else default
        if field.name not in node.value:
            if default is dataclasses.MISSING:
                continue
            node.value[field.name] = to_node(plain, DEFAULT)
        child = node.value[field.name]
        if child.value is None and field.default_factory is not dataclasses.MISSING:
            # What `null` removes is what the recipe says of a section or list; its defaults remain.
            child.value = to_node(plain, DEFAULT).value
        if below is not None:
            fill_defaults(child, below, default if dataclasses.is_dataclass(default) else None)
        elif isinstance(child.value, list):
            item = _section_of(_items_of(hints(section)[field.name]) or str)
            for entry in child.value if item is not None else []:
                fill_defaults(entry, typing.cast(type, item))


def _default(field: dataclasses.Field[Any], like: Any) -> Any:
    if like is not None:
        return getattr(like, field.name)
    if field.default is not dataclasses.MISSING or field.default_factory is dataclasses.MISSING:
        return field.default
    return field.default_factory()


@cache
def _homes() -> dict[str, list[str]]:
    """Where each key of the schema belongs: its name to the dotted names of the sections that have it."""
    from posttrain.data.sources.base import Source

    homes: dict[str, list[str]] = {}

    def visit(section: type, at: str) -> None:
        for key, hint in hints(section).items():
            homes.setdefault(key, []).append(at)
            below = _section_of(hint) or _section_of(_items_of(hint) or str)
            if below is not None:
                visit(below, f"{at}.{key}" if at else key)

    visit(Recipe, "")
    for key in hints(Source):
        homes.setdefault(key, []).append("an entry of data.sft or data.preference")
    rollouts: list[Any] = list(ROLLOUTS.values())
    for key in dict.fromkeys(key for rollout in rollouts for key in hints(rollout)):
        homes.setdefault(key, []).append("an entry of generate")
    tasks: list[Any] = list(TASKS.values())
    for key in dict.fromkeys(key for task in tasks for key in hints(task)):
        homes.setdefault(key, []).append("an entry of eval.tasks")
    return homes


def unknown_key(key: str, path: Path, known: list[str]) -> str:
    """Say what is the matter with a key that the section at `path` does not have."""
    close = [name for name in nearest(key, known) if name != key]
    meant = f"did you mean {either(close)}?" if close else ""
    homes = [home for home in _homes().get(key, []) if home]
    if len(path) == 1 and path[0] in CONFIGS and passes_through(str(path[0]), key):
        return f"unknown key; a field of {CONFIGS[str(path[0])]} goes under {path[0]}.trainer"
    if homes or key in _homes():
        place = f"{key} goes under {either(homes)}" if homes else f"{key} goes at the top of the recipe"
        return f"unknown key; {place}" + (f"; or {meant}" if meant else "")
    if meant:
        return f"unknown key; {meant}"
    far = [f"{home}.{name}" if home else name for name in nearest(key, _homes()) for home in _homes()[name]]
    far = [name for name in far if not name.startswith("an entry")]
    return "unknown key; " + (f"did you mean {either(far)}?" if far else f"known here: {', '.join(known)}")


class Checker:
    """Walks a tree along the schema. `problems` collects one line for everything that is wrong."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def note(self, node: Node, path: Path, message: str) -> _Wrong:
        at = f"{dotted(path)}: " if path else ""
        self.problems.append(f"{node.origin}: {at}{message}")
        return _WRONG

    def section(self, node: Node, section: type, path: Path) -> Any:
        """Return an instance of the dataclass `section`, or a mark that something in it is wrong."""
        if node.value is UNRESOLVED:
            return _WRONG
        if not isinstance(node.value, dict):
            return self.note(node, path, f"must be a mapping of keys to values, not {describe_value(node)}")
        known = list(hints(section))
        values = {key: self.value(node.value[key], section, key, (*path, key)) for key in known if key in node.value}
        wrong = any(value is _WRONG for value in values.values())
        strangers = [key for key in node.value if key not in known]
        for key in strangers:
            self.note(node.value[key], (*path, key), unknown_key(key, path, known))
        for field in _fields(section):
            misspelt = any(field.name in nearest(key, known) for key in strangers)
            if field.name not in node.value and not misspelt:
                self.note(node, (*path, field.name), "missing; it has no default, so the recipe must give it")
        if wrong or strangers or len(values) < len(known):
            return _WRONG
        return section(**values)

    def value(self, node: Node, section: type, key: str, path: Path) -> Any:
        """Return the value of one key, converted and in range, or the mark."""
        hint = hints(section)[key]
        if node.value is UNRESOLVED:
            return _WRONG
        if isinstance(node.value, str) and node.value == "???":
            return self.note(node, path, "must be given, in the recipe or on the command line")
        if path in ENTRIES:
            return self.items(node, path, lambda item, at: self.entry(item, ENTRIES[path], at))
        if path == GENERATE:
            return self.items(node, path, lambda item, at: self.kind(item, at, "rollout", ROLLOUTS, "name"))
        if path == TASK_ENTRIES:
            return self.items(node, path, lambda item, at: self.kind(item, at, "task", TASKS, "path"))
        if path[:1] == GENERATE and len(path) == 3 and key == "source":
            return None if node.value is None else self.entry(node, "sft", path)
        if key == "trainer" and path[0] in CONFIGS:
            found = check_trainer(str(path[0]), node)
            self.problems.extend(found)
            return _WRONG if found or self.unresolved(node) else to_plain(node)
        below = _section_of(hint)
        if below is not None:
            optional = type(None) in alternatives(hint)
            return None if node.value is None and optional else self.section(node, below, path)
        converted = self.convert(node, hint, path)
        rule = rule_for(section, key)
        if converted is _WRONG or converted is None or rule is None or rule.holds(converted):
            return converted
        given = describe_value(node) if isinstance(node.value, list) or node.secret else converted
        return self.note(node, path, f"must be {rule.wanted}, not {given}")

    def convert(self, node: Node, hint: Any, path: Path) -> Any:
        if self.unresolved(node):
            return _WRONG
        item = _items_of(hint)
        if isinstance(node.value, list) and item is not None:
            below = _section_of(item)
            if below is not None:
                return self.items(node, path, lambda entry, at: self.section(entry, below, at))
            return self.items(node, path, lambda entry, at: self.convert(entry, item, at))
        if isinstance(node.value, dict) and any(typing.get_origin(c) is dict for c in alternatives(hint)):
            return to_plain(node)
        if isinstance(node.value, dict | list) and Any in alternatives(hint):
            return to_plain(node)
        try:
            return convert_scalar(node, hint)
        except Mismatch:
            return self.note(node, path, f"must be {describe_type(hint)}, not {describe_value(node)}")

    def items(self, node: Node, path: Path, one: Any) -> Any:
        """Check every item of a list with `one(item, path)`."""
        if not isinstance(node.value, list):
            return self.note(node, path, f"must be a list, not {describe_value(node)}")
        values = [one(item, (*path, index)) for index, item in enumerate(node.value)]
        return _WRONG if any(value is _WRONG for value in values) else values

    def unresolved(self, node: Node) -> bool:
        return node.value is UNRESOLVED or any(child.value is UNRESOLVED for _, child in walk(node))

    def entry(self, node: Node, kind: str, path: Path) -> Any:
        """Return the options of one entry of `data.sft` or `data.preference`: an instance of its source's own class."""
        from posttrain.data.sources import SOURCES

        if not isinstance(node.value, dict):
            return self.note(
                node, path, f"must be a mapping such as {{source: ..., path: ...}}, not {describe_value(node)}"
            )
        named = node.value.get("source")
        if named is None or not isinstance(named.value, str) or named.value not in SOURCES:
            return self.entry_of_no_source(node, named, path)
        source = SOURCES[named.value]
        if kind not in source.makes:
            able = [name for name in sorted(SOURCES) if kind in SOURCES[name].makes]
            makes = either([f"data.{what}" for what in sorted(source.makes)])
            self.note(named, (*path, "source"), f"{named.value} serves {makes}; here use {either(able) or 'none'}")
            return _WRONG
        fill_defaults(node, source.options)
        options = self.section(node, source.options, path)
        if options is not _WRONG:
            for problem in source.check(options):
                key = problem.partition(":")[0]
                self.problems.append(f"{node.value.get(key, node).origin}: {dotted(path)}.{problem}")
        sampling = [key for key in ("fraction", "max_rows", "repeat") if _given(node.value.get(key))]
        if len(sampling) > 1:
            return self.note(node.value[sampling[1]], path, f"give at most one of {either(sampling)}")
        return options

    def kind(self, node: Node, path: Path, key: str, kinds: Mapping[str, Any], example: str) -> Any:
        """Return the options of an entry that is of one of several kinds: an instance of that kind's own class.

        Args:
            node: The entry.
            path: Where it is.
            key: Which of its keys names the kind, `rollout` or `task`.
            kinds: The class of each.
            example: Another key of such an entry, for messages.
        """
        if not isinstance(node.value, dict):
            return self.note(
                node, path, f"must be a mapping such as {{{key}: ..., {example}: ...}}, not {describe_value(node)}"
            )
        named = node.value.get(key)
        if named is None:
            known = list(dict.fromkeys(name for options in kinds.values() for name in hints(options)))
            strangers = [name for name in node.value if name not in known]
            for name in strangers:
                self.note(node.value[name], (*path, name), unknown_key(name, path, known))
            if not any(key in nearest(name, known) for name in strangers):
                self.note(node, (*path, key), f"missing; one of {either(list(kinds))}")
            return _WRONG
        if not isinstance(named.value, str) or named.value not in kinds:
            hint = did_you_mean(str(named.value), list(kinds))
            return self.note(named, (*path, key), f"no {key} is called {describe_value(named)}; {hint}")
        fill_defaults(node, kinds[named.value])
        return self.section(node, kinds[named.value], path)

    def entry_of_no_source(self, node: Node, named: Node | None, path: Path) -> _Wrong:
        """Say what is wrong with an entry whose source is missing or unknown, as far as all sources agree."""
        from posttrain.data.sources import SOURCES

        every: list[Any] = [source.options for source in SOURCES.values()]
        known = list(dict.fromkeys(key for options in every for key in hints(options)))
        strangers = [key for key in node.value if key not in known]
        for key in strangers:
            self.note(node.value[key], (*path, key), unknown_key(key, path, known))
        meant = {name for key in strangers for name in nearest(key, known)}
        if named is None and "source" not in meant:
            self.note(node, (*path, "source"), f"missing; one of {either(sorted(SOURCES))}")
        if "path" not in node.value and "path" not in meant:
            self.note(node, (*path, "path"), "missing; a hub id, a file or a folder")
        if named is not None and named.value is not UNRESOLVED:
            close = nearest(str(named.value), SOURCES)
            hint = f"did you mean {either(close)}?" if close else f"the sources are {either(sorted(SOURCES), ' and ')}"
            self.note(named, (*path, "source"), f"no source is called {describe_value(named)}; {hint}")
        return _WRONG


def _given(node: Node | None) -> bool:
    return node is not None and node.value is not None
