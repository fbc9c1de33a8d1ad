cimport cython

from . cimport posix as os
from rawws.protocol.flags cimport flag
from .reactor cimport EpollTransport, Reactor

cdef int READ
cdef int WRITE
cdef Py_ssize_t RECORD
cdef Py_ssize_t STEP_COST
cdef int SHAKING
cdef int OPEN
cdef int LEAVING
cdef int LEFT
cdef object END

@cython.final
cdef class TlsTerms:
    cdef readonly object context
    cdef object on_secure
    cdef double shutdown_timeout
    cdef object logger
    cdef object view
    cdef Py_ssize_t size

cdef class TlsTransport(EpollTransport):
    cdef TlsTerms terms
    cdef object tls
    cdef object inner
    cdef int phase
    cdef int wants
    cdef flag read_wants_room
    cdef flag write_wants_data
    cdef flag more
    cdef flag reading_soon
    cdef object record
    cdef object fate
    cdef object certificate

    @cython.locals(readable=bint, room=bint)
    cpdef ready(self, int events)
    @cython.locals(mask=int)
    cpdef update(self)
    cpdef shake(self)
    cpdef wrap(self)
    cpdef empty(self)
    @cython.locals(size=Py_ssize_t, total=Py_ssize_t, count=Py_ssize_t)
    cpdef read(self)
    cpdef read_soon(self)
    @cython.locals(waiting=list, sent=Py_ssize_t)
    cpdef send(self)
    cpdef break_off(self, error)
    cpdef bint has_unread(self) except -1
    cpdef finish(self)
    @cython.locals(count=Py_ssize_t, over=bint)
    cpdef leave(self)
    cpdef close_descriptor(self)

@cython.locals(room=Py_ssize_t)
cdef next_record(list waiting)
