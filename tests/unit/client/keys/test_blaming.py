"""Who is refused because of the key in the environment hears where that key is."""

import pytest

from meshnode.client.keys.blaming import KEY_VARIABLE, blaming
from meshnode.core.control.grants import ANOTHER_KEY
from meshnode.core.errors import (
    MeshError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
)

KEY = {KEY_VARIABLE: "smk1_x"}


def hint(error: MeshError, environment: dict[str, str]) -> str:
    with pytest.raises(type(error)) as refused, blaming(environment):
        raise error
    return refused.value.hint


@pytest.mark.parametrize("kind", [NotAuthenticatedError, NotPermittedError])
@pytest.mark.parametrize("before", ["", "it may: read"])
def test_a_refused_key_of_the_environment_is_named_with_the_way_out(kind, before):
    said = hint(kind("this key may not steer", before), KEY)
    assert said.startswith(before)
    assert said.endswith("or unset SESSION_API_KEY")
    assert "smk1_x" not in said


def test_an_expired_key_is_not_to_be_made_anew_with_itself():
    said = hint(NotAuthenticatedError("this session key has expired", ANOTHER_KEY), KEY)
    assert ANOTHER_KEY not in said
    assert "env -u SESSION_API_KEY session-mesh keys new" in said


@pytest.mark.parametrize("environment", [{}, {KEY_VARIABLE: " "}])
def test_without_a_key_there_is_nothing_to_blame(environment):
    assert hint(NotPermittedError("no", "ask"), environment) == "ask"


def test_what_is_no_refusal_of_a_key_stays_as_it_is():
    assert hint(NotFoundError("no such session", "look"), KEY) == "look"
    said = "make one, or unset SESSION_API_KEY"
    assert hint(NotAuthenticatedError("not a session key", said), KEY) == said
