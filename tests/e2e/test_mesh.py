"""Several nodes: whatever happens on one is seen, and can be done, from the others."""

import shlex
import signal

import pytest
from e2e.fleet import wait_until

HIGRESS = (
    '{{"ai_log":"{{\\"session_id\\":\\"{session}\\",\\"chat_id\\":\\"{chat}\\",'
    '\\"model\\":\\"{model}\\",\\"input_token\\":{input},\\"output_token\\":{output}}}",'
    '"request_id":"{chat}","start_time":"2026-11-20T09:30:15.123Z"}}\n'
)


def test_all_nodes_see_all_nodes(trio):
    for node in trio:
        assert node.states() == {"anna": "alive", "berta": "alive", "carl": "alive"}
        coverage = node.json("nodes")["coverage"]
        assert (coverage["nodes_known"], coverage["nodes_heard"]) == (3, 3)
        status = node.json("status")
        assert (status["feeds_held"], status["feeds_wanted"]) == (3, 0)
        assert "3 held" in node.call("status").out


def test_a_session_of_one_node_is_listed_by_the_others(trio):
    anna, berta, carl = trio
    anna.call("run", "--detach", "--agent-id", "wanderer", "--spec", "maps", "--", "cat")
    for node in (berta, carl):
        wait_until(lambda node=node: "wanderer" in node.sessions("--filter", "alive"), node.name)
        session = node.sessions()["wanderer"]
        assert (session["node_name"], session["specializations"]) == ("anna", ["maps"])
    carl.json("kill", "wanderer", "--yes")


def test_steer_from_another_node_reaches_the_agent_and_its_receipt_is_verified(trio):
    anna, berta, _ = trio
    anna.call("run", "--detach", "--agent-id", "driver", "--", "cat")
    wait_until(lambda: "driver" in berta.sessions())
    answer = berta.json("steer", "--agent-id", "driver", "--direction", "west")
    assert (answer["outcome"], answer["receipt_verified"]) == ("delivered", True)
    wait_until(lambda: "direction: west" in berta.call("logs", "driver").out)
    again = berta.json("steer", "driver", "line one\nline two", "--command-id", "a" * 26)
    same = berta.json("steer", "driver", "line one\nline two", "--command-id", "a" * 26)
    assert again["outcome"] == same["outcome"] == "delivered"
    wait_until(lambda: "line one line two" in berta.call("logs", "driver").out)
    berta.json("kill", "driver", "--yes")


def test_kill_from_another_node_ends_the_whole_tree(trio):
    anna, _, carl = trio
    script = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo child; sleep 600' &) ; cat"
    anna.call("run", "--detach", "--agent-id", "stubborn", "--", "sh", "-c", script)
    wait_until(lambda: "stubborn" in carl.sessions())
    wait_until(lambda: "child" in anna.call("logs", "stubborn").out)
    answer = carl.json("kill", "--agent-id", "stubborn", "--force")
    assert answer["outcome"] == "applied"
    assert answer["processes"]["found"] >= 3
    assert answer["processes"]["gone"] == answer["processes"]["found"]
    assert carl.json("kill", "stubborn", "--yes")["detail"] == "already ended"


def test_an_unknown_agent_is_exit_3(trio):
    for words in (("steer", "nobody", "hello"), ("kill", "nobody", "--yes"), ("logs", "nobody")):
        answer = trio[1].call(*words, "-o", "json")
        assert answer.code == 3, answer.err
        assert "nobody" in answer.error["message"]


def test_a_key_that_is_none_is_exit_4(trio):
    anna, berta, _ = trio
    anna.call("run", "--detach", "--agent-id", "guarded", "--", "cat")
    wait_until(lambda: "guarded" in berta.sessions())
    for key in ("nonsense", "smk1_AAAA"):
        bad = {"SESSION_API_KEY": key}
        answer = berta.call("steer", "guarded", "hello", "-o", "json", env=bad)
        assert answer.code == 4, answer.err
        assert answer.error["code"] == "not_authenticated"
    anna.json("kill", "guarded", "--yes")


def test_a_key_without_the_permission_is_exit_5(trio):
    anna, berta, _ = trio
    anna.call("run", "--detach", "--agent-id", "watched", "--", "cat")
    wait_until(lambda: "watched" in berta.sessions())
    key = berta.json("keys", "new", "--action", "read")["key"]
    for words in (("steer", "watched", "hello"), ("kill", "watched", "--yes")):
        answer = berta.call(*words, "-o", "json", env={"SESSION_API_KEY": key})
        assert answer.code == 5, answer.err
        assert "may not" in answer.error["message"]
        assert answer.error["hint"].endswith("or unset SESSION_API_KEY")
    for words in (("logs", "watched"), ("audit", "--node", "anna"), ("keys", "new", "--renewable")):
        refused = berta.call(*words, "-o", "json", env={"SESSION_API_KEY": key})
        assert refused.code == 5, refused.err
        assert refused.error["hint"].endswith("or unset SESSION_API_KEY"), words
    other = berta.json("keys", "new", "--action", "steer", "--agent-id", "somebody-else")["key"]
    narrow = berta.call("steer", "watched", "hi", env={"SESSION_API_KEY": other})
    assert narrow.code == 5
    assert anna.sessions()["watched"]["message_count"] == 0
    anna.json("kill", "watched", "--yes")


def test_registered_specialists_are_found_from_every_node(trio):
    anna, berta, carl = trio
    berta.call("run", "--detach", "--agent-id", "painter", "--spec", "images", "--", "cat")
    anna.json("register", "--spec", "images", "--agent-id", "printer", "--attr", "load=0.1")
    wait_until(lambda: len(carl.json("find", "images")["agents"]) == 2)
    found = carl.json("find", "images")
    assert [agent["agent_id"] for agent in found["agents"]] == ["painter", "printer"]  # one runs
    assert found["agents"][1]["load"] == 0.1
    assert found["coverage"]["nodes_heard"] == 3
    berta.json("kill", "painter", "--yes")
    wait_until(lambda: len(carl.json("find", "images")["agents"]) == 1)


def test_an_observer_may_look_and_not_command(fleet):
    anna = fleet.node("anna")
    anna.json("init", "--name", "anna")
    anna.up("--listen", "127.0.0.1:0", "--no-mdns")
    watcher, device = fleet.node("watcher"), fleet.node("device")
    assert fleet.join(anna, watcher, "--role", "observer")["role"] == "observer"
    fleet.join(anna, device, "--node-only", "--label", "site=roof")
    watcher.up("--listen", "127.0.0.1:0", "--no-mdns")
    device.up("--listen", "127.0.0.1:0", "--no-mdns")
    anna.call("run", "--detach", "--agent-id", "work", "--", "cat")
    for node in (watcher, device):
        wait_until(lambda node=node: "work" in node.sessions())
    assert watcher.call("steer", "work", "hello").code == 5
    assert device.call("steer", "work", "hello").code == 4
    assert device.json("status")["role"] == ""
    device.end()
    assert fleet.join(anna, device)["role"] == "operator", "a member may gain a role"
    device.up()
    wait_until(lambda: device.json("status")["role"] == "operator")
    assert device.call("steer", "work", "hello").code == 0
    wait_until(
        lambda: "device" in anna.states()
    )  # that it hears anna is no word that anna hears it
    labels = {node["name"]: node["labels"] for node in anna.json("nodes")["nodes"]}
    assert labels["device"] == {"site": "roof"}


def test_cost_of_one_node_is_answered_by_another(fleet):
    anna = fleet.node("anna")
    log = fleet.directory / "access.log"
    anna.json("init", "--name", "anna")
    config = f"ingest:\n  - source: higress\n    path: {log}\n    refresh_interval: 1s\n"
    (anna.home / "config.yaml").write_text(config)
    anna.up("--listen", "127.0.0.1:0", "--no-mdns")
    berta = fleet.node("berta")
    fleet.join(anna, berta)
    berta.up("--listen", "127.0.0.1:0", "--no-mdns")
    with log.open("a") as file:
        for number in range(10):
            model = "gpt-4o" if number % 2 else "nobody-knows-it"
            line = {"session": "s1", "chat": f"c{number}", "model": model}
            file.write(HIGRESS.format(input=1000, output=100, **line))
    cost = wait_until(lambda: (c := berta.json("cost", "--by", "model"))["records"] == 10 and c)
    groups = {group["key"]["model"]: group for group in cost["groups"]}
    assert groups["gpt-4o"]["usage"]["input"] == 5000
    assert groups["gpt-4o"]["cost_usd"] == "0.0175"
    assert groups["nobody-knows-it"]["cost_usd"] is None
    assert [one["model"] for one in cost["unpriced"]] == ["nobody-knows-it"]
    assert cost["coverage"]["nodes_known"] == 2
    wait_until(lambda: berta.json("cost")["coverage"]["nodes_heard"] == 2)
    anna.end(signal.SIGKILL)
    wait_until(lambda: berta.json("cost")["coverage"]["nodes_heard"] == 1)
    assert berta.json("cost")["records"] == 10, "cut off is not gone"
    anna.up()


def test_a_killed_node_turns_unreachable_and_comes_back(fleet):
    anna, berta, carl = fleet.mesh("anna", "berta", "carl")
    berta.call("run", "--detach", "--agent-id", "islander", "--", "cat")
    wait_until(lambda: "islander" in carl.sessions())
    pid = carl.sessions()["islander"]["pid"]
    berta.end(signal.SIGKILL)
    wait_until(lambda: carl.states()["berta"] == "unreachable")
    session = carl.sessions()["islander"]
    assert (session["state"], session["alive"], session["phase"]) == (
        "unreachable",
        False,
        "RECONNECT",
    )
    missing = carl.json("list")["coverage"]["missing"]
    assert [one["node_name"] for one in missing] == ["berta"]
    refused = carl.call("steer", "islander", "hello", "-o", "json")
    assert refused.code == 6, refused.err
    berta.up()
    wait_until(lambda: carl.sessions()["islander"]["alive"])
    assert carl.sessions()["islander"]["pid"] == pid
    assert carl.json("steer", "islander", "welcome back")["outcome"] == "delivered"
    assert carl.json("kill", "islander", "--yes")["outcome"] == "applied"
    assert anna.states()["berta"] == "alive"


def test_a_node_whose_terminal_closes_is_down(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    assert berta.end(signal.SIGHUP) == 0
    wait_until(lambda: anna.states()["berta"] == "down")


def test_leaving_while_nobody_hears_it_is_said(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    anna.end()
    wait_until(lambda: berta.states()["anna"] == "down")
    left = berta.call("leave", "--yes", "-o", "json")
    assert (left.code, left.json["links"], left.json["members"]) == (0, 0, 1), left
    assert "session-mesh nodes forget berta" in left.err
    assert berta.process.wait(10) == 0
    anna.up()
    gone = anna.call("leave", "--yes", "-o", "json")
    assert (gone.code, gone.json["members"]) == (0, 1), gone  # berta has not told it


def test_down_is_seen_as_down_and_leave_as_left(fleet):
    anna, berta, carl = fleet.mesh("anna", "berta", "carl")
    carl.json("down")
    wait_until(lambda: anna.states()["carl"] == "down")
    assert carl.process.wait(10) == 0
    assert berta.call("leave").code == 2, "leaving is for good: off a terminal it needs --yes"
    left = berta.call("leave", "--yes", "-o", "json")
    assert (left.json["links"], left.json["members"], left.err) == (1, 2, "")
    wait_until(lambda: anna.states()["berta"] == "left")
    assert berta.process.wait(10) == 0
    refused = berta.call("up", "-o", "json", *berta.flags)
    assert (refused.code, refused.error["code"]) == (4, "not_authenticated")
    assert "has left" in refused.error["message"]
    enter, make = (one.split(": ")[1] for one in refused.error["hint"].split("; "))
    assert berta.call(*shlex.split(make)[1:], "--no-mdns", "--listen", "127.0.0.1:0").code == 0
    assert berta.call("--home", f"{berta.home}-new", "down").code == 0
    invite = anna.json("invite")["invite"]
    entered = berta.call(*shlex.split(enter)[1:], "--listen", "127.0.0.1:0", stdin=invite)
    assert entered.code == 0, entered.err
    wait_until(lambda: anna.states()["berta"] == "alive")
    assert berta.call("down").code == 0


def test_a_restart_answers_at_once_from_its_disk(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    anna.call("run", "--detach", "--agent-id", "known", "--", "cat")
    wait_until(lambda: "known" in berta.sessions())
    anna.call("kill", "known", "--yes")
    wait_until(lambda: berta.sessions("--filter", "all")["known"]["state"] == "killed")
    berta.end()
    anna.end()
    berta.up()
    assert berta.sessions("--filter", "all")["known"]["state"] == "killed"
    assert berta.states()["anna"] in {"down", "unreachable"}


def test_nodes_find_each_other_by_mdns(fleet):
    anna = fleet.node("anna")
    anna.json("init", "--name", "anna")
    anna.up("--listen", "127.0.0.1:0", "--mdns")
    berta = fleet.node("berta")
    fleet.join(anna, berta)
    anna.end()
    berta.up("--listen", "127.0.0.1:0", "--mdns")
    anna.up("--listen", "127.0.0.1:0", "--mdns")  # on a port that berta was never told
    if "unavailable" in anna.json("status")["mdns"]:
        pytest.skip("multicast is not to be had on this machine")
    wait_until(lambda: berta.states().get("anna") == "alive")


def test_nodes_find_each_other_by_seed(fleet):
    anna = fleet.node("anna")
    anna.json("init", "--name", "anna")
    anna.up("--listen", "127.0.0.1:0", "--no-mdns")
    berta = fleet.node("berta")
    fleet.join(anna, berta)
    anna.end()
    anna.up("--listen", "127.0.0.1:0", "--no-mdns")
    berta.up("--listen", "127.0.0.1:0", "--no-mdns", "--seed", anna.ready["listen"])
    wait_until(lambda: berta.states().get("anna") == "alive")


def test_the_host_that_a_node_joined_at_is_tried_after_every_start(fleet):
    anna, berta = fleet.node("anna"), fleet.node("berta")
    anna.json("init", "--name", "anna")
    anna.up("--listen", "127.0.0.1:0", "--no-mdns", "--advertise", "192.0.2.1:0")  # leads nowhere
    assert anna.json("nodes")["nodes"][0]["addresses"][0].startswith("192.0.2.1:")
    invite = anna.json("invite")["invite"]
    here = f"127.0.0.1:{anna.ready['enrolment'].rpartition(':')[2]}"
    berta.json("join", "-", "--name", "berta", "--seed", here, stdin=invite)
    both = {"anna": "alive", "berta": "alive"}
    for _ in range(2):
        berta.up("--listen", "127.0.0.1:0", "--no-mdns")
        wait_until(lambda: anna.states() == berta.states() == both, "a link")
        berta.end()


def test_a_mesh_of_one_gives_way_and_keeps_its_sessions(fleet):
    anna, berta = fleet.node("anna"), fleet.node("berta")
    anna.json("init", "--name", "anna")
    anna.up("--listen", "127.0.0.1:0", "--no-mdns")
    berta.json("init", "--mesh", "alone", "--name", "berta")
    berta.up("--listen", "127.0.0.1:0", "--no-mdns")
    berta.call("run", "--agent-id", "early", "--", "sh", "-c", "exit 4")
    wait_until(lambda: berta.sessions()["early"]["ended_at"])
    berta.call("run", "--detach", "--agent-id", "lasting", "--", "cat")
    berta.end()
    assert fleet.join(anna, berta)["mesh_name"] == anna.json("status")["mesh_name"]
    berta.up()
    wait_until(lambda: "early" in anna.sessions() and "lasting" in anna.sessions())
    assert anna.sessions()["early"]["exit_code"] == 4
    assert anna.json("steer", "lasting", "new mesh, same agent")["outcome"] == "delivered"
    assert berta.json("status")["role"] == "operator"
