from meshnode.agents.environment import agent_environment


def environment_of(**base):
    return agent_environment(base, "s1", "a1", "n1", "/run/mesh.sock")


def test_an_agent_learns_its_own_names_and_keeps_its_callers_environment():
    assert environment_of(PATH="/bin") == {
        "PATH": "/bin",
        "SESSION_MESH_SESSION_ID": "s1",
        "SESSION_MESH_AGENT_ID": "a1",
        "SESSION_MESH_NODE_ID": "n1",
        "SESSION_MESH_SOCKET": "/run/mesh.sock",
    }


def test_an_agent_inherits_no_key_invite_home_or_ticket():
    names = ("SESSION_API_KEY", "SESSION_MESH_INVITE", "SESSION_MESH_HOME", "SESSION_MESH_TICKET")
    assert environment_of(**dict.fromkeys(names, "x")) == environment_of()


def test_a_secret_under_another_name_is_withheld_too():
    hidden = environment_of(A="smk1_abc", B="smj1_abc", C="Authorization: Bearer smk1_abc")
    assert hidden == environment_of()


def test_the_names_of_an_outer_session_are_replaced_by_ones_own():
    assert environment_of(SESSION_MESH_SESSION_ID="outer") == environment_of()
