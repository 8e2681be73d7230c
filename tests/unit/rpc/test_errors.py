"""What a failed connection is told as."""

from dataclasses import dataclass

import grpc
import pytest

from meshnode.rpc.errors import reason_of

LAST = "failed to connect to all addresses; last error: "


@dataclass
class Failed:
    said: str

    def details(self) -> str:
        return self.said

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            f"{LAST}UNKNOWN: ipv4:127.0.0.1:9: Failed to connect to remote host:"
            " connect: Connection refused (111)",
            "Connection refused (111)",
        ),
        (
            f"{LAST}UNAVAILABLE: ipv6:%5B::1%5D:9: Failed to connect to remote host: Timeout",
            "Timeout",
        ),
        (f"{LAST}UNAVAILABLE: ipv4:10.0.0.1:9: Socket closed", "Socket closed"),
        ("DNS resolution failed for nowhere:9", "DNS resolution failed for nowhere:9"),
        ("UNKNOWN: ", "UNKNOWN: "),
        ("", "UNAVAILABLE"),
        ("Handshake failed: CERTIFICATE_VERIFY_FAILED\nand more", None),
    ],
)
def test_the_reason_is_said_without_what_grpc_says_before_it(said, reason):
    assert reason_of(Failed(said)) == (reason or "Handshake failed: CERTIFICATE_VERIFY_FAILED")
