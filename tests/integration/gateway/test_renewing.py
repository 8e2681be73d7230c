"""HTTPS goes on with newer certificates: a disk without room, or a broken file, costs an hour."""

import asyncio
import logging
import ssl
from contextlib import suppress
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization
from integration.rpc.fleet import WAIT_S, Founded

from meshnode.client.home import Home
from meshnode.core.errors import MeshError
from meshnode.node import fronting
from meshnode.node.configuration.http_options import OWN_CERTIFICATE, HttpOptions
from meshnode.node.fronting import Fronting


class Context(ssl.SSLContext):
    """Tells when it was given a certificate."""

    def load_cert_chain(self, *words) -> None:
        super().load_cert_chain(*words)
        self.loaded.set()


class Told(logging.Handler):
    """Tells when there was a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warned = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.warned.set()


@pytest.fixture
async def told():
    handler, log = Told(), logging.getLogger("session_mesh.http")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


async def test_a_certificate_that_could_not_be_loaded_is_loaded_later(tmp_path, monkeypatch, told):
    monkeypatch.setattr(fronting, "RELOAD_S", 0.01)
    home, context = Home(tmp_path), Context(ssl.PROTOCOL_TLS_SERVER)
    context.loaded = asyncio.Event()
    front = Fronting.__new__(Fronting)
    front._ground = SimpleNamespace(home=home, identity=Founded(3).node().identity)
    renewing = asyncio.create_task(front._renew(context))
    async with asyncio.timeout(WAIT_S):
        await told.warned.wait()  # as on a full disk: there is no place to write it to
        home.run.mkdir()
        await context.loaded.wait()
    assert not renewing.done()
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)
    assert list(home.run.iterdir()) == []


async def test_what_to_trust_is_written_anew_with_the_certificate(tmp_path, monkeypatch):
    monkeypatch.setattr(fronting, "RELOAD_S", 0.01)
    home, context = Home(tmp_path), Context(ssl.PROTOCOL_TLS_SERVER)
    home.run.mkdir()
    context.loaded = asyncio.Event()
    front = Fronting.__new__(Fronting)
    identities = [Founded(seed).node().identity for seed in (3, 4)]
    front._ground = SimpleNamespace(home=home, identity=identities[0])
    renewing = asyncio.create_task(front._renew(context))
    async with asyncio.timeout(WAIT_S):
        for identity in identities:
            front._ground.identity = identity
            context.loaded.clear()
            await context.loaded.wait()
            assert home.anchors.read_bytes() == identity.anchors
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)


class Met:
    """A listener as far as certificates go: it tells when it was given another."""

    def __init__(self) -> None:
        self.contexts: asyncio.Queue[ssl.SSLContext] = asyncio.Queue()

    def __setattr__(self, name, value) -> None:
        if name == "tls":
            self.contexts.put_nowait(value)
        super().__setattr__(name, value)


def served_by(context: ssl.SSLContext) -> bytes:
    """Return the certificate that a client of this context sees, by a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    client = trusting.wrap_bio(to_client, to_server)
    for side in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return ssl.DER_cert_to_PEM_cert(client.getpeercert(binary_form=True)).encode()


def sealed(private_key: bytes) -> bytes:
    """Return a private key in PEM under a passphrase."""
    key = serialization.load_pem_private_key(private_key, None)
    passphrase = serialization.BestAvailableEncryption(b"correct horse")
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, passphrase
    )


async def test_files_that_were_given_are_read_again_when_they_are_others(
    tmp_path, monkeypatch, told
):
    monkeypatch.setattr(fronting, "RELOAD_S", 0.01)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    first, second = (Founded(seed).node().identity.leaf() for seed in (3, 4))
    chain.write_bytes(first.chain)
    key.write_bytes(first.private_key)
    front = Fronting.__new__(Fronting)
    front._options = HttpOptions("127.0.0.1:0", str(chain), str(key))
    front._loaded, met = front._stamps(), Met()
    assert first.chain.startswith(served_by(front._options.files_context()))
    renewing = asyncio.create_task(front._reload(met))
    async with asyncio.timeout(WAIT_S):
        key.write_bytes(sealed(first.private_key))
        await told.warned.wait()
        told.warned.clear()
        chain.write_bytes(second.chain)  # and its key is not there yet
        await told.warned.wait()
        assert met.contexts.empty()
        key.write_bytes(second.private_key)
        assert second.chain.startswith(served_by(await met.contexts.get()))
    assert not renewing.done()
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)
    assert met.contexts.empty()


def test_what_cannot_be_written_for_https_is_named(tmp_path):
    home = Home(tmp_path)
    front = Fronting.__new__(Fronting)
    front._options = HttpOptions("127.0.0.1:0", OWN_CERTIFICATE)
    front._ground = SimpleNamespace(home=home, identity=Founded(3).node().identity)
    home.anchors.mkdir()
    with pytest.raises(MeshError, match=f"cannot write {home.anchors}"):
        front._context()
    home.anchors.rmdir()
    with pytest.raises(MeshError, match=f"cannot write {home.run}"):
        front._context()
    home.run.mkdir()
    front._context()
    assert home.anchors.read_bytes() == front._ground.identity.anchors
