"""Release folders to the hub: one repository a checkpoint, one branch a variant, weights before what describes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.errors import UserError
from posttrain.release.layout import ABOUT
from posttrain.release.limits import read_json
from posttrain.release.names import name_problem
from posttrain.release.sums import LEFT_OUT, release_files

MAIN = "main"
_LARGE = 10 << 20  # bytes, from which a file is in a commit of its own, so that it need not be sent again
_THE_HUBS = (".gitattributes",)  # files of a repository that the hub puts there itself
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is to be sent of one folder.

    Attributes:
        folder: The release folder.
        repository: `owner/name`.
        branch: The branch.
        files: Size in bytes of each file, in the order they are sent: weights, other files, then what describes them.
    """

    folder: Path
    repository: str
    branch: str
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(self.files.values())


@dataclass
class Sent:
    """What became of a folder: names of the files that were sent, were there already, and were removed there."""

    sent: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def plans(release: Path) -> list[Plan]:
    """Return what is to be sent, `main` of each repository before its other branches.

    Args:
        release: The folder of the release stage.

    Raises:
        UserError: A folder is not in order, or names a repository or branch that cannot be.
    """
    from posttrain.verify.release import verify

    problems: list[str] = []
    found = []
    for folder in sorted(path.parent for path in release.glob(f"*/{ABOUT}")):
        report = verify(folder)  # what is damaged is not published
        problems += [f"{folder.name}: {problem}" for problem in report.problems]
        if report.problems:
            continue
        about = read_json(folder / ABOUT, ABOUT)
        owner, _, name = str(about.get("repository", "")).rpartition("/")
        branch = str(about.get("branch", MAIN))
        odd = [problem for each in (owner, name) if (problem := name_problem(each, repository=True))]
        odd += [problem] if (problem := name_problem(branch)) else []
        problems += [f"{folder.name}: {ABOUT}: {problem}" for problem in odd]
        if not odd:
            names = sorted(release_files(folder), key=_order)
            found.append(Plan(folder, f"{owner}/{name}", branch, {n: (folder / n).stat().st_size for n in names}))
    places = [(plan.repository, plan.branch) for plan in found]
    problems += [f"two folders are for {r}, branch {b}" for r, b in sorted(set(places)) if places.count((r, b)) > 1]
    if problems:
        raise UserError(problems)
    if not found:
        raise UserError(f"{release}: holds no release folder; build it with posttrain release")
    return sorted(found, key=lambda plan: (plan.repository, plan.branch != MAIN, plan.branch))


def _order(name: str) -> tuple[int, str]:
    """Order weights first and the digests and signature last, so that a branch that looks whole is whole."""
    if name.endswith(".safetensors"):
        return 0, name
    return (2 if name in LEFT_OUT or name == "README.md" else 1), name


def push_all(release: Path, *, public: bool, dry_run: bool, say: Say) -> None:
    """Send every folder of a release; what is there already is not sent again.

    Args:
        release: The folder of the release stage.
        public: Make new repositories public; those that exist stay as they are.
        dry_run: Only say what would be sent; no server is asked.
        say: Called with each line.

    Raises:
        UserError: A folder is not in order, there is no token, or the hub refuses.
    """
    listed = plans(release)
    for plan in listed:
        say(f"{plan.repository}, branch {plan.branch}: {len(plan.files)} files, {plan.bytes / 1e6:,.1f} MB")
        if dry_run:
            for name, size in plan.files.items():
                say(f"  {size:>15,}  {name}")
    if dry_run:
        visible = "public" if public else "private"
        say(f"nothing was sent (--dry-run); repositories that do not exist would be made, {visible}")
        return
    from huggingface_hub import HfApi, get_token

    token = get_token()
    if token is None:
        raise UserError(
            "--push: there is no token of the hub; set HF_TOKEN to one that may write, or log in with hf auth"
        )
    api = HfApi(token=token)
    for plan in listed:
        try:
            sent = push(api, plan, public=public, say=say)
        except Exception as error:
            if not _from_the_hub(error):
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"--push: {plan.repository}, branch {plan.branch}: {reason[0].replace(token, '***')}; what was sent "
                "stays there, and the same command goes on"
            ) from None
        say(
            f"{plan.repository}, branch {plan.branch}: {len(sent.sent)} files sent, {len(sent.there)} were there, "
            f"{len(sent.removed)} removed there"
        )


def _from_the_hub(error: Exception) -> bool:
    """Say whether an error is one of the hub or of the way there, and no fault of the program."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    cause = error.__cause__
    return isinstance(error, (HfHubHTTPError, httpx.HTTPError, OSError)) or isinstance(
        cause, (HfHubHTTPError, httpx.HTTPError, OSError)
    )


def push(api: Any, plan: Plan, *, public: bool, say: Say) -> Sent:
    """Send one folder.

    Large files are a commit each: after an interruption what has arrived is found there and left out. Whatever else is
    on the branch is removed with the last commit.

    Args:
        api: A `huggingface_hub.HfApi`.
        plan: What is to be sent.
        public: Whether a repository that is made is public.
        say: Called before each commit.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api.create_repo(plan.repository, private=not public, exist_ok=True)
    if plan.branch != MAIN:
        api.create_branch(plan.repository, branch=plan.branch, exist_ok=True)
    there = _remote_files(api, plan)
    done = Sent()
    waiting = []
    for name in plan.files:
        if name in there and there[name] == _identity(plan.folder / name, there[name]):
            done.there.append(name)
        else:
            waiting.append(name)
    extra = sorted(set(there) - set(plan.files) - set(_THE_HUBS))
    batches = [[name] for name in waiting if plan.files[name] >= _LARGE]
    small = [name for name in waiting if plan.files[name] < _LARGE]
    if small or extra:
        batches.append(small)
    for batch in batches:
        last = batch is batches[-1]
        operations: list[Any] = [CommitOperationAdd(name, str(plan.folder / name)) for name in batch]
        operations += [CommitOperationDelete(name) for name in extra] if last else []
        shown = batch[0] if len(batch) == 1 else f"{len(batch)} files"
        say(f"  sending {shown} ({sum(plan.files[name] for name in batch) / 1e6:,.1f} MB)")
        title = f"Add {shown}" if batch else "Remove what is not in the release"
        api.create_commit(plan.repository, operations, commit_message=title, revision=plan.branch)
        done.sent += batch
    done.removed += extra
    return done


def _remote_files(api: Any, plan: Plan) -> dict[str, str]:
    """Return `sha256:` or `git:` and the digest of each file on the branch."""
    entries = api.list_repo_tree(plan.repository, recursive=True, revision=plan.branch)
    found = {}
    for entry in entries:
        lfs, blob = getattr(entry, "lfs", None), getattr(entry, "blob_id", None)
        if blob is None:
            continue  # a folder
        found[str(entry.path)] = f"sha256:{_sha256_of(lfs)}" if lfs is not None else f"git:{blob}"
    return found


def _sha256_of(lfs: Any) -> str:
    return str(lfs["sha256"] if isinstance(lfs, Mapping) else lfs.sha256)


def _identity(path: Path, like: str) -> str:
    """Return a local file's digest in the form that the hub has of the remote one."""
    if like.startswith("sha256:"):
        from posttrain.stages.digest import sha256_file

        return f"sha256:{sha256_file(path)}"
    content = path.read_bytes()  # a file that the hub keeps in git itself is small
    blob = b"blob %d\0" % len(content) + content
    return f"git:{hashlib.sha1(blob, usedforsecurity=False).hexdigest()}"
