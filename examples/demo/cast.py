"""Who plays in the tour, and what they do in several chapters.

What is waited for raises UnmetError as long as it is not so, saying what is there instead.
"""

import shlex
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import processes
import psutil
from gateway_log import GatewayLog
from narration import Narrator, UnmetError, expect
from nodes import CallError, Node, in_parallel

AGENTS = {"scout": ("anna", "survey"), "digger": ("anna", "dig"), "mapper": ("berta", "maps")}


@dataclass
class Cast:
    """Three nodes, a gateway, the narrator, and what was seen of the agents at their start."""

    anna: Node
    berta: Node
    carl: Node
    gateway: GatewayLog
    tell: Narrator
    flags: tuple[str, ...]  # for `up`
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)  # agent -> its session
    mapper: psutil.Process | None = None

    def ask(self, node: Node, *words: str) -> Any:  # noqa: ANN401 - any JSON
        """Show a command and run it; returns its JSON."""
        self.tell.command(f"{node.name}$ session-mesh {_line(words)}")
        return node.call(*words)

    def look(self, *words: str) -> Any:  # noqa: ANN401 - any JSON
        """Show a command and what carl answers to people; returns what he answers to programs."""
        self.tell.command(f"carl$ session-mesh {_line(words)}")
        shown, value = in_parallel(
            [partial(self.carl.shown, *words), partial(self.carl.call, *words)]
        )
        self.tell.output(shown)
        return value

    def admit(self, newcomer: Node) -> str:
        """Hand an invite of anna's to a newcomer; returns the mesh that it is in then."""
        invite = self.anna.call("invite")["invite"]
        return str(newcomer.call("join", "-", "--name", newcomer.name, stdin=invite)["mesh_id"])

    def let_them_call(self, *agents: str) -> None:
        """From now on these call models: the gateway sees their session ids in each request."""
        self.gateway.serve(*map(self.session_id, agents))

    def start_agent(self, name: str) -> None:
        """Start one agent where it belongs."""
        node_name, spec = AGENTS[name]
        node = {"anna": self.anna, "berta": self.berta}[node_name]
        program = ("--", "python", "agent.py")
        self.ask(node, "run", "--detach", "--agent-id", name, "--spec", spec, *program)

    def steer(self, agent: str, *words: str) -> None:
        """Steer an agent from carl; raises UnmetError unless the owner has signed for it."""
        answer = self.ask(self.carl, "steer", agent, *words)
        self.tell.say(f"{answer['outcome']}: {answer['detail']}.")
        expect(answer["outcome"] in {"delivered", "applied"}, f"outcome {answer['outcome']}")
        expect(answer["receipt_verified"], "the receipt is not verified")

    def steer_in_vain(self, agent: str, words: str) -> None:
        """Steer somebody who cannot be reached; raises UnmetError if that is not what is said."""
        try:
            answer = self.ask(self.carl, "steer", agent, words, "--timeout", "1s")
        except CallError as error:
            self.tell.output(f"exit code {error.code}: {error.said}")
            expect(error.code == 6, str(error))  # noqa: PLR2004 - unreachable or timed out
        else:
            raise UnmetError(f"the outcome is {answer['outcome']}")

    def seed_the_lonely(self) -> None:
        """Restart who has too few links, with anna's address."""
        for node in (self.berta, self.carl):
            if node.call("status")["links"] < 2:  # noqa: PLR2004 - the other two
                self.tell.say(f"{node.name} starts again, with --seed {self.anna.listen}")
                node.stop()
                node.start(*self.flags, "--seed", self.anna.listen)
                node.await_ready()

    def session_id(self, agent: str) -> str:
        """Return the session that an agent had when it was last looked at."""
        return str(self.seen.get(agent, {}).get("session_id", "nobody"))

    def pid_of(self, agent: str) -> int:
        """Return the process that an agent had when it was last looked at."""
        return int(self.seen.get(agent, {}).get("pid") or 0)

    # --- what is looked at until it is so: each raises UnmetError saying what is there instead

    def all_linked(self) -> None:
        """Every node lists the other two as its links."""
        nodes = self.carl.call("nodes")["nodes"]
        links = {one["name"]: len(one["links"]) for one in nodes if one["state"] == "alive"}
        expect(links == {"anna": 2, "berta": 2, "carl": 2}, f"links per node alive are {links}")

    def session(self, agent: str) -> dict[str, Any]:
        """Return an agent's session as carl sees it."""
        found = self.carl.call("list", "--filter", "all", "--agent-id", agent)["sessions"]
        expect(len(found) == 1, f"carl knows {len(found)} sessions of {agent}")
        session: dict[str, Any] = found[0]
        return session

    def in_state(self, agent: str, state: str) -> dict[str, Any]:
        """Carl sees an agent in this state."""
        session = self.session(agent)
        expect(session["state"] == state, f"{agent} is {session['state']}")
        return session

    def all_running(self) -> dict[str, dict[str, Any]]:
        """Carl sees all agents running, each with a process."""
        sessions = {one["agent_id"]: one for one in self.carl.call("list")["sessions"]}
        states = {name: (one["state"], one["pid"]) for name, one in sessions.items()}
        running = [name for name, (state, pid) in states.items() if state == "running" and pid]
        expect(set(running) == set(AGENTS), f"carl sees {states}")
        return sessions

    def said(self, agent: str, words: str) -> None:
        """An agent's log, read through carl, has these words."""
        output = self.carl.call("logs", agent)["output"]
        last = (output.splitlines() or ["nothing"])[-1]
        expect(words in output, f'the log of {agent} lacks "{words}"; it ends in "{last}"')

    def billed(self, requests: int) -> dict[str, Any]:
        """Carl's bill has at least so many requests."""
        bill: dict[str, Any] = self.carl.call("cost")
        expect(bill["records"] >= requests, f"{bill['records']} of {requests} requests are there")
        return bill

    def settled(self) -> None:
        """Carl's bill is the gateway's, exactly."""
        bill = self.carl.call("cost")
        expect_heard(bill, 3)
        logged = {"requests": self.gateway.requests, "tokens": self.gateway.tokens}
        billed = {"requests": bill["records"], "tokens": bill["totals"]["total"]}
        expect(billed == logged, f"the bill has {billed}, the log {logged}")
        skipped = bill["diagnostics"]["requests_without_usage"]
        expect(skipped == self.gateway.failures, f"{skipped} calls are known to have failed")

    def everybody_spent(self) -> None:
        """Carl's list has tokens for every agent."""
        spent = {
            one["agent_id"]: one["usage"]["total"] for one in self.carl.call("list")["sessions"]
        }
        expect(spent and all(spent.values()), f"the tokens are {spent}")

    def berta_is_lost(self) -> None:
        """Carl sees no way to berta."""
        (berta,) = (one for one in self.carl.call("nodes")["nodes"] if one["name"] == "berta")
        expect(berta["state"] in {"unreachable", "dead"}, f"berta is {berta['state']}")


def expect_heard(answer: dict[str, Any], nodes: int) -> None:
    """Raise UnmetError unless an answer speaks for so many of the three nodes."""
    coverage = answer["coverage"]
    heard, known = coverage["nodes_heard"], coverage["nodes_known"]
    expect((heard, known) == (nodes, 3), f"the coverage is {heard} of {known} nodes")


def expect_gone(those: list[psutil.Process]) -> None:
    """Raise UnmetError as long as one of these processes runs."""
    left = processes.still_there(those)
    expect(not left, f"still there: {left}")


def _line(words: tuple[str, ...]) -> str:
    return shlex.join(words)
