"""Where and how a node serves HTTP, from flags and configuration, checked before a node starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

from meshnode.client.home import expanded
from meshnode.core.errors import MeshError, UsageError
from meshnode.discovery.seeds import bracketed, parse_address
from meshnode.node.presence.addresses import WILDCARDS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from ipaddress import IPv4Address, IPv6Address

    from meshnode.client.documents import Entry
    from meshnode.node.configuration.options import HttpFlags

DEFAULT_HTTP = "127.0.0.1:8888"
NEEDED = ("fastapi", "prometheus_client", "uvicorn")
WITH_EXTRA = "pipx install --force '.[http]'"
OWN_CERTIFICATE = "own"
SWITCHED = {"on": DEFAULT_HTTP, "true": DEFAULT_HTTP, "yes": DEFAULT_HTTP}
OFF = frozenset({"off", "false", "no"})
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.ASCII)
KEYS = ("listen", "tls", "tls_cert", "tls_key", "hosts", "origins")


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Where HTTP is served, nowhere if `listen` is empty; and how.

    `certificate` is a file, `own` for the node's, or empty for plain HTTP. `hosts` are names of
    this node beside its address, `origins` of web pages that may ask.
    """

    listen: str = ""
    certificate: str = ""
    key: str = ""
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    metrics: str = ""  # where they are served to everybody on this machine, without a key
    at: str = field(default="", compare=False)  # the line that says where, unless a flag does
    metrics_at: str = field(default="", compare=False)

    def located(self, config: Path) -> HttpOptions:
        """Return them with files named from where the configuration lies."""

        def there(name: str) -> str:
            keyword = name in {"", OWN_CERTIFICATE}
            return name if keyword else str(config.absolute().parent / expanded(name))

        return replace(self, certificate=there(self.certificate), key=there(self.key))

    def checked(self) -> HttpOptions:
        """Return them as they are; raises UsageError, before a node is started for nothing."""
        places = [parse_address(place) for place in (self.listen, self.metrics) if place]
        if not places:
            return self
        missing = [name for name in NEEDED if find_spec(name) is None]
        if missing:
            raise UsageError(
                f"HTTP needs what is not installed: {', '.join(missing)}",
                "install it with its extra, in the clone that it is from: " + WITH_EXTRA,
            )
        if bool(self.key) != (self.certificate not in {"", OWN_CERTIFICATE}):
            raise _refused(
                self.at,
                "a certificate and its key belong together",
                "give both --http-tls-cert FILE and --http-tls-key FILE",
                "http: {tls_cert: FILE, tls_key: FILE}",
            )
        from meshnode.gateway.listening import is_local  # noqa: PLC0415 - needs the extra

        if self.listen and not self.certificate and not is_local(places[0][0]):
            raise _refused(
                self.at,
                f"plain HTTP is served on loopback only, not on {bracketed(places[0][0])}:"
                " it would show keys to the net",
                "add --http-tls, or --http-tls-cert FILE --http-tls-key FILE; or use 127.0.0.1",
                f'http: {{listen: "{self.listen}", tls: true}}, or tls_cert and tls_key;'
                " or use 127.0.0.1",
            )
        if self.metrics and not is_local(places[-1][0]):
            raise _refused(
                self.metrics_at,
                "metrics without a key are served on loopback only,"
                f" not on {bracketed(places[-1][0])}",
                "use --http with TLS, and a key with the action metrics",
                "use http with tls, and a key with the action metrics",
            )
        if len(places) > 1 and _share(*places):
            raise _refused(
                self.metrics_at or self.at,
                f"{self.listen} and {self.metrics} are one port: HTTP and metrics want one each",
                "use another port: --metrics 127.0.0.1:9464",
                "use another port: metrics: 127.0.0.1:9464",
            )
        return self

    def check_beside(self, listen: str) -> None:
        """Raise UsageError for a port that members, or joiners on the one after it, are met at."""
        host, port = parse_address(listen)
        host = "::" if host in WILDCARDS else host  # gRPC takes all of IPv6 for all of IPv4
        ports = {port: "members", port + 1 if port else 0: "joiners"}
        for place, at in ((self.listen, self.at), (self.metrics, self.metrics_at or self.at)):
            for taken, whose in ports.items() if place else ():
                if _share(parse_address(place), (host, taken)):
                    raise _refused(
                        at,
                        f"{place} is where {whose} are met: this node listens at {listen}"
                        f"{', and at the port after it' if whose == 'joiners' else ''}",
                        "use another port",
                        "use another port",
                    )

    def check_files(self) -> None:
        """Raise UsageError for a certificate or key that no node could serve TLS with."""
        if self.listen and self.certificate not in {"", OWN_CERTIFICATE}:
            self.files_context()

    def files_context(self) -> ssl.SSLContext:
        """Return a context with the files that were given; raises UsageError."""
        context = tls_context()
        try:
            for what, file in (("certificate", self.certificate), ("key", self.key)):
                if not S_ISREG(Path(file).stat().st_mode):  # a pipe would be waited for
                    raise MeshError(f"the {what} is no regular file")
            context.load_cert_chain(self.certificate, self.key, password=_no_one)
        except (OSError, MeshError) as error:  # of ssl too, and of `_no_one`
            said = f"cannot serve TLS with {self.certificate}: {_said(error)}"
            hint = "a certificate chain and its key without a passphrase, both PEM"
            raise _refused(self.at, said, hint, hint) from None
        return context


def tls_context() -> ssl.SSLContext:
    """Return a context for HTTPS without a certificate."""
    import ssl  # noqa: PLC0415 - most nodes serve none

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_one() -> str:
    raise MeshError("the key has a passphrase, and nobody is there to give it")


def _said(error: OSError | MeshError) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return (strerror or str(error)).lower()[:200]


def _share(first: tuple[str, int], second: tuple[str, int]) -> bool:
    """Whether two addresses cannot both be listened at. 0: any port."""
    (host, port), (local, other) = first, second
    if port != other or not port:
        return False
    here = {"localhost": "127.0.0.1"}
    try:
        one, two = ip_address(here.get(host, host)), ip_address(here.get(local, local))
    except ValueError:  # a name: nobody knows yet what it stands for
        return host == local
    return one == two or _covers(one, two) or _covers(two, one)


def _covers(whole: IPv4Address | IPv6Address, one: IPv4Address | IPv6Address) -> bool:
    return whole.is_unspecified and whole.version >= one.version


def _refused(at: str, message: str, of_flags: str, of_keys: str) -> UsageError:
    """Say what cannot be: with the line, and in words of a configuration, if that is from one."""
    return UsageError(f"{at}: {message}", of_keys) if at else UsageError(message, of_flags)


def http_of(flags: HttpFlags, configured: HttpOptions) -> HttpOptions:
    """Put flags over configuration; raises UsageError."""
    listen = _place(flags.listen) if flags.listen is not None else configured.listen
    own = {True: OWN_CERTIFICATE, False: "", None: configured.certificate}[flags.tls]
    untouched = (flags.listen, flags.tls, flags.certificate, flags.key) == (None, None, "", "")
    return HttpOptions(
        listen,
        flags.certificate or own,
        flags.key or ("" if flags.tls is not None else configured.key),
        tuple(map(_host, flags.hosts)) or configured.hosts,
        flags.origins or configured.origins,
        configured.metrics if flags.metrics is None else _place_of_metrics(flags.metrics),
        configured.at if untouched else "",
        configured.metrics_at if flags.metrics is None else "",
    ).checked()


def http_in(entry: Entry | None, metrics: Entry | None) -> HttpOptions:
    """Read `http` of a configuration: on, off, an address, or a map; and `metrics`, an address.

    Raises UsageError.
    """
    read = HttpOptions() if entry is None else _served(entry)
    return replace(
        read,
        metrics="" if metrics is None else _read_in(metrics, "metrics", _place_of_metrics),
        at="" if entry is None else entry.place,
        metrics_at="" if metrics is None else metrics.place,
    )


def _served(entry: Entry) -> HttpOptions:
    if isinstance(entry.value, str):
        return HttpOptions(_read_in(entry, "http", _place))
    entry.check_keys(KEYS)
    given = {key: one for key, one in entry.map("http").items() if one.value is not None}
    certificate = given["tls_cert"].text("tls_cert") if "tls_cert" in given else ""
    if not certificate and "tls" in given and given["tls"].flag("tls"):
        certificate = OWN_CERTIFICATE
    return HttpOptions(
        _read_in(given["listen"], "http", _place) if "listen" in given else DEFAULT_HTTP,
        certificate,
        given["tls_key"].text("tls_key") if "tls_key" in given else "",
        tuple(_read_in(one, "hosts", _host) for one in given["hosts"].items("hosts"))
        if "hosts" in given
        else (),
        given["origins"].texts("origins") if "origins" in given else (),
    )


def _read_in(entry: Entry, name: str, read: Callable[[str], str]) -> str:
    """Read a value as a flag is read; what is wrong with it is said with its line."""
    try:
        return read(entry.text(name))
    except UsageError as error:
        entry.fail(f'"{name}": {error.message}', error.hint)


def _host(word: str) -> str:
    """Return a name or address as requests are compared with it; raises UsageError."""
    name = word.lower().removesuffix(".")
    try:
        return str(ip_address(name.removeprefix("[").removesuffix("]").partition("%")[0]))
    except ValueError:
        if _NAME.fullmatch(name):
            return name
    raise UsageError(
        f"{word[:100]!r} is no host that could be asked for",
        "write a name or an address alone, as mesh.example.com or ::1: no https://, no port;"
        " letters beyond ASCII as a browser sends them (xn--...)",
    )


def _place_of_metrics(word: str) -> str:
    """Return the address that is meant, empty for none; raises UsageError: there is no default."""
    if word in SWITCHED:
        raise UsageError(
            f"metrics have no address of their own, so {word} says too little",
            "write off, or a loopback address such as 127.0.0.1:9464",
        )
    return _place(word)


def _place(word: str) -> str:
    """Return the address that is meant, empty for none; raises UsageError."""
    if word in OFF:
        return ""
    place = SWITCHED.get(word, word)
    try:
        parse_address(place)
    except UsageError as error:
        raise UsageError(error.message, "write on, off, HOST:PORT, or [IPv6]:PORT") from None
    return place
