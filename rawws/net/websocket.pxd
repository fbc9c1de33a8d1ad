cimport cython

from rawws.protocol cimport numbers as opcodes
from rawws.protocol cimport numbers as phases
from rawws.protocol.connection cimport Connection
from rawws.protocol.flags cimport flag
from . cimport stop_iteration as results
from .awaitables cimport later
from .prepared cimport PreparedMessage
from .settings cimport Settings
from .handshaken cimport HandshakenSocket
from .socket cimport AsyncSocket
from .waking cimport Waiter

cdef Py_ssize_t QUEUE_SIZE
cdef Py_ssize_t MESSAGE_COST
cdef double LINGER
cdef double JITTER
cdef int NONE
cdef int WAITING
cdef int READING
cdef int SKIPPING
cdef int SKIPPING_FIRST
cdef int JOINING
cdef object DONE
cdef list NOTHING

@cython.final
cdef class Receiver:
    cdef WebSocket ws
    cdef bint iterates
    cdef bint streams

# Not final: Cython takes a method of a final class for final where the `.py` defines it, and so for one that overrides.
cdef class WebSocket(HandshakenSocket):
    cdef public Settings settings
    cdef list queue
    cdef Py_ssize_t queue_at
    cdef Py_ssize_t queued
    cdef Waiter waiter
    cdef Receiver _iterator
    cdef list joined
    cdef object held_messages
    cdef object pings
    cdef public object task
    cdef public int stream
    cdef flag turn_paused
    cdef flag messages_paused
    cdef flag ending
    cdef flag active_since_sweep
    cdef object awaited
    cdef object deflating
    cdef double opened_at
    cdef double retires_at
    cdef double pinged_at
    cdef double alive_at
    cdef double idle_timeout
    cdef double active_at
    cdef readonly double latency

    cpdef check_open(self)
    cpdef begin_stream(self)
    cpdef end_stream(self)
    cpdef join(self)
    cpdef join_part(self, part, bint final)
    cpdef bint has_message(self) except -1
    @cython.locals(queue=list, at=Py_ssize_t)
    cpdef take(self)
    cpdef refill(self)
    cpdef account(self, Py_ssize_t messages, Py_ssize_t octets)
    cpdef pause_messages(self)
    cpdef resume_messages(self)
    cpdef pause_turn(self)
    cpdef resume_turn(self)
    cpdef bint leaves_turn(self) except -1
    @cython.locals(waiter=Waiter)
    cpdef wait(self, bint iterates)
    cpdef on_message(self, message)
    cpdef put(self, item, Py_ssize_t size)
    cpdef on_event(self, event)
    @cython.locals(waiter=Waiter)
    cpdef wake(self)
    @cython.locals(start=cython.longlong)
    cpdef send(self, message, text=*, compress=*)
    @cython.locals(connection=Connection)
    cpdef send_prepared(self, PreparedMessage prepared)
    cpdef written(self, long long start)
    cpdef on_deflated(self)
    cpdef drained(self)
    cpdef long long bytes_written(self) except -1
    cpdef claim(self, long long start)
    cpdef long long check_hard_limit(self) except -1
    cpdef close(self, code=*, reason=*)
    cpdef on_failure(self, error)
    cpdef on_end(self)
    cpdef fail(self, code, reason)
    cpdef on_handler_error(self, error)
    cpdef on_lost(self)
    cpdef on_pong(self, bytes payload)
    @cython.locals(settings=Settings)
    cpdef on_sweep(self, double now)
    cpdef retire(self, double now)
    cpdef bint is_idle(self) except -1
