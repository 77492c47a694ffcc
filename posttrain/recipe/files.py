"""Which file a recipe's name stands for, and the tree that it and the files it extends add up to."""

from __future__ import annotations

from pathlib import Path

from posttrain.assets import asset_folder
from posttrain.errors import UserError
from posttrain.recipe.origins import Node, Origin, merge
from posttrain.recipe.suggest import did_you_mean, either
from posttrain.recipe.yaml_nodes import read_yaml

_SUFFIXES = (".yaml", ".yml")


def builtin_recipes() -> list[tuple[str, str, Path]]:
    """Return the package's own recipes as (name, description, path), sorted by name.

    The description is the first comment of the file. Fragments, in folders below, are left out: they only serve to be
    extended.
    """
    paths = sorted(asset_folder("recipes").glob("*.yaml"))
    return [(path.stem, _first_comment(path), path) for path in paths]


def _first_comment(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and line.strip("# "):
            return line.strip("# ")
        if line.strip("# "):
            break
    return ""


def find_recipe(name: str) -> Path:
    """Return the file of a recipe.

    Args:
        name: A path, or a built-in recipe as `tiny`, `tiny.yaml` or `recipes/tiny.yaml`. A path wins.

    Raises:
        UserError: There is no such file and no such built-in.
    """
    path = Path(name)
    if path.is_file():
        return path
    found = _builtin(name.removeprefix("recipes/"))
    if found is not None:
        return found
    what = "a folder, not a recipe" if path.is_dir() else "no such file, and no built-in recipe of that name"
    names = [builtin for builtin, _, _ in builtin_recipes()]
    hint = did_you_mean(path.stem, names) if names else "give the path of a YAML file"
    raise UserError(f"{name}: {what}; {hint}")


def _builtin(name: str) -> Path | None:
    """Return the built-in file of a name, with or without its suffix; never one outside the recipes' folder."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    candidates = [asset_folder("recipes") / name] if name.endswith(_SUFFIXES) else []
    candidates += [asset_folder("recipes") / f"{name}.yaml"]
    return next((path for path in candidates if path.is_file()), None)


def display(path: Path) -> str:
    """Write a path for a message: relative to where the user is or to the package, otherwise in full."""
    absolute = path.resolve()
    for base, prefix in ((Path.cwd(), Path()), (asset_folder("recipes").resolve(), Path("recipes"))):
        if absolute.is_relative_to(base):
            return str(prefix / absolute.relative_to(base))
    return str(path)


def read_chain(path: Path, problems: list[str]) -> Node:
    """Read a recipe and all that it extends into one tree.

    `extends` is a file or a list of files, each relative to the file that says it, or else built-in. Of several, later
    ones win, and the file that extends them wins over all. Mappings merge; lists and `null` replace.

    Raises:
        UserError: A file cannot be read, is not YAML, or extends itself. What can wait until the rest has been checked
            (a key given twice) is added to `problems` instead.
    """
    fatal: list[str] = []
    tree = _read(path, (), problems, fatal)
    if tree is None or fatal:
        raise UserError([*problems, *fatal])
    return tree


def _read(path: Path, above: tuple[Path, ...], problems: list[str], fatal: list[str]) -> Node | None:
    where = display(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        fatal.append(f"{where}: cannot be read: {reason}")
        return None
    # Syntax errors end the reading; duplicate keys do not.
    found: list[str] = []
    tree = read_yaml(text, where, found)
    if tree is None:
        fatal.extend(found)
        return None
    # A fragment that two files extend says what is wrong with it once.
    problems.extend(problem for problem in found if problem not in problems)
    if tree.value is None:
        tree = Node({}, Origin(where))
    if not isinstance(tree.value, dict):
        fatal.append(f"{tree.origin}: a recipe is a mapping of keys to values, such as `name: my-model`")
        return None
    tree = Node(tree.value, Origin(where))
    extends = tree.value.pop("extends", None)
    if extends is None:
        return tree
    chain = (*above, path.resolve())
    below = Node({}, tree.origin)
    for name in _names(extends, fatal):
        parent = _parent(path, str(name.value))
        if parent is None:
            fatal.append(f"{name.origin}: extends: there is no file {name.value} beside {where}, and no such built-in")
        elif parent.resolve() in chain:
            circle = [display(link) for link in (*chain[chain.index(parent.resolve()) :], parent)]
            fatal.append(
                f"{name.origin}: extends: goes round in a circle: {either(circle, ' -> ').replace(',', ' ->')}"
            )
        else:
            read = _read(parent, chain, problems, fatal)
            below = merge(below, read) if read is not None else below
    return merge(below, tree)


def _names(extends: Node, fatal: list[str]) -> list[Node]:
    names = extends.value if isinstance(extends.value, list) else [extends]
    wrong = [name for name in names if not isinstance(name.value, str)]
    fatal.extend(f"{name.origin}: extends: must be a file name or a list of file names" for name in wrong)
    return [name for name in names if name not in wrong]


def _parent(path: Path, name: str) -> Path | None:
    beside = path.parent / name
    return beside if beside.is_file() else _builtin(name.removeprefix("recipes/"))
