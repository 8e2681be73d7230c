"""Nobody exchanges the roots of a mesh but a root, and no file passes for that of one."""

import pytest
from integration.rpc.fleet import (
    Founded,
    now_s,
)

from meshnode.client.home import Home
from meshnode.client.keys.authorities import check_root
from meshnode.client.keys.rootfile import Sealed, write_root
from meshnode.client.keys.roots import open_root
from meshnode.core.control.control import ControlSet, NoAuthorityError
from meshnode.core.control.entries import Revoke, role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.control.succession import Admits, RootKeys
from meshnode.core.errors import (
    MeshError,
    NotAuthenticatedError,
    NotPermittedError,
    PeerError,
)
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.certificates import (
    issue_admitter,
)
from meshnode.v1 import authority_service_pb2 as authority_pb

WORDS = "correct horse battery"


@pytest.fixture(scope="module")
def mesh() -> Founded:
    return Founded(4)


@pytest.fixture(scope="module")
def foreign() -> Founded:
    return Founded(5)


@pytest.fixture
def control(mesh):
    held = ControlSet(mesh.genesis)
    for role in ("admin", "operator"):
        value = Role(KEYS[role].public, role, role, mesh.root.public, 1, None)
        held.add(role_entry(mesh.root, mesh.mesh_id, value, mesh.chance), 2)
    return held


KEYS = {name: Key(bytes([number]) * 32) for number, name in enumerate(("admin", "operator"), 1)}
THIEF = Key(b"t" * 32)


@pytest.mark.parametrize("who", ["admin", "operator"])
def test_nobody_but_a_root_exchanges_roots(mesh, control, who):
    before = control.entries()
    theft = RootKeys(2, (THIEF.public,))
    with pytest.raises(NoAuthorityError):
        control.add(sign_entry(KEYS[who], mesh.mesh_id, theft, mesh.chance, issued_s=1), 2)
    assert (control.entries(), control.succession.present) == (before, (mesh.root.public,))


def test_an_exchange_of_another_mesh_with_the_same_root_is_refused(mesh, foreign, control):
    before = control.entries()
    theft = RootKeys(2, (THIEF.public,))
    with pytest.raises(PeerError, match="another mesh"):
        control.add(sign_entry(mesh.root, foreign.mesh_id, theft, mesh.chance, issued_s=1), 2)
    assert (control.entries(), control.succession.present) == (before, (mesh.root.public,))


def test_the_thief_of_a_retired_root_changes_nothing_that_counts(mesh, control):
    new = Key(b"n" * 32)

    def say(issuer: Key, body) -> None:
        control.add(sign_entry(issuer, mesh.mesh_id, body, mesh.chance, issued_s=1), 2)

    say(mesh.root, RootKeys(2, (mesh.root.public, new.public)))
    for name, key in KEYS.items():
        value = Role(key.public, name, name, new.public, 1, None)
        control.add(role_entry(new, mesh.mesh_id, value, mesh.chance), 2)
    say(new, RootKeys(3, (new.public,)))

    def counting() -> tuple:
        known = control.succession
        roles = [control.role_of(key.public) for key in (*KEYS.values(), THIEF, mesh.root)]
        return (known.present, known.version, roles, list(known.admitters()))

    before = counting()
    node = node_id_of(THIEF.public)
    certificate = issue_admitter(mesh.root, mesh.mesh_id, node, now_s(), mesh.chance)
    say(mesh.root, RootKeys(3, (THIEF.public,)))
    say(mesh.root, RootKeys(4, (THIEF.public,)))
    say(mesh.root, Admits(THIEF.public, certificate))
    say(mesh.root, Revoke("key", KEYS["operator"].public))
    say(mesh.root, Revoke("node", mesh.admitter.public))
    value = Role(THIEF.public, "admin", "", mesh.root.public, 1, None)
    control.add(role_entry(mesh.root, mesh.mesh_id, value, mesh.chance), 2)
    assert counting() == before
    assert not control.revocations.has_node(mesh.admitter.public, admits=True)


def test_a_thief_that_is_made_root_by_a_retired_root_cannot_make_others(mesh, control):
    new, deeper = Key(b"n" * 32), Key(b"d" * 32)
    for issuer, step in (
        (mesh.root, RootKeys(2, (mesh.root.public, new.public))),
        (new, RootKeys(3, (new.public,))),
        (mesh.root, RootKeys(4, (THIEF.public,))),
        (THIEF, RootKeys(4, (THIEF.public, deeper.public))),
        (THIEF, RootKeys(5, (deeper.public,))),
    ):
        control.add(sign_entry(issuer, mesh.mesh_id, step, mesh.chance, issued_s=1), 2)
    assert control.succession.present == (new.public,)
    assert control.role_of(deeper.public) == control.role_of(THIEF.public) == ""


@pytest.fixture
def file(mesh, tmp_path):
    path = tmp_path / "root.pem"
    write_root(Sealed(path, WORDS), mesh.root, mesh.chance)
    return path


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        ("a link", NotPermittedError),
        ("mode 644", NotPermittedError),
        ("a directory", NotPermittedError),
        ("another passphrase", NotAuthenticatedError),
        ("cut off", MeshError),
        ("another key inside", MeshError),
    ],
)
def test_a_root_file_that_is_not_as_it_was_made_opens_nothing(mesh, file, tmp_path, harm, kind):
    words, path, text = WORDS, file, file.read_bytes()
    if harm == "a link":
        path = tmp_path / "link"
        path.symlink_to(file)
    elif harm == "mode 644":
        file.chmod(0o644)
    elif harm == "a directory":
        path = tmp_path / "directory"
        path.mkdir(mode=0o700)
    elif harm == "another passphrase":
        words = WORDS + "!"
    elif harm == "cut off":
        file.write_bytes(text[:150])
    else:
        other = tmp_path / "other.pem"
        write_root(Sealed(other, WORDS), THIEF, mesh.chance)
        file.write_bytes(
            text.splitlines(keepends=True)[0]
            + b"".join(other.read_bytes().splitlines(keepends=True)[1:])
        )
    before = file.read_bytes()
    with pytest.raises(kind) as failure:
        open_root(Home(tmp_path), path, lambda _: words)
    assert words not in failure.value.message + failure.value.hint
    assert file.read_bytes() == before


def test_the_root_of_another_mesh_signs_nothing_here(mesh, foreign):
    found = authority_pb.ListAuthoritiesResponse(roots=[mesh.root.public])
    with pytest.raises(NotPermittedError, match="another mesh"):
        check_root(foreign.root, found)
    check_root(mesh.root, found)
