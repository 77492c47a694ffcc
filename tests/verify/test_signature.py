"""Signatures by model-signing, and what they catch that digests cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from posttrain.cli import main
from posttrain.errors import UserError
from posttrain.recipe.schema_release import Signing
from posttrain.release.sign import public_fingerprint, sign, signing_problems
from posttrain.release.sums import BUILD, SIGNATURE, write_sums
from posttrain.verify.release import verify
from tests.release.made import build_chain

pytest.importorskip("model_signing", reason="pip install -c constraints.txt -e '.[sign]'")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private and a public key on the curve P-256."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("keys")
    key = ec.generate_private_key(ec.SECP256R1())
    kind, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, none))
    subject = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, subject))
    return private, public


@pytest.fixture
def signed(release: Path, keys: tuple[Path, Path]) -> Path:
    """A signed release."""
    assert len(sign(release, Signing(key=str(keys[0])))) == 64
    return release


def test_a_signed_release_is_in_order_wherever_it_is(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    moved = Path(shutil.copytree(signed, tmp_path / "moved" / "other-name"))
    (moved / ".cache" / "huggingface").mkdir(parents=True)
    (moved / ".cache" / "huggingface" / "x").touch()
    report = verify(moved, key=keys[1])
    assert report.problems == []
    assert report.notes == []
    assert str(tmp_path) not in (signed / SIGNATURE).read_text(encoding="utf-8")


def test_a_figure_changed_together_with_the_sums_is_caught_by_the_signature(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    manifest = signed / "manifests" / "sft.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["metrics"]["train_tokens"] += 1
    manifest.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_sums(signed)
    unchecked = verify(signed)
    assert "it is signed, and the signature was not checked: give --key, or --identity and --issuer" in unchecked.notes
    assert not any(problem.startswith("manifests/") for problem in unchecked.problems)
    found = verify(signed, key=keys[1]).problems
    assert "manifests/sft.json: is not what was signed" in found
    assert "SHA256SUMS: is not what was signed" in found
    (signed / "notes.txt").touch()
    (signed / "bom.json").unlink()
    found = verify(signed, key=keys[1]).problems
    assert "notes.txt: was added after it was signed" in found
    assert "bom.json: is missing, and was signed" in found


def test_the_signature_is_over_build_json_too(signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / BUILD).write_text("{}\n", encoding="utf-8")
    assert verify(signed, key=keys[1]).problems == ["build.json: is not what was signed"]


def test_another_key_does_not_fit(signed: Path, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    path = tmp_path / "other.pub"
    subject = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(other.public_bytes(serialization.Encoding.PEM, subject))
    (found,) = verify(signed, key=path).problems
    assert found.startswith("model.sig: ")
    (tmp_path / "no.pub").write_text("no key\n", encoding="utf-8")
    with pytest.raises(UserError, match="is no public key on an elliptic curve"):
        verify(signed, key=tmp_path / "no.pub")
    with pytest.raises(UserError, match="--key: there is no file"):
        verify(signed, key=tmp_path / "missing.pub")


def test_a_signature_that_was_taken_away_is_missed(signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / SIGNATURE).unlink()
    assert verify(signed, key=keys[1]).problems == ["model.sig: is missing, so nobody vouches for this release"]


def test_the_stage_signs_and_release_json_says_so(
    checkpoint: Path, keys: tuple[Path, Path], tmp_path: Path, no_processes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    output = build_chain(checkpoint, tmp_path / "out", f"release.signing={{key: {keys[0]}}}")
    release = output / "release" / "sft"
    assert main(["verify", str(release), "--key", str(keys[1])]) == 0
    assert "in order" in capsys.readouterr().out
    for path in release.rglob("*.json"):
        assert str(keys[0].parent) not in path.read_text(encoding="utf-8")
    (release / SIGNATURE).unlink()
    assert verify(release).problems == ["model.sig: is missing, and release.json says that the release is signed"]


def test_keys_that_will_not_do(tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> Path:
        path = tmp_path / "key.pem"
        secret = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        kind = serialization.PrivateFormat.PKCS8
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, secret))
        return path

    path = pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    with pytest.raises(UserError, match=r"key\.pem cannot be used: it is no key on an elliptic curve"):
        sign(release, Signing(key=str(path)))
    path = pem(ec.generate_private_key(ec.SECP256R1()), b"swordfish")
    with pytest.raises(UserError, match=r"key\.pem cannot be used: "):
        sign(release, Signing(key=str(path)))
    assert signing_problems(Signing(key=str(path), password_env="NOT_SET")) == [
        "release.signing.password_env: the environment variable NOT_SET is not set"
    ]
    monkeypatch.setenv("KEY_PASSWORD", "swordfish")
    assert sign(release, Signing(key=str(path), password_env="KEY_PASSWORD")) == public_fingerprint(path, b"swordfish")
    (tmp_path / "text").write_text("no key")
    assert signing_problems(Signing(key=str(tmp_path / "text"))) == ["release.signing.key: text is not in PEM format"]
    assert signing_problems(Signing(key=str(tmp_path / "missing")))[0].startswith("release.signing.key: there is no")
