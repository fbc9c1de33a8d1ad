"""Workers: one process for each core, all on one port, and a supervisor that keeps them running.

The supervisor is the process that was started: it forks the workers, serves nobody, and starts no loop and no thread,
so that it can fork again at any time. Each worker binds the port for itself (SO_REUSEPORT), and the kernel spreads the
connections over them. POSIX only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, final

from rawws import clock

from .streams import flush_streams, write_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rawws.server.server import Server

__all__ = ["ReservedPort", "StartError", "Supervisor", "SupervisorChannel"]

logger = logging.getLogger("rawws.workers")

# A worker that dies is replaced at once; one that dies young later and later, for what killed it may be here to stay.
FIRST_DELAY = 0.1
LAST_DELAY = 10.0
YOUNG = 5.0
# After a second signal the workers have so many seconds before they are killed.
KILL_AFTER = 5.0
# A worker that is told to drain waits so long for a signal of its own, which may be on its way, in seconds.
GRACE = 0.05
# How often the supervisor looks whether workers that start are ready, in seconds.
LOOK = 0.02
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What a worker says to its supervisor, and what it is told: to drain, to wait no longer, to load its certificate again.
READY, STOP, END, RELOAD = b"r", b"s", b"e", b"h"


class StartError(RuntimeError):
    """The workers could not begin to serve: one of them said why."""


@final
class ReservedPort:
    """A port, held by sockets that are bound and do not listen, for workers to bind as well: `with ReservedPort(...)`.

    Raises OSError where it cannot be had.
    """

    __slots__ = ("port", "sockets")

    def __init__(self, hosts: Sequence[str], port: int) -> None:
        self.sockets: list[socket.socket] = []
        self.port = port
        try:
            for host in hosts:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
                for family, kind, proto, _, address in found:
                    self._bind(socket.socket(family, kind, proto), address)
        except BaseException:
            self.close()
            raise

    def _bind(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        self.sockets.append(sock)
        # Also where connections of a server that ended are in TIME_WAIT. Not for a port that another program has:
        # binding it fails, as it should.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Where any port will do, all addresses get the same one.
        sock.bind((address[0], self.port, *address[2:]))
        self.port = sock.getsockname()[1]

    def close(self) -> None:
        """Let go of the port."""
        for sock in self.sockets:
            sock.close()

    def __enter__(self) -> ReservedPort:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class SupervisorChannel:
    """A worker's line to its supervisor."""

    __slots__ = ("_sock", "number")

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number = number
        self._sock = sock

    def ready(self, server: Server) -> None:
        """Say that this worker serves; from now on it ends when the supervisor says so, or is gone."""
        import asyncio  # noqa: PLC0415 - the supervisor has no loop

        loop = asyncio.get_running_loop()

        def listen() -> None:
            word = self._sock.recv(1)
            if word == RELOAD:
                server.on_hangup()
                return
            if word != STOP:
                loop.remove_reader(self._sock)
            if word == END:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                loop.call_later(GRACE, end)

        def end() -> None:
            # The worker may have got a signal of its own: systemd sends SIGTERM to each process of a service. Then it
            # is draining already, and a second signal would cut that short.
            if not server.draining:
                os.kill(os.getpid(), signal.SIGTERM)

        self._sock.send(READY)
        loop.add_reader(self._sock, listen)


@final
class Worker:
    """A worker as its supervisor sees it."""

    __slots__ = ("began", "number", "pid", "ready", "sock")

    def __init__(self, number: int, pid: int, sock: socket.socket) -> None:
        self.number = number
        self.pid = pid
        self.sock = sock
        self.began = clock.monotonic()
        self.ready = False


@final
class Supervisor:
    """Keeps `count` workers running until SIGINT or SIGTERM, which it passes on; a second one ends them at once.

    With `reloads`, it passes SIGHUP on as well.

    `work(channel)` runs in each worker, calls `channel.ready(server)` once it serves, and returns when it is done.
    `on_ready` is called here when all of them serve. A worker that ends before that ends all.
    """

    __slots__ = (
        "_count",
        "_delays",
        "_due",
        "_mask",
        "_on_ready",
        "_reloads",
        "_signals",
        "_started",
        "_work",
        "_workers",
    )

    def __init__(
        self,
        count: int,
        work: Callable[[SupervisorChannel], None],
        on_ready: Callable[[], None],
        *,
        reloads: bool = False,
    ) -> None:
        if count < 1:
            raise ValueError(f"workers is {count}, allowed are numbers above 0")
        if not hasattr(os, "fork") or not hasattr(socket, "SO_REUSEPORT"):
            raise RuntimeError("several workers need fork and SO_REUSEPORT, which this system does not have")
        self._count = count
        self._work = work
        self._on_ready = on_ready
        self._reloads = reloads
        self._workers: dict[int, Worker] = {}
        # By the number of a worker: how long its last start was delayed, and when the next one is due.
        self._delays: dict[int, float] = {}
        self._due: dict[int, float] = {}
        self._signals = 0
        self._started = False
        self._mask: set[int] = set()

    def run(self) -> None:
        """Run until all workers ended. Raises StartError where they could not begin to serve."""
        watched = {*SIGNALS, signal.SIGCHLD, *([signal.SIGHUP] if self._reloads else [])}
        # The signals wait until they are asked for: none is lost between a look and a sleep.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        try:
            for number in range(self._count):
                self._start(number)
            while self._workers or (self._due and not self._signals):
                came = signal.sigtimedwait(watched, self._patience())
                if came is not None and came.si_signo in SIGNALS:
                    self._stop()
                elif came is not None and came.si_signo == signal.SIGHUP:
                    self._tell(RELOAD)
                self._reap()
                self._look()
                self._restart()
        finally:
            self._kill()
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _patience(self) -> float:
        """Return how many seconds to wait for a signal before there is something else to do."""
        if not self._started:
            return LOOK
        return max(0.0, min(self._due.values()) - clock.monotonic()) if self._due else 3600.0

    def _start(self, number: int) -> None:
        """Fork one worker. Raises OSError where the system has no process or descriptor for it."""
        ours, theirs = socket.socketpair()
        flush_streams()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid:
            theirs.close()
            ours.setblocking(False)
            self._workers[pid] = Worker(number, pid, ours)
            return
        # From here on this is the worker, in which nothing of the supervisor may go on.
        ours.close()
        for other in self._workers.values():
            other.sock.close()
        os._exit(self._live(SupervisorChannel(number, theirs)))

    def _live(self, channel: SupervisorChannel) -> int:
        """Be a worker; return the exit status."""
        try:
            # Ctrl-C on a terminal goes to a whole group of processes: the supervisor alone passes it on.
            os.setpgid(0, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            self._work(channel)
        except KeyboardInterrupt:
            return 130
        except SystemExit as end:
            if end.code is None or isinstance(end.code, int):
                return end.code or 0
            write_error(str(end.code))
            return 1
        except BaseException:
            logger.exception("worker %d failed", channel.number)
            return 1
        finally:
            flush_streams()
        return 0

    def _look(self) -> None:
        """See who is ready by now."""
        for worker in self._workers.values():
            # Reset, where it ended and had not read what it was told: it is collected soon.
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                worker.ready = worker.ready or worker.sock.recv(1) == READY
        ready = sum(worker.ready for worker in self._workers.values())
        if not self._started and not self._signals and ready == self._count:
            self._started = True
            self._on_ready()

    def _stop(self) -> None:
        """Pass a signal on; after the second one, wait no longer than a few seconds."""
        self._signals += 1
        self._tell(STOP if self._signals == 1 else END)
        for worker in self._workers.values():
            # One that does not serve yet has nobody to close properly.
            if not worker.ready:
                os.kill(worker.pid, signal.SIGTERM)
        deadline = clock.monotonic() + KILL_AFTER
        while self._signals > 1 and self._workers and clock.monotonic() < deadline:
            signal.sigtimedwait({signal.SIGCHLD}, LOOK)
            self._reap()
        if self._signals > 1:
            self._kill()

    def _tell(self, word: bytes) -> None:
        """Say something to all workers."""
        for worker in self._workers.values():
            # One that is gone is collected soon.
            with contextlib.suppress(OSError):
                worker.sock.send(word)

    def _kill(self) -> None:
        """End all workers, whatever they are doing."""
        self._signals += 1
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGKILL)
        for worker in self._workers.values():
            os.waitpid(worker.pid, 0)
            worker.sock.close()
        self._workers.clear()

    def _reap(self) -> None:
        """Collect the workers that ended, and replace them unless the supervisor ends too."""
        for worker in list(self._workers.values()):
            ended, status = os.waitpid(worker.pid, os.WNOHANG)
            if ended:
                del self._workers[worker.pid]
                worker.sock.close()
                if not self._signals:
                    self._replace(worker, os.waitstatus_to_exitcode(status))

    def _replace(self, worker: Worker, code: int) -> None:
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        if not self._started:
            raise StartError(f"a worker ended {how} before it served")
        lived = clock.monotonic() - worker.began
        delay = 0.0
        if lived < YOUNG:
            delay = min(LAST_DELAY, max(FIRST_DELAY, 2 * self._delays.get(worker.number, 0.0)))
        self._delays[worker.number] = delay
        self._due[worker.number] = clock.monotonic() + delay
        text = "worker %d ended %s after %.1f s, another one takes its place in %.1f s"
        logger.error(text, worker.number, how, lived, delay)

    def _restart(self) -> None:
        """Start those that are due."""
        now = clock.monotonic()
        for number in [number for number, due in self._due.items() if due <= now and not self._signals]:
            try:
                self._start(number)
            except OSError as error:
                # The others serve on.
                self._due[number] = now + LAST_DELAY
                text = "worker %d cannot be started, it is tried again in %g s: %s"
                logger.error(text, number, LAST_DELAY, error.strerror)  # noqa: TRY400 - all there is
            else:
                del self._due[number]
