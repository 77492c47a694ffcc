"""The section of a recipe that says what is published, under which names and terms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Signing:
    """How release folders are signed (model-signing).

    `method: key` signs with `key`, a PEM file with a private key on an elliptic curve; if it has a password, that is in
    the environment variable `password_env`. `sigstore` signs as who you are: by the identity of the CI job, or by
    logging in through a browser; it needs a network. With `later` the folders are written as ones that are signed by
    that method, and whoever has the key signs them elsewhere.
    """

    method: Literal["key", "sigstore"] = "key"
    key: str | None = None
    password_env: str | None = None
    later: bool = False


@dataclass(frozen=True, kw_only=True)
class Release:
    """What is published.

    Repositories are called ORG/NAME-SFT, ORG/NAME-Instruct and, of quantised variants, ORG/NAME-Instruct-GPTQ with one
    branch a variant; `name` is by default that of the recipe. `checkpoints` limits what is released to some of `base`,
    `sft`, `instruct` and the names of variants; by default it is all but the base, and the base where there is nothing
    else.

    `license` is the SPDX id of the released weights, or the hub's name of a licence such as `llama3.1`; by default what
    the card in the folder of the base model says. Its text is packaged for Apache-2.0 and is otherwise one of
    `license_files`, which are copied as they are: paths, or `hf://OWNER/NAME/FILE` (`hf://OWNER/NAME@REVISION/FILE`)
    for a file in a repository of the hub. `license_reason` says why it differs from the base's.

    `base_model` is the hub id of what `model.base` is a copy of, where that is a folder.

    `prompt` is what every released folder has to answer in a fresh process, with at most `max_new_tokens` tokens.
    `limitations` and `description` go to the card as they are. `public_words` are words that may be in a release
    although they are the name of this machine or its user.
    """

    name: str | None = None
    org: str | None = None
    checkpoints: list[str] | None = None
    base_model: str | None = None
    license: str | None = None
    license_reason: str | None = None
    license_files: list[str] = field(default_factory=list)
    description: str | None = None
    limitations: list[str] = field(default_factory=list)
    prompt: str = "What is the capital of Finland?"
    max_new_tokens: int = 64
    signing: Signing | None = None
    public_words: list[str] = field(default_factory=list)
