"""A root key in a sealed file: other tools open it, and nothing else does without the words."""

import os
import shutil
import subprocess
from random import Random

import pytest

from meshnode.client.home import Home
from meshnode.client.keys.keyfiles import write_secret
from meshnode.client.keys.rootfile import BEGIN, Sealed, read_root, write_root
from meshnode.client.keys.roots import export_root, holds_root, open_root, remove_plain_root
from meshnode.core.errors import (
    ConflictError,
    DamagedError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    UsageError,
)
from meshnode.core.keys import Key, key_id_of

chance = Random(7).randbytes
ROOT = Key.new(chance)
WORDS = "correct horse battery"


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("root") / "root.pem"
    write_root(Sealed(path, WORDS), ROOT, chance)
    return path.read_bytes()


@pytest.fixture
def file(tmp_path, text):
    path = tmp_path / "root.pem"
    path.write_bytes(text)
    path.chmod(0o600)
    return path


def test_what_is_sealed_is_opened_by_its_passphrase(file):
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_root(file, lambda _: WORDS).seed == ROOT.seed


def test_the_file_is_the_users_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        write_root(Sealed(tmp_path / "r", WORDS), ROOT, chance)
    finally:
        os.umask(before)
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o600


def test_openssl_opens_it_and_says_the_same_key(file):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    command = [openssl, "pkey", "-in", str(file), "-passin", f"pass:{WORDS}", "-noout", "-text"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    digits = "".join(shown.partition("pub:")[2].split()).replace(":", "")
    assert bytes.fromhex(digits) == ROOT.public


def test_what_openssl_seals_is_read(tmp_path, file):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    other = tmp_path / "other.pem"
    options = ("-topk8", "-v2", "aes-256-cbc", "-scrypt", "-passout", "pass:another one")
    command = [openssl, "pkcs8", "-in", str(file), "-passin", f"pass:{WORDS}", *options]
    subprocess.run([*command, "-out", str(other)], capture_output=True, check=True)
    other.chmod(0o600)
    assert read_root(other, lambda _: "another one").seed == ROOT.seed


@pytest.mark.parametrize("words", ["", "wrong", "correct horse batterx", WORDS + " "])
def test_another_passphrase_opens_nothing(file, text, words):
    with pytest.raises(NotAuthenticatedError, match="passphrase"):
        read_root(file, lambda _: words)
    assert file.read_bytes() == text


def test_a_file_that_is_not_all_there_is_damaged_before_anybody_is_asked(file, text):
    at = text.index(BEGIN) + 60
    for broken in (
        text[: at + 1],
        text[:at] + text[at + 1 :],
        text[:at] + b"*" + text[at + 1 :],
        BEGIN,
    ):
        file.write_bytes(broken)
        with pytest.raises(DamagedError, match="not complete"):
            read_root(file, lambda _: pytest.fail("asked"))


def test_any_other_character_is_never_another_key(file, text):
    rng = Random(3)
    body = range(text.index(BEGIN) + len(BEGIN) + 1, text.index(b"-----END") - 4)
    for place in rng.sample(body, 40):
        flipped = bytearray(text)
        flipped[place] ^= 1
        file.write_bytes(flipped)
        with pytest.raises((NotAuthenticatedError, DamagedError)):
            read_root(file, lambda _: WORDS)
    assert text.startswith(b"session-mesh root key " + key_id_of(ROOT.public).encode())


def test_a_file_is_never_overwritten(file, text):
    with pytest.raises(ConflictError):
        write_root(Sealed(file, WORDS), Key.new(chance), chance)
    assert file.read_bytes() == text


@pytest.mark.parametrize("words", ["", "short", "x" * 1025])
def test_a_passphrase_that_protects_nothing_is_refused_and_nothing_written(tmp_path, words):
    with pytest.raises(UsageError, match="8 to 1024"):
        write_root(Sealed(tmp_path / "r", words), ROOT, chance)
    assert list(tmp_path.iterdir()) == []


def test_the_passphrase_is_not_in_what_a_traceback_shows(tmp_path):
    assert WORDS not in repr(Sealed(tmp_path, WORDS))


def test_a_link_and_a_file_open_to_others_are_refused(tmp_path, file):
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(NotPermittedError, match="link"):
        read_root(link, lambda _: WORDS)
    file.chmod(0o644)
    with pytest.raises(NotPermittedError, match="other users"):
        read_root(file, lambda _: WORDS)


def test_a_home_keeps_its_root_unsealed_until_it_is_moved(tmp_path):
    home, out = Home(tmp_path), tmp_path / "out.pem"
    with pytest.raises(NotFoundError, match="missing"):
        open_root(home, None, lambda _: "")
    write_secret(home.root_key, ROOT.seed)
    root = open_root(home, None, lambda _: pytest.fail("asked"))
    assert export_root(root, Sealed(out, WORDS), chance)["file"] == str(out)
    assert holds_root(home, root, lambda _: pytest.fail("asked"))
    remove_plain_root(home)
    assert not holds_root(home, root, lambda _: pytest.fail("asked"))
    assert not home.root_key.exists()
    assert open_root(home, out, lambda _: WORDS).seed == ROOT.seed
