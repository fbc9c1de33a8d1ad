cimport cython

from rawws.protocol.connection cimport Connection
from .socket cimport Shared, Transport

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

cdef class Settings:
    cdef readonly object loop
    cdef readonly Shared shared
    cdef public object logger
    cdef public set connections
    cdef public object journal
    cdef public object gate
    cdef public object keepalive
    cdef public object on_message
    cdef public object on_close
    cdef public object on_drain
    cdef public double open_timeout
    cdef public double close_timeout
    cdef public double ping_interval
    cdef public double ping_timeout
    cdef public Py_ssize_t hard_limit
    cdef public double max_lifetime
    cdef public double message_rate
    cdef public double byte_rate

@cython.final
cdef class Done:
    pass

@cython.final
cdef class Later:
    cdef object _start
    cdef object _iterator

@cython.final
cdef class Waiter:
    cdef public bint _asyncio_future_blocking
    cdef object callback
    cdef object context
    cdef object loop

    cpdef wake(self)
    cpdef wake_soon(self)

@cython.final
cdef class Receiver:
    cdef WebSocket ws
    cdef bint iterates
    cdef bint streams

@cython.final
cdef class Stream:
    cdef WebSocket _ws
    cdef object _decode
    cdef object _decoder
    cdef Receiver _receiver
    cdef bint _started

@cython.final
cdef class PendingPing:
    cdef public bytes payload
    cdef public double sent_at
    cdef public double latency
    cdef public object future

@cython.final
cdef class Encoded:
    cdef readonly object message
    cdef readonly bytes payload
    cdef readonly bytes plain
    cdef unsigned int first
    cdef dict frames

    cpdef compressed(self, deflate)

# Not final: Cython takes a method of a final class for final where the `.py` defines it, and so for one that overrides.
cdef class WebSocket(Transport):
    cdef public Settings settings
    cdef list queue
    cdef Py_ssize_t queue_at
    cdef Py_ssize_t queued
    cdef public int stream
    cdef Waiter waiter
    cdef Receiver _iterator
    cdef list joined
    cdef object drain_waiters
    cdef object closed_waiters
    cdef public object followers
    cdef object held_messages
    cdef object pings
    cdef public object task
    cdef bint resting
    cdef bint ending
    cdef readonly bint aborted
    cdef double opened_at
    cdef double retires_at
    cdef public double deadline
    cdef double pinged_at
    cdef double alive_at
    cdef double spoke_at
    cdef Py_ssize_t last_buffered
    cdef readonly double latency
    cdef public bytes request_head
    cdef object _request
    cdef public object response
    cdef public object subprotocol
    cdef public object username
    cdef public object remote
    cdef public object secure
    cdef public object path_params
    cdef object _state
    cdef object _id

    cpdef check_open(self)
    cpdef begin_stream(self)
    cpdef end_stream(self)
    cpdef join(self)
    cpdef join_part(self, part, bint final)
    cpdef bint has_message(self) except -1
    @cython.locals(queue=list, at=Py_ssize_t)
    cpdef take(self)
    cpdef refill(self)
    cpdef spend(self, Py_ssize_t messages, Py_ssize_t octets)
    cpdef rest(self)
    cpdef go_on(self)
    @cython.locals(waiter=Waiter)
    cpdef wait(self, bint iterates)
    cpdef on_message(self, message)
    cpdef on_event(self, event)
    @cython.locals(waiter=Waiter)
    cpdef wake(self)
    cpdef send(self, message, text=*, compress=*)
    @cython.locals(connection=Connection, octets=bytes)
    cpdef send_encoded(self, Encoded encoded)
    cpdef drained(self)
    cpdef check_hard_limit(self)
    cpdef close(self, code=*, reason=*)
    cpdef set_deadline(self, double seconds)
    cpdef on_failure(self, error)
    cpdef on_end(self)
    cpdef fail(self, code, reason)
    cpdef on_handler_error(self, error)
    cpdef on_lost(self)
    cpdef on_pong(self, bytes payload)
    @cython.locals(settings=Settings)
    cpdef look_after(self, double now)
    cpdef retire(self, double now)
    cpdef bint is_idle(self) except -1
    cpdef bint makes_progress(self) except -1
