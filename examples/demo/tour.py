# ruff: noqa: T201 - a script: it prints
"""A tour of session-mesh: three nodes on this machine, real agents, a real crash.

    python tour.py          tells the story, then leaves the mesh to you until Ctrl-C
    python tour.py --once   tells the story and ends: 0 if every check passed, else 1

Everything goes through the `session-mesh` command line, as you would use it. What it answers is
checked against what /proc and the gateway's log say. Nothing stays behind.
"""

import argparse
import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import processes
import psutil
from cast import AGENTS, Cast, expect_gone, expect_heard
from gateway_log import UNKNOWN_MODEL, GatewayLog
from narration import Narrator, UnmetError, expect, until
from nodes import Node, in_parallel, stage

MDNS_WAIT_S = 12.0
WAIT_S = 20.0  # for anything else; most of it takes a blink
INTERRUPTED = 130


class Tour(Cast):
    """The story; each chapter is a method."""

    def story(self) -> None:
        """Tell it, chapter by chapter."""
        for chapter in (self.found_a_mesh, self.find_each_other, self.start_agents):
            chapter()
            if self.tell.failed:
                self.tell.say("Without this there is nothing more to see.")
                return
        self.look_from_carl()
        self.count_the_cost()
        self.steer_from_carl()
        self.kill_from_carl()
        self.lose_berta()
        self.bring_berta_back()
        self.settle_the_bill()

    def found_a_mesh(self) -> None:
        """Let anna found a mesh and admit the others."""
        self.tell.chapter("A mesh of three")
        self.tell.say(
            "Anna founds a mesh and invites berta and carl. An invite is a secret, so it goes"
            " through a pipe, never through a command line that everybody can see in ps."
        )
        with self.tell.check("berta and carl have joined the mesh that anna founded"):
            mesh_id = self.ask(self.anna, "init", "--mesh", "tour", "--name", "anna")["mesh_id"]
            self.tell.command("anna$ session-mesh up --listen 127.0.0.1:0")
            self.anna.start(*self.flags)
            self.anna.await_ready()
            self.tell.command("anna$ session-mesh invite -q | berta$ session-mesh join -")
            self.tell.command("anna$ session-mesh invite -q | carl$ session-mesh join -")
            joins = in_parallel([lambda: self.admit(self.berta), lambda: self.admit(self.carl)])
            expect(joins == [mesh_id] * 2, f"they are in other meshes: {joins}")

    def find_each_other(self) -> None:
        """Start all three where nobody expects them: whoever is linked then was found by mDNS."""
        self.tell.chapter("They find each other")
        self.tell.say(
            "The invites told where anna listens, so linking to her would prove little. She moves"
            " to another port, and berta and carl start on ports that nobody has heard of: every"
            " address that anybody knows is now wrong, and only mDNS can bring them together."
        )
        self.anna.stop()
        everybody = (self.anna, self.berta, self.carl)
        with self.tell.check("three nodes are up, each a process of its own"):
            for node in everybody:
                node.start(*self.flags)
            for node in everybody:
                node.await_ready()
        with self.tell.check("all three nodes are linked to each other"):
            how = "How: mDNS. No other address that anybody had was right."
            try:
                until(self.all_linked, MDNS_WAIT_S)
            except UnmetError as error:
                how = "How: by --seed. mDNS did not connect them; it may be blocked here."
                self.tell.say(f"mDNS was not enough: {error}.")
                self.seed_the_lonely()
                until(self.all_linked, WAIT_S)
            for state in in_parallel([partial(node.call, "status") for node in everybody]):
                self.tell.say(
                    f"{state['name']}: mDNS {state['mdns']}, links {state['links']},"
                    f" nodes alive {state['nodes_alive']}"
                )
                expect(state["links"] == len(everybody) - 1, f"{state['name']} counts other links")
            self.tell.say(how)

    def start_agents(self) -> None:
        """Start agents on anna and berta."""
        self.tell.chapter("Agents at work")
        self.tell.say(
            "Two agents start on anna and one on berta: stand-ins that walk over a map. Each also"
            " starts a helper, deaf to SIGTERM and in a session of its own. Carl owns nothing."
        )
        with self.tell.check("the agents run"):
            in_parallel([partial(self.start_agent, name) for name in AGENTS])
            self.seen = until(self.all_running, WAIT_S)
        self.let_them_call(*self.seen)

    def look_from_carl(self) -> None:
        """Let the node that owns nothing see everything."""
        self.tell.chapter("Carl sees them all")
        with self.tell.check("carl, who owns no session, lists all three with full coverage"):
            sessions = self.look("list")
            agents = {one["agent_id"]: one["node_name"] for one in sessions["sessions"]}
            expected = {name: node for name, (node, _) in AGENTS.items()}
            expect(agents == expected, f"carl sees {agents}")
            expect_heard(sessions, 3)
        with self.tell.check("carl finds who can draw maps, wherever that is"):
            found = self.look("find", "maps")["agents"]
            who = [(one["agent_id"], one["node_name"]) for one in found]
            expect(who == [("mapper", "berta")], f"carl found {who}")

    def count_the_cost(self) -> None:
        """Show on carl what a gateway beside anna has logged."""
        self.tell.chapter("What it costs")
        self.tell.say(
            "A Higress gateway stands beside anna, and the agents call their models through it."
            " Its access log grows while we talk. Only anna reads it (her config.yaml names it),"
            " yet carl knows the bill. A model without a known price stays visible as unpriced."
        )
        with self.tell.check("carl's bill has all that the gateway logged so far, and it grows"):
            logged = self.gateway.requests
            before = until(lambda: self.billed(logged), WAIT_S)["records"]
            until(lambda: self.billed(before + 1), WAIT_S)
        with self.tell.check(f"known models have a price; {UNKNOWN_MODEL} is named as unpriced"):
            bill = self.look("cost", "--by", "model")
            expect_heard(bill, 3)
            free = [one["key"]["model"] for one in bill["groups"] if not one["cost_usd"]]
            unpriced = [one["model"] for one in bill["unpriced"]]
            expect(free == unpriced == [UNKNOWN_MODEL], f"{free} cost nothing, {unpriced} unpriced")
        with self.tell.check("the list shows what each agent has spent"):
            until(self.everybody_spent, WAIT_S)
            self.look("list", "--sort", "cost")

    def steer_from_carl(self) -> None:
        """Redirect an agent of anna's."""
        self.tell.chapter("Steering")
        self.tell.say(
            "Scout walks north, on anna. Carl sends it west. Anna verifies carl's signature,"
            " writes one line to scout's stdin, and signs a receipt which carl verifies."
        )
        with self.tell.check("scout was told, and the receipt is verified"):
            self.steer("scout", "--direction", "west")
        with self.tell.check("scout obeys: its log says so"):
            until(lambda: self.said("scout", "went west"), WAIT_S)
            self.look("logs", "scout", "--tail", "5")

    def kill_from_carl(self) -> None:
        """End an agent of anna's, with all it started."""
        self.tell.chapter("Stopping")
        tree = processes.of_session(self.session_id("digger"))
        self.tell.say(f"Digger is more than one process: {processes.described(tree)}.")
        self.tell.say(
            "Its agent will end when it is asked to. Its helper ignores SIGTERM and lives in a"
            " session of its own, where a kill of the process group would miss it."
        )
        with self.tell.check("anna reports that agent and helper are gone, under a signed receipt"):
            until(lambda: self.said("digger", "is deaf to SIGTERM"), WAIT_S)
            answer = self.ask(self.carl, "kill", "digger", "--yes", "--grace", "1s")
            found, gone = answer["processes"]["found"], answer["processes"]["gone"]
            self.tell.say(f"{answer['outcome']}: {gone} of {found} processes are gone.")
            expect(answer["outcome"] == "applied", f"the outcome is {answer['outcome']}")
            expect(answer["receipt_verified"], "the receipt is not verified")
            expect(gone == found >= 2, f"{found} processes were found, {gone} are gone")  # noqa: PLR2004 - the agent and its helper
        self.let_them_call("scout", "mapper")
        with self.tell.check("/proc agrees: none of them is left"):
            expect(tree, "they were not found there in the first place")
            until(lambda: expect_gone(tree), WAIT_S)
        with self.tell.check("carl sees digger killed"):
            until(lambda: self.in_state("digger", "killed"), WAIT_S)
            self.look("list")

    def lose_berta(self) -> None:
        """Kill a node, the hard way."""
        self.tell.chapter("Berta crashes")
        self.tell.say(
            "Berta's node gets SIGKILL: no goodbye, as in a power cut, except that its agent"
            " mapper lives on, because supervisors do not depend on their node."
        )
        with suppress(psutil.NoSuchProcess):
            self.mapper = psutil.Process(self.pid_of("mapper"))
        self.berta.crash()
        with self.tell.check("carl notices: berta is unreachable"):
            until(self.berta_is_lost, WAIT_S)
            self.look("nodes")
        with self.tell.check("her session is not forgotten: it is listed as unreachable"):
            until(lambda: self.in_state("mapper", "unreachable"), WAIT_S)
            self.look("list")
        with self.tell.check("answers say that they speak for two of three nodes"):
            answer = self.carl.call("cost")
            expect_heard(answer, 2)
            missing = [one["node_name"] for one in answer["coverage"]["missing"]]
            expect(missing == ["berta"], f"missing are {missing}")
        with self.tell.check("a steer to her says unreachable, and pretends nothing"):
            self.steer_in_vain("mapper", "come home")
        with self.tell.check("mapper itself walks on"):
            expect(self.mapper and self.mapper.is_running(), "its process has gone")

    def bring_berta_back(self) -> None:
        """Start the crashed node again on what is left on its disk."""
        self.tell.chapter("Berta comes back")
        self.tell.say("Berta starts again on the same home, and on yet another port.")
        with self.tell.check("all three nodes are linked again"):
            self.berta.start(*self.flags)
            self.berta.await_ready()
            until(self.all_linked, WAIT_S)
        with self.tell.check("mapper was found again: the same session, the same process, running"):
            session = until(lambda: self.in_state("mapper", "running"), WAIT_S)
            for name in ("session_id", "pid"):
                before, now = self.seen["mapper"][name], session[name]
                expect(before == now, f"its {name} was {before} and is {now}")
            expect(self.mapper and self.mapper.is_running(), "that process is another one now")
            self.look("list")
        with self.tell.check("mapper can be steered again, and answers"):
            self.steer("mapper", "come home")
            until(lambda: self.said("mapper", "told: come home"), WAIT_S)
            self.look("logs", "mapper", "--tail", "4")

    def settle_the_bill(self) -> None:
        """Compare carl's sums with what the gateway wrote."""
        self.tell.chapter("The bill adds up")
        self.tell.say("For a moment the agents stop calling their models.")
        with self.tell.check("carl's bill equals the gateway's log, request by request"):
            with self.gateway.paused():
                until(self.settled, WAIT_S)
            self.tell.say(
                f"{self.gateway.requests} requests, {self.gateway.tokens} tokens, and"
                f" {self.gateway.failures} failed calls without tokens."
            )

    def the_end(self) -> None:
        """End everything with one command from carl."""
        self.tell.chapter("The end")
        with self.tell.check("one command from carl ends every agent of the mesh"):
            left = processes.below(self.carl.home.parent)
            living = [one for one in self.carl.call("list")["sessions"] if one["alive"]]
            answer = self.ask(self.carl, "kill", "--all", "--force")
            outcomes = [one["outcome"] for one in answer["results"]]
            expect(outcomes == ["applied"] * len(living), f"the outcomes are {outcomes}")
            until(lambda: expect_gone(left), WAIT_S)
        with self.tell.check("the nodes stop when they are told to"):
            codes = in_parallel([node.stop for node in (self.anna, self.berta, self.carl)])
            expect(codes == [0, 0, 0], f"their exit codes are {codes}")


def main() -> int:
    """Run the tour; returns the exit code."""
    parser = argparse.ArgumentParser(description="A tour of session-mesh on this machine.")
    parser.add_argument("--once", action="store_true", help="end after the story")
    parser.add_argument("--no-mdns", action="store_true", help="as on a network without multicast")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # each ends the tour, and it tidies up
    try:
        return _run(once=options.once, flags=("--no-mdns",) if options.no_mdns else ())
    except KeyboardInterrupt:
        print("\ninterrupted; what it had started has been ended", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the story has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(*, once: bool, flags: tuple[str, ...]) -> int:
    with stage("anna", "berta", "carl") as (directory, nodes):
        tell = Narrator(lambda: _last_words(tell, nodes))
        anna, berta, carl = nodes
        log = directory / "access.log"
        _configure(anna, log)
        with GatewayLog(log) as gateway:
            tour = Tour(anna, berta, carl, gateway, tell, flags)
            tour.story()
            if not once:
                _leave_it_to_you(tell, nodes)
            tour.the_end()
    with tell.check("nothing of the tour is left on this machine"):
        left = processes.below(directory)
        expect(not left, f"still there: {processes.described(left)}")
        expect(not directory.exists(), f"{directory} is still there")
    return 0 if tell.verdict() else 1


def _configure(node: Node, log: Path) -> None:
    node.home.mkdir(mode=0o700)
    config = f"ingest:\n  - source: higress\n    path: {log}\n"
    (node.home / "config.yaml").write_text(config, encoding="utf-8")


def _leave_it_to_you(tell: Narrator, nodes: list[Node]) -> None:
    tell.chapter("Your turn")
    tell.say(
        "The mesh stays until you press Ctrl-C here. In another terminal, as any of the three:"
    )
    for node in nodes:
        tell.command(f"export SESSION_MESH_HOME={node.home}")
    tell.say(f"(session-mesh is in {Path(sys.executable).parent}, if your PATH does not know it)")
    tell.say("and then, for example:")
    for line in (
        "session-mesh list",
        "session-mesh nodes --links",
        "session-mesh cost --by model --by session",
        "session-mesh logs scout --tail 5",
        "session-mesh steer scout --direction east",
        "session-mesh run --detach --agent-id mine -- sleep 600",
        "session-mesh kill mapper",
    ):
        tell.command(line)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def _last_words(tell: Narrator, nodes: list[Node]) -> None:
    tell.say("The last lines of the nodes' logs:")
    for node in nodes:
        tell.output(node.last_words())


if __name__ == "__main__":
    sys.exit(main())
