"""Running the server: the socket, uvicorn, one process or several."""

from __future__ import annotations

import errno
import gc
import logging.config
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn

from pilotwave_server import certificate, openfiles
from pilotwave_server.app import PilotwaveApp, create_app
from pilotwave_server.errors import SetupError
from pilotwave_server.logs import log_config
from pilotwave_server.processes import STOP_S, Alive, Processes
from pilotwave_server.settings import Settings, load_settings, without_effect
from pilotwave_systemd.notify import Watchdog

log = logging.getLogger(__name__)

BACKLOG = 4096
UNSENT = 128 * 1024
SHUTDOWN_S = 10
# How long work on a thread may keep the event loop from going on, each time the loop has let go of
# the interpreter's lock. A poll is answered in less than a tenth of Python's own 5 ms.
SWITCH_S = 0.0005
# How many more objects there have to be before the collector of cycles looks at the youngest, and
# how often at the older: with thousands of connections a look at all holds up polls for 50 ms.
COLLECT_AT = (10_000, 20, 50)


class CannotListen(SetupError):
    code = "cannot_listen"


class DidNotStart(SetupError):
    code = "did_not_start"


def serve(settings: Settings, *, listening: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. `listening` is called with the URL once connections are
    taken; CannotListen or DidNotStart when they cannot be."""
    with bind(settings.host, settings.port) as listener:
        url = url_of(listener, settings.host, secure=settings.tls_cert is not None)
        logging.config.dictConfig(log_config(settings))
        for name in without_effect(os.environ):
            log.warning("%s is no setting any more and has no effect (CHANGELOG.md)", name)
        if settings.workers == 1:
            serve_alone(settings, listener, Watchdog(), lambda: listening(url))
        else:
            serve_together(settings, listener, lambda: listening(url))


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, or CannotListen with the reason."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotListen(f"cannot listen on {host}: {error.strerror}") from error
    try:
        listen(listener, address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotListen(
                f"port {port} on {host} is in use: stop what listens there, "
                "or choose another with --port (0 picks a free one)"
            ) from error
        raise CannotListen(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def listen(listener: socket.socket, address: Any, *, shared: bool = False) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # what is handed to the system counts as sent: so it takes little more than it can send
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
    listener.bind(address)
    listener.listen(BACKLOG)


def one_for_each(listener: socket.socket, count: int) -> list[socket.socket]:
    """A socket for each of several processes, all on the address of `listener`.

    From one socket the process that wakes first takes every connection that waits, and keeps it:
    of two processes one had all the work. Of several sockets the system chooses one by hash.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        return [listener] * count
    address = listener.getsockname()
    listener.close()  # it has shown that the port is nobody else's
    each = [socket.socket(listener.family, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for one in each:
            listen(one, address, shared=True)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address[0]}: {error.strerror}") from error
    return each


def url_of(listener: socket.socket, host: str, *, secure: bool = False) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if secure else 'http'}://{shown}:{listener.getsockname()[1]}"


class _Server(uvicorn.Server):
    def __init__(
        self, settings: Settings, app: PilotwaveApp, alive: Alive, started: Callable[[], None]
    ) -> None:
        super().__init__(config(settings, app))
        self._app = app
        self._alive = alive
        self._started = started
        self._drain_s = settings.drain_s
        self._draining = False
        self._files = certificate.files(settings)
        self._renewal: certificate.Renewal | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Go on serving for a while when told to end; end at once when told so again."""
        if sig == signal.SIGTERM and self._drain_s and not self._draining:
            self._draining = True
            self._app.drain()
            end = threading.Timer(self._drain_s, super().handle_exit, (sig, frame))
            end.daemon = True
            end.start()
        else:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        authority = self._app.context.settings.tls_client_ca
        if authority is not None and self.config.ssl is not None:
            certificate.ask_for_certificates(self.config.ssl, authority)
        if self._files is not None and self.config.ssl is not None:
            self._renewal = certificate.Renewal(self.config.ssl, *self._files)
            self._renewal.start()
        await super().startup(sockets=sockets)
        self._started()

    async def on_tick(self, counter: int) -> bool:
        """Give a sign of life from the event loop, on which uvicorn calls this ten times a
        second."""
        self._alive()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.close()
        if self._renewal is not None:
            self._renewal.stop()
        await super().shutdown(sockets=sockets)


def serve_alone(
    settings: Settings,
    listener: socket.socket,
    alive: Alive,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve in this process."""
    sys.setswitchinterval(SWITCH_S)
    openfiles.raise_limit()
    gc.set_threshold(*COLLECT_AT)
    # uvicorn raises the signal once more when it has shut down; it has been heeded by then.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    server = _Server(settings, create_app(settings), alive, started)
    with suppress(KeyboardInterrupt):
        try:
            server.run(sockets=[listener])
        except SystemExit:
            raise DidNotStart("the server did not start; its log says why") from None


def serve_together(
    settings: Settings, listener: socket.socket, started: Callable[[], None]
) -> None:
    """Serve in `settings.workers` processes and look after them in this one."""
    counts = tempfile.mkdtemp(prefix="pilotwave-metrics-")
    # Read by each worker, and by prometheus_client when it is imported there.
    os.environ.update(environment(settings), PROMETHEUS_MULTIPROC_DIR=counts)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stopping.set())
    try:
        processes = Processes(
            serve_as_worker,
            one_for_each(listener, settings.workers),
            stop_s=settings.drain_s + STOP_S,
        )
        started()
        if not processes.run(stopping, Watchdog()):
            raise DidNotStart("a server process did not start; its log says why")
    finally:
        shutil.rmtree(counts, ignore_errors=True)


def serve_as_worker(listener: socket.socket, alive: Alive) -> None:
    serve_alone(load_settings(), listener, alive)


def environment(settings: Settings) -> dict[str, str]:
    """These settings as the environment that `load_settings` would read them from."""
    values = settings.model_dump(mode="json")
    given = {name: value for name, value in values.items() if value is not None}
    return {f"PILOTWAVE_{name.upper()}": str(value) for name, value in given.items()}


def config(settings: Settings, app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=getattr(app, "connections", "httptools"),
        loop="uvloop",
        ws=getattr(app, "websockets", "none"),
        interface="asgi3",
        lifespan="on",
        **proxies(settings),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        server_header=False,
        date_header=False,
        access_log=settings.access_log,
        log_config=log_config(settings),
        backlog=BACKLOG,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )


def proxies(settings: Settings) -> dict[str, Any]:
    """Whose X-Forwarded-… is believed; uvicorn's own default is whoever is on this machine."""
    trusted = settings.trusted_proxies
    return {"proxy_headers": bool(trusted), "forwarded_allow_ips": trusted}
