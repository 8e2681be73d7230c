"""`config`: what it prints, and its exit codes."""

import json

import yaml

from meshnode.node.configuration.config_schema import schema


def test_the_commands_check_show_and_print(run, tmp_path):
    given = ("--home", str(tmp_path))
    new = tmp_path / "new.yaml"
    new.write_text("listen: 127.0.0.1:0\n")
    code, out, _ = run("config", "check", str(new), "-o", "json", *given)
    assert (code, json.loads(out)) == (0, {"file": str(new), "warnings": [], "ok": True})
    new.write_text("lisen: 127.0.0.1:0\n")
    code, out, err = run("config", "check", str(new), *given)
    assert (code, out) == (2, "")
    assert 'new.yaml:1: unknown key "lisen" (did you mean "listen"?)' in err
    code, out, _ = run("config", "show", "-o", "yaml", *given)
    assert (code, yaml.safe_load(out)["listen"]) == (0, "0.0.0.0:7707")
    code, out, _ = run("config", "schema", *given)
    assert (code, json.loads(out)) == (0, schema())
