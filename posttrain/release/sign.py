"""Signatures of release folders by model-signing (https://github.com/sigstore/model-transparency)."""

from __future__ import annotations

import hashlib
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.release.sums import FOREIGN, SIGNATURE

if TYPE_CHECKING:
    from posttrain.recipe.schema_release import Signing

HOW = "pip install -c constraints.txt -e '.[sign]'"
_PEM = b"-----BEGIN "


def missing_extra() -> str | None:
    """Say what to install where model-signing is not there."""
    if find_spec("model_signing") is not None and find_spec("OpenSSL") is not None:
        return None
    return f"signing and checking signatures need model-signing: {HOW}"


def signing_problems(signing: Signing | None) -> list[str]:
    """Return what is wrong with how a release is to be signed; nothing is read of the key but how it begins."""
    if signing is None or signing.later:
        return []
    found = [f"release.signing: {problem}"] if (problem := missing_extra()) else []
    if signing.method == "sigstore":
        return found
    if signing.key is None:
        return [*found, "release.signing.key: give the PEM file with the private key, or method: sigstore"]
    path = Path(signing.key).expanduser()
    if not path.is_file():
        return [*found, f"release.signing.key: there is no file {signing.key!r}; correct the path"]
    with path.open("rb") as file:
        if file.read(len(_PEM)) != _PEM:
            found.append(f"release.signing.key: {path.name} is not in PEM format")
    if signing.password_env is not None and signing.password_env not in os.environ:
        found.append(f"release.signing.password_env: the environment variable {signing.password_env} is not set")
    return found


def _hashing(folder: Path) -> Any:
    """Return how a folder is hashed: every file in it but the signature, and what git and the hub put beside."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE, *FOREIGN], ignore_git_paths=False)


def sign(folder: Path, signing: Signing) -> str:
    """Sign all that is in a folder; the signature goes to `model.sig` there.

    Returns:
        With what: the SHA-256 of the public key, as `openssl` has it in DER, or `sigstore`.

    Raises:
        UserError: The key or its password will not do, or Sigstore does not sign.
    """
    import model_signing

    config = model_signing.signing.Config().set_hashing_config(_hashing(folder))
    if signing.method == "sigstore":
        try:
            # In a CI job the identity is the job's; elsewhere a browser opens.
            config.use_sigstore_signer(use_ambient_credentials="CI" in os.environ).sign(folder, folder / SIGNATURE)
        except Exception as error:
            raise UserError(f"release.signing: sigstore did not sign: {_first_line(error)}") from error
        return "sigstore"
    assert signing.key is not None, "checked before anything is built"
    path = Path(signing.key).expanduser()
    # As bytes, though model-signing 1.1 declares text: it hands it on to a function that takes no text.
    password: Any = os.environ[signing.password_env].encode() if signing.password_env is not None else None
    try:
        fingerprint = public_fingerprint(path, password)
        config.use_elliptic_key_signer(private_key=path, password=password).sign(folder, folder / SIGNATURE)
    except (ValueError, TypeError) as error:
        raise UserError(f"release.signing.key: {path.name} cannot be used: {_first_line(error)}") from error
    return fingerprint


def public_fingerprint(private_key: Path, password: bytes | None = None) -> str:
    """Return the SHA-256 in hex of the public half of a key.

    Raises:
        ValueError: It is no key on an elliptic curve.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    key = load_pem_private_key(private_key.read_bytes(), password)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError("it is no key on an elliptic curve; make one with openssl ecparam -name prime256v1 -genkey")
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def signature_problems(
    folder: Path, *, key: Path | None = None, identity: str | None = None, issuer: str | None = None
) -> list[str]:
    """Check the signature of a folder; return what it says is wrong.

    Args:
        folder: The release.
        key: The PEM file with the public key.
        identity: Instead, who must have signed by Sigstore: an e-mail address or the URL of a CI job.
        issuer: Who vouches for the identity, such as `https://accounts.google.com`.

    Raises:
        UserError: model-signing is not installed, or the key's file cannot be read.
    """
    if problem := missing_extra():
        raise UserError(problem)
    import model_signing

    config = model_signing.verifying.Config().set_hashing_config(_hashing(folder))
    try:
        if key is not None:
            if not key.is_file():
                raise UserError(f"--key: there is no file {os.fspath(key)!r}; give the PEM file with the public key")
            config.use_elliptic_key_verifier(public_key=key)
        else:
            config.use_sigstore_verifier(identity=identity or "", oidc_issuer=issuer or "")
    except (ValueError, TypeError) as error:
        raise UserError(f"--key: {key} is no public key on an elliptic curve: {_first_line(error)}") from error
    try:
        config.verify(folder, folder / SIGNATURE)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever its libraries raise, the signature does not hold
        return _by_file(str(error)) or [f"{SIGNATURE}: {_first_line(error)}"]
    return []


def _by_file(message: str) -> list[str]:
    """Turn what model-signing says of all files at once into a line a file; nothing where it says something else."""
    changed = re.findall(r"Hash mismatch for \\?'([^'\\]+)", message)
    listed = re.findall(r"(Extra|Missing) files (?:found )?in model \\?'.*?\\?': ([^\"'\]]+)", message)
    found = [f"{name}: is not what was signed" for name in changed]
    for which, names in listed:
        said = "was added after it was signed" if which == "Extra" else "is missing, and was signed"
        found += [f"{name}: {said}" for name in names.split(", ")]
    return found


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
