cimport cython

from . cimport posix as os

from rawws.protocol cimport numbers as phases
from rawws.protocol.connection cimport Connection
from rawws.protocol.flags cimport flag
from .threads cimport LoopThread
from .turns cimport Turn

cdef Py_ssize_t READ_SIZE
cdef Py_ssize_t WRITE_SIZE
cdef Py_ssize_t MAX_PIECES
cdef Py_ssize_t TURN_SIZE
cdef Py_ssize_t EVENT_COST
cdef Py_ssize_t FLUSHED

cdef class Shared(LoopThread):
    cdef readonly Turn turn
    cdef readonly bytearray buffer
    cdef object view
    cdef readonly list writers
    cdef list dirty
    cdef bint scheduled
    cdef public object clients

    cpdef add_dirty(self, AsyncSocket socket)
    @cython.locals(dirty=list, socket=AsyncSocket)
    cpdef flush(self)

cdef class AsyncSocket:
    cdef Shared shared
    cdef public object handler
    cdef public Connection connection
    cdef readonly object transport
    cdef list gathered
    cdef Py_ssize_t gathered_bytes
    cdef int fd
    cdef public flag corked
    cdef readonly flag full
    cdef readonly flag congested
    cdef flag yields_writing
    cdef flag in_dirty
    cdef readonly flag lost
    cdef flag transport_holds
    cdef flag reading_paused
    cdef flag yielding
    cdef flag received_since_sweep
    cdef flag sent_since_sweep
    cdef readonly flag aborted
    cdef Py_ssize_t turn_bytes
    cdef public object rate_limiter
    cdef readonly long long bytes_received
    cdef readonly long long bytes_sent
    cdef public double deadline
    cdef readonly double last_sent_at
    cdef tuple last_look
    cdef object drain_waiters
    cdef object closed_waiters
    cdef public object followers
    cdef public object remote
    cdef public object secure

    cpdef connection_made(self, transport)
    cpdef begin_on(self, transport, int fd)
    cpdef get_buffer(self, sizehint)
    cpdef buffer_updated(self, Py_ssize_t nbytes)
    cpdef data_received(self, bytes data)
    cpdef eof_received(self)
    cpdef connection_lost(self, exc)
    cpdef pause_writing(self)
    cpdef resume_writing(self)

    @cython.locals(connection=Connection)
    cpdef receive(self, bytearray buffer, Py_ssize_t count)
    @cython.locals(connection=Connection)
    cpdef pump(self)
    cpdef pause_reading(self)
    cpdef read_on(self)
    cpdef resume_reading(self)
    cpdef wrote(self)
    cpdef gather(self, bytes octets)
    cpdef flush_soon(self)
    @cython.locals(chunks=list)
    cpdef flush(self)
    @cython.locals(gathered=list)
    cpdef flush_gathered(self)
    @cython.locals(count=Py_ssize_t, sent=Py_ssize_t, rest=list, chunk=bytes)
    cpdef write(self, list chunks)
    cpdef yield_writing(self, double seconds)
    cpdef write_on(self)
    cpdef bint end_writing(self) except -1
    cpdef bint held(self) except -1
    cpdef long long bytes_taken(self) except -1

    cpdef drained(self)
    cpdef set_deadline(self, double seconds)
    cpdef expire(self)
    cpdef on_lost(self)
    cpdef on_sweep(self, double now)
    cpdef bint makes_progress(self) except -1

    cpdef bint is_idle(self) except -1
    cpdef pause_turn(self)
    cpdef account(self, Py_ssize_t messages, Py_ssize_t octets)
    cpdef on_message(self, message)
    cpdef on_event(self, event)
    cpdef on_failure(self, error)
    cpdef on_end(self)
    cpdef on_handler_error(self, error)
    cpdef wake(self)
