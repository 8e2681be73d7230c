"""What `config` says of a configuration: is it right, what follows from it, and its schema."""

import os
import re
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from meshnode.client.home import Home
from meshnode.core.errors import NotFoundError, UsageError
from meshnode.ingest.sources import SOURCES
from meshnode.node.configuration import config as keys
from meshnode.node.configuration import http_options
from meshnode.node.configuration.config import load_config
from meshnode.node.configuration.config_schema import schema
from meshnode.node.configuration.configuring import checked, shown
from meshnode.node.configuration.options import HttpFlags, UpOptions
from meshnode.node.configuration.told import merged

PAGE = Path(__file__).parents[4] / "docs" / "configuration.md"
EXAMPLE = next(re.finditer(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL))[1]
WRONG = (
    "lisen: 0.0.0.0:7707",
    "on_exit: never",
    "mdns: perhaps",
    "seeds: 192.0.2.8:7707",
    "ingest: [{path: access.log}]",
    "ingest: [{source: higres, path: access.log}]",
    "budgets: [{name: team, per: day}]",
    "budgets: [{name: team, limit: 1usd, per: week}]",
    "http: {port: 8888}",
    "directions: {north: {handof: builder}}",
    "sessions: [{state: alive}]",
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(schema())


def test_the_page_shows_every_key_and_is_right(home, validator):
    assert set(yaml.safe_load(EXAMPLE)) == {*keys.KEYS, "sessions", "spec"}
    assert validator.is_valid(yaml.safe_load(EXAMPLE))
    found = checked(home, home.path / "example.yaml", EXAMPLE.encode())
    assert found["warnings"] == [
        f"{home.path / 'prices.yaml'} is missing: prices are those of this version"
    ]


def test_what_is_shown_is_a_configuration_that_says_the_same(home, validator):
    home.config.write_text(EXAMPLE)
    first = shown(home, None)
    assert sorted(first["given"]) == sorted(yaml.safe_load(EXAMPLE))
    again = home.path / "again.yaml"
    again.write_text(yaml.safe_dump(first["config"]))
    assert shown(home, again)["config"] == first["config"]
    assert validator.is_valid(first["config"])
    assert set(first["config"]) == set(keys.KEYS)


def test_a_home_without_a_file_has_the_defaults(home, validator):
    found = shown(home, None)
    assert (found["file"], found["given"]) == (None, [])
    assert (found["config"]["listen"], found["config"]["http"]) == ("0.0.0.0:7707", "off")
    assert validator.is_valid(found["config"])
    with pytest.raises(NotFoundError):
        checked(home, None)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_refused_by_the_reader_and_by_the_schema(home, validator, text):
    with pytest.raises(UsageError, match=r"^new\.yaml:1: "):
        checked(home, Path("new.yaml"), text.encode())
    assert not validator.is_valid(yaml.safe_load(text))


def test_the_schema_names_every_key_that_is_read():
    properties = schema()["properties"]
    assert set(properties) == {*keys.KEYS, *keys.LATER_KEYS, "spec"}
    source = properties["ingest"]["items"]["properties"]
    assert set(source) == set(keys.SOURCE_KEYS)
    assert set(source["source"]["enum"]) == {*SOURCES, *keys.LATER_SOURCES, None}
    assert set(properties["budgets"]["items"]["properties"]) == set(keys.SAID)
    assert set(properties["http"]["anyOf"][1]["properties"]) == set(http_options.KEYS)
    meaning = properties["directions"]["additionalProperties"]["anyOf"][1]
    assert set(meaning["properties"]) == set(keys.DIRECTION_KEYS)
    jsonschema_rs.meta.validate(schema())


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("http: 0.0.0.0:8888", "plain HTTP is served on loopback only", "tls: true"),
        ('http: "[::]:8888"', r"not on \[::\]: it would show keys", "tls: true"),
        ('metrics: "[::]:9"', r"on loopback only, not on \[::\]$", "use http with tls"),
        ("http: {listen: 127.0.0.1:8888, tls_cert: c}", "belong together", "tls_key: FILE"),
        ("metrics: 0.0.0.0:9", "metrics without a key", "use http with tls"),
        ("http: {tls_cert: c, tls_key: k}", "cannot serve TLS with .*/c: no such file", "PEM"),
        ('metrics: "localhost:8888"\nhttp: on', "are one port", "metrics: 127.0.0.1:9464"),
        ('metrics: "[::1]:8888"\nhttp: {listen: "[::]:8888", tls: on}', "are one port", "another"),
        ('metrics: 127.0.0.1:8888\nhttp: {listen: "[::]:8888", tls: on}', "are one", "another"),
        ("http: 127.0.0.1:7707", "is where members are met", "another port"),
        ("http: 127.0.0.1:8\nlisten: 127.0.0.1:7", "is where joiners are met", "another port"),
        ('http: "[::1]:7708"', "is where joiners are met: .* 0.0.0.0:7707", "another port"),
        ("http: {listen: 0.0.0.0:7, tls: on}\nlisten: 127.0.0.1:7", "members", "another port"),
        ("metrics: localhost:8\nlisten: 127.0.0.1:7", "joiners are met", "another port"),
    ],
)
def test_what_would_stop_a_node_is_found_before_it_starts_with_its_line(home, text, said, hint):
    with pytest.raises(UsageError, match=rf"^new\.yaml:2: .*{said}") as refused:
        checked(home, Path("new.yaml"), f"mdns: off\n{text}".encode())
    assert hint in refused.value.hint
    assert "--" not in refused.value.hint


@pytest.mark.parametrize(
    "text",
    [
        'metrics: "[::1]:8888"\nhttp: on',
        "metrics: 127.0.0.2:8888\nhttp: on",
        "metrics: 127.0.0.1:8889\nhttp: on",
        "metrics: 127.0.0.1:0\nhttp: 127.0.0.1:0",
        'metrics: "[::1]:8888"\nhttp: {listen: 0.0.0.0:8888, tls: on}',
        "http: 127.0.0.1:7709",
        "http: 127.0.0.1:0\nlisten: 127.0.0.1:0",
        "http: 127.0.0.1:65535\nlisten: 127.0.0.2:65535",
        'http: {listen: 0.0.0.0:7707, tls: on}\nlisten: "[::1]:7707"',
    ],
)
def test_http_and_metrics_may_be_where_both_can_be_listened_at(home, text):
    assert checked(home, Path("new.yaml"), text.encode())["warnings"] == []


@pytest.mark.parametrize("pipe", ["certificate", "key"])
def test_a_certificate_or_key_that_would_be_waited_for_is_refused(home, pipe):
    (home.path / "certificate").write_text("PEM")
    (home.path / "key").write_text("PEM")
    (home.path / pipe).unlink()
    os.mkfifo(home.path / pipe)
    text = "http: {tls_cert: certificate, tls_key: key}"
    with pytest.raises(UsageError, match=f"the {pipe} is no regular file"):
        checked(home, home.path / "new.yaml", text.encode())


def test_what_a_flag_asks_for_is_refused_in_words_of_flags(home):
    (home.path / "new.yaml").write_text("http: 127.0.0.1:8888")
    config = load_config(home.path / "new.yaml")
    with pytest.raises(UsageError, match=r"^plain HTTP") as refused:
        merged(home, config, UpOptions(http=HttpFlags("0.0.0.0:8888")))
    assert "--http-tls" in refused.value.hint


def test_mistakes_of_the_price_file_are_told(home):
    (home.path / "mine.yaml").write_text("prices: [{model: m, inputt: 1}]")
    found = checked(home, home.path / "new.yaml", b"prices: mine.yaml")
    assert 'unknown key "inputt"' in found["warnings"][0]
