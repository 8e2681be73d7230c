"""Bodies and parameters are read as they are meant, or refused with the name of what is off."""

import pytest

from meshnode.core.errors import UsageError
from meshnode.gateway.pages import BEHIND
from meshnode.gateway.problems import Problem
from meshnode.gateway.strict import about, check_address, check_path, parse_object, parse_query


def refused(read, *words):
    with pytest.raises(Problem) as raised:
        read()
    problem = raised.value
    assert problem.status == 400
    for word in words:
        assert word in f"{problem.detail} {problem.hint}"
    return problem


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"agent_id=123&direction=north", "not JSON"),
        (b"[]", "no JSON object"),
        (b'"text"', "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"a": 1} {"b": 2}', "not JSON"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": -Infinity}', "-Infinity is no JSON"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"x": {"a": 1, "\\u0061": 2}}', "twice"),
        (b'{"a": "\\ud800"}', "not Unicode"),
        (b'{"\\udfff": 1}', "not Unicode"),
        (b'{"a": "\xff"}', "not Unicode"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": 123456789012345678901}', "too large"),
        (b'{"a": 0.' + b"1" * 40 + b"}", "digits"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "nested deeper"),
        (b"[" * 60_000, "nested deeper"),
        (b'{"a": "' + b'\\"[' * 20_000 + b"}", "not JSON"),
    ],
)
def test_what_parsers_disagree_on_is_refused(body, words):
    refused(lambda: parse_object(body), words)


def test_brackets_inside_of_texts_nest_nothing():
    body = b'{"a": "' + b"[{" * 1000 + b'\\"", "b": {"c": [1]}}'
    assert parse_object(body).text("a", chars_max=9000).startswith("[{")


@pytest.mark.parametrize("ttl", ["true", "1.0", "1e3", '"60"', "0", "-1", "2592001", "null5"])
def test_a_lifetime_is_a_whole_number_and_nothing_that_looks_like_one(ttl):
    refused(lambda: parse_object(f'{{"ttl": {ttl}}}'.encode()).integer("ttl", 1, 2592000, 3600))


def test_fields_are_read_by_their_kind():
    said = parse_object(b'{"a": "x", "n": 7, "l": ["y"], "m": {"k": "v", "f": 0.30, "b": true}}')
    assert (said.text("a"), said.integer("n", 1, 9, 0), said.texts("l")) == ("x", 7, ("y",))
    assert said.attributes("m") == {"k": "v", "f": "0.30", "b": "true"}
    assert said.text("absent") == ""
    for wrong in (
        lambda: said.text("n"),
        lambda: said.text("absent", needed=True),
        lambda: said.text("a", chars_max=0),
        lambda: said.texts("a"),
        lambda: said.attributes("l"),
        lambda: said.choice("a", ("soft",), "soft"),
        lambda: said.flag("a"),
    ):
        assert refused(wrong).more["field"]
    assert refused(lambda: said.check_known(("a", "n", "l"))).more == {"field": "m"}


def test_parameters_are_known_and_given_once():
    read = parse_query(
        b"filter=active&label=a%3Db&label=c=d&limit=5", ("filter", "label", "limit"), ("label",)
    )
    assert (read.text("filter"), read.pairs("label")) == ("active", {"a": "b", "c": "d"})
    assert read.count("limit", 1000) == 5
    refused(lambda: parse_query(b"filter=", ("filter",)).text("filter"), "empty")
    refused(lambda: parse_query(b"filter=x", ()), "takes none")
    refused(lambda: parse_query(b"fliter=x", ("filter",)), "fliter")
    refused(lambda: parse_query(b"a=1&a=2", ("a",)), "twice")
    refused(lambda: parse_query(b"a=%ff", ("a",)))
    refused(lambda: parse_query(b"&".join([b"a=1"] * 100), ("a",)))
    for count in (b"0", b"-1", b"1.5", b"1001", b"9" * 30, b"%D9%A3"):
        refused(lambda count=count: parse_query(b"n=" + count, ("n",)).count("n", 1000), "n")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/sessions/smk1_AAAA", b""),
        ("/health", b"key=smk1_AAAA"),
        ("/metrics", b"smk1_AAAA"),
        ("/nowhere", b"a=b&smk1_AAAA=c"),
        ("/openapi.json", b"key=smk1%5FAAAA"),
        ("/openapi.json", b"key=%73mk1_AAAA&%ff"),
    ],
)
def test_a_key_is_no_part_of_any_address(path, query):
    problem = refused(
        lambda: check_address({"path": path, "query_string": query}), "Authorization", "revoke"
    )
    assert "AAAA" not in problem.detail + problem.hint
    check_address({"path": "/sessions/smk", "query_string": b"filter=alive"})


def test_what_is_off_is_named_wherever_it_is_noticed():
    assert refused(lambda: parse_object(b'{"x": {"a": 1, "a": 2}}')).more == {"field": "a"}
    assert refused(lambda: check_path("agent_id", "a" * 513)).more == {"field": "agent_id"}
    place = parse_query(b"next=200", ("next",))
    assert place.place("next", BEHIND) == "200"
    assert parse_query(b"", ("next",)).place("next", BEHIND) == ""
    for wrong in (b"next=%2B1", b"next=a=", b"next=%D9%A3", b"next=x%0A"):
        asked = parse_query(wrong, ("next",))
        assert refused(lambda asked=asked: asked.place("next", BEHIND)).more == {"field": "next"}

    def label():
        with about("session_key"):
            raise UsageError("too long", "shorten it")

    assert refused(label, "too long", "shorten it").more == {"field": "session_key"}


def test_what_is_needed_is_not_to_be_left_out():
    said = parse_object(b'{"a": ""}')
    assert not refused(lambda: said.text("a", needed=True), "empty").hint
    assert refused(lambda: said.text("a")).hint == "leave it out"
