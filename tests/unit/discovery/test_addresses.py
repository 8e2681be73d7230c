import pytest

from meshnode.core.errors import UsageError
from meshnode.discovery.seeds import check_advertised, check_seed, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7707", "127.0.0.1", 7707),
        ("anna.example:1", "anna.example", 1),
        ("anna:65535", "anna", 65535),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::1]:7707", "::1", 7707),
        ("[::]:0", "::", 0),
        ("[fe80::1%eth0]:7707", "fe80::1%eth0", 7707),
        ("größer.example:7707", "größer.example", 7707),
    ],
)
def test_a_host_and_a_port_are_told_apart(text, host, port):
    assert parse_address(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "anna",
        "anna:",
        ":7707",
        "anna:65536",
        "anna:-1",
        "anna:+1",
        "anna:1.0",
        "anna: 1",
        "anna:seven",
        "anna:²",
        "::1",
        "::1:7707",
        "[::1]",
        "[::1]7707",
        "[::1:7707",
        "::1]:7707",
        "[]:7707",
        "[[::1]]:7707",
        "[anna]:7707",
        "[127.0.0.1]:7707",
        "an]na:7707",
        "an na:7707",
        "anna\n:7707",
        "http://anna:7707",
        "anna/path:7707",
        f"anna:{'9' * 5000}",
    ],
)
def test_anything_else_is_the_callers_fault_and_says_what_to_write(text):
    with pytest.raises(UsageError, match="not an address") as failure:
        parse_address(text)
    assert "HOST:PORT" in failure.value.hint or "brackets" in failure.value.hint
    assert len(failure.value.message) < 200


@pytest.mark.parametrize("text", ["0.0.0.0:80", "[::]:80", "[0::0]:80"])
def test_what_stands_for_all_addresses_is_advertised_to_nobody(text):
    parse_address(text)
    with pytest.raises(UsageError, match="nobody can dial"):
        check_advertised(text)


@pytest.mark.parametrize("text", ["10.0.0.1:0", "anna:0", "[::1]:00000"])
def test_a_seed_has_a_port(text):
    with pytest.raises(UsageError, match="nobody listens at"):
        check_seed(text)


@pytest.mark.parametrize("text", ["10.0.0.1:7707", "anna:7707", "[::1]:1"])
def test_what_may_be_dialled_is_advertised_and_tried(text):
    check_advertised(text)
    check_seed(text)
    check_advertised("192.0.2.1:0")  # the port that it listens at


def test_what_is_no_address_is_neither():
    for check in (check_advertised, check_seed):
        with pytest.raises(UsageError, match="not an address"):
            check("anna")
