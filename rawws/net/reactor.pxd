cimport cython

from . cimport epoll as polls
from . cimport posix as os
from rawws.protocol.flags cimport flag
from .socket cimport AsyncSocket
from .watched cimport Watched

cdef int READ
cdef int WRITE
cdef int ACCEPTS
cdef Py_ssize_t MAX_PIECES
cdef Py_ssize_t TURN_SIZE

@cython.final
cdef class Reactor:
    cdef object __weakref__
    cdef readonly object loop
    cdef list buffers
    cdef object poll
    cdef readonly int fd
    cdef list table
    cdef readonly Py_ssize_t members
    cdef bytearray batch
    cdef Py_ssize_t count
    cdef Py_ssize_t position
    cdef Py_ssize_t spent

    @cython.locals(table=list)
    cpdef add(self, Watched watched)
    @cython.locals(before=int)
    cpdef watch(self, Watched watched, int mask)
    cpdef remove(self, Watched watched)
    @cython.locals(position=Py_ssize_t)
    cpdef run(self)

cdef class EpollTransport(Watched):
    cdef Reactor reactor
    cdef readonly AsyncSocket protocol
    cdef object address
    cdef long long ipv4
    cdef object sock
    cdef object alarm
    cdef list waiting
    cdef Py_ssize_t waiting_bytes
    cdef Py_ssize_t high
    cdef Py_ssize_t low
    cdef flag writing_paused
    cdef flag paused
    cdef flag closing
    cdef flag eof
    cdef flag broken
    cdef flag ended

    cpdef begin(self)
    cpdef ready(self, int events)
    @cython.locals(count=Py_ssize_t, reactor=Reactor)
    cpdef read(self)
    @cython.locals(waiting=list, sent=Py_ssize_t)
    cpdef send(self)
    @cython.locals(whole=Py_ssize_t)
    cpdef break_off(self, error)
    cpdef bint has_unread(self) except -1
    cpdef set_alarm(self, double seconds)
    cpdef drop(self, list waiting, Py_ssize_t sent)
    cpdef relieve(self)
    cpdef sent_all(self)
    cpdef finish(self)
    @cython.locals(mask=int)
    cpdef update(self)
    cpdef fail(self, error, message)
    cpdef cut(self, error)
    cpdef end_soon(self, error)
    @cython.locals(fd=int)
    cpdef close_descriptor(self)
    cpdef bint is_closing(self) except -1
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef abort(self)
    cpdef Py_ssize_t get_write_buffer_size(self) except -1
    cpdef write(self, data)
    @cython.locals(tried=bint)
    cpdef writelines(self, pieces)

cdef class Acceptor(Watched):
    cdef Reactor reactor
    cdef object make_protocol
    cdef object adopt
    cdef object sock
    cdef bint told

    cpdef ready(self, int events)
