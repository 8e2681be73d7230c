"""Where `export` writes, and what it leaves alone."""

import errno
import json
import os
import stat

import pytest


@pytest.mark.parametrize("forced", [(), ("--force",)])
def test_what_is_no_regular_file_is_left_alone(run, mesh, tmp_path, forced):
    pipe, link, directory = tmp_path / "pipe", tmp_path / "link", tmp_path / "directory"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    directory.mkdir()
    round_about = tmp_path / "round"
    round_about.symlink_to(round_about)
    for path in (pipe, link, directory, round_about):
        code, out, err = run("export", str(path), *forced)
        assert (code, out) == (2, ""), err
        assert str(path) in err
        assert "- for stdout" in err
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert {one.name for one in tmp_path.iterdir()} == {"pipe", "link", "directory", "round"}
    assert mesh.calls == []


@pytest.mark.parametrize("name", ["", ".", "..", "/", "x/.."])
@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_directory_is_no_name_for_a_file(run, mesh, tmp_path, monkeypatch, name, form):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("export", name, "--force", "--format", form)
    assert (code, out) == (2, ""), err
    assert "a directory" in err
    assert mesh.calls == []


def test_a_link_is_written_through_if_it_may_be(run, mesh, tmp_path):
    real, link = tmp_path / "elsewhere" / "real.json", tmp_path / "link.json"
    real.parent.mkdir()
    link.symlink_to("elsewhere/real.json")
    assert run("export", str(link))[0] == 7
    assert not real.exists()
    for _ in range(2):  # while it leads nowhere, and once it leads to a file
        assert run("export", str(link), "--force")[:2] == (0, f"wrote {link}\n")
        assert link.readlink().name == "real.json"
        assert json.loads(real.read_text())["summary"]["total_sessions"] == 2
    assert [one.name for one in real.parent.iterdir()] == ["real.json"]


def test_a_stick_whose_file_system_has_no_links_is_written_to(run, mesh, tmp_path, monkeypatch):
    def refused(*_args, **_options):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))  # as vfat and exfat answer

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "report.json"
    assert run("export", str(path))[:2] == (0, f"wrote {path}\n")
    before = path.read_bytes()
    assert json.loads(before)["summary"]["total_sessions"] == 2
    code, _, err = run("export", str(path))
    assert (code, f"{path} exists" in err) == (7, True)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["report.json"]


def test_a_file_that_comes_meanwhile_is_not_replaced_where_there_are_no_links(
    run, mesh, tmp_path, monkeypatch
):
    path = tmp_path / "report.json"

    def came(*_args, **_options):
        path.write_text("somebody else's")
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", came)
    assert run("export", str(path))[0] == 7
    assert path.read_text() == "somebody else's"
