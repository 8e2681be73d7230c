"""What a node is told to be, wherever it is started from."""

from pathlib import Path

import pytest

from meshnode.client.home import Home
from meshnode.core.errors import UsageError
from meshnode.node.configuration.options import UpOptions
from meshnode.node.configuration.told import config_of, merged


def paths(home: Home, options: UpOptions) -> list[str]:
    return [one.path for one in merged(home, config_of(home, options), options).ingest]


def test_a_log_is_named_from_where_the_configuration_lies(tmp_path, monkeypatch):
    home, there = Home(tmp_path / "home"), tmp_path / "etc"
    home.path.mkdir()
    there.mkdir()
    logs = "\n".join(f"  - {{source: higress, path: {one}}}" for one in ("a.log", "/b.log", "~/c"))
    for directory in (home.path, there):
        (directory / "config.yaml").write_text(f"ingest:\n{logs}\n")
    monkeypatch.setenv("HOME", "/srv/anna")
    monkeypatch.chdir("/")
    assert paths(home, UpOptions()) == [f"{home.path}/a.log", "/b.log", "/srv/anna/c"]
    monkeypatch.chdir(there)
    named = UpOptions(config=Path("config.yaml"))
    assert paths(home, named) == [f"{there}/a.log", "/b.log", "/srv/anna/c"]


def test_labels_of_flags_and_configuration_have_room_together(tmp_path):
    home = Home(tmp_path)
    home.config.write_text("labels:\n" + "".join(f"  k{one}: v\n" for one in range(64)))
    few, more = UpOptions(labels={"k0": "w"}), UpOptions(labels={"new": "v"})
    assert merged(home, config_of(home, few), few).labels["k0"] == "w"
    with pytest.raises(UsageError, match="at most 64 labels"):
        merged(home, config_of(home, more), more)


@pytest.mark.parametrize(
    "options", [UpOptions(advertise="0.0.0.0:80"), UpOptions(seeds=("10.0.0.1:0",))]
)
def test_flags_name_no_address_that_can_be_nobodys(tmp_path, options):
    home = Home(tmp_path)
    with pytest.raises(UsageError, match="nobody"):
        merged(home, config_of(home, options), options)
