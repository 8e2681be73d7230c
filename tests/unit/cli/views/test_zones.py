"""By which zone days are cut, and what is said where none can be named."""

import pytest
from gateway_log import line

from session_mesh.views.zones import own_zone

POSIX = "CET-1CEST,M3.5.0,M10.5.0/3"


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        (":Europe/Berlin", "Europe/Berlin"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        (":/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        ("EST5EDT", "EST5EDT"),
        ("UTC", "UTC"),
        ("UTC0", "UTC"),
        (":GMT-00", "UTC"),
    ],
)
def test_a_zone_is_named(monkeypatch: pytest.MonkeyPatch, said: str, name: str):
    monkeypatch.setenv("TZ", said)
    assert own_zone() == (name, "")


@pytest.mark.parametrize(
    "said", [POSIX, "UTC1", "nonsense", "../etc", "Europe", "/etc/passwd", "x" * 99, ":"]
)
def test_what_names_no_zone_is_told_and_days_are_those_of_utc(
    monkeypatch: pytest.MonkeyPatch, said: str
):
    monkeypatch.setenv("TZ", said)
    name, note = own_zone()
    assert name == "UTC"
    assert note.startswith(f"TZ={said[:60]} is no name")
    assert "UTC" in note


def test_without_a_word_it_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TZ", raising=False)
    monkeypatch.setattr("tzlocal.get_localzone_name", lambda: "Asia/Kathmandu")
    assert own_zone() == ("Asia/Kathmandu", "")

    def contradict() -> str:
        raise LookupError("two files name two zones")

    monkeypatch.setattr("tzlocal.get_localzone_name", contradict)
    name, note = own_zone()
    assert name == "UTC"
    assert note.startswith("what this machine has for a time zone is no name")


def test_usage_says_so_where_days_are_cut(run, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", POSIX)
    log = tmp_path / "access.log"
    log.write_text(line("r1"))
    words = ("usage", "--source", "higress", "--path", str(log))
    said = f"TZ={POSIX} is no name such as Europe/Berlin: days are those of UTC"
    for more in ((), ("--by", "month"), ("--by", "model", "--days", "9")):
        code, _, err = run(*words, *more)
        assert code == 0
        assert err.count(said) == 1
    for more in (("--tz", "Europe/Berlin"), ("--by", "model"), ("-q",)):
        assert said not in run(*words, *more)[2]
