cimport cython

from .event cimport Event

@cython.final
cdef class Decoder:
    cdef public str last_event_id
    cdef public object retry
    cdef Py_ssize_t _max_size
    cdef bint _begun
    cdef bint _after_cr
    cdef bint _too_large
    cdef bytearray _line
    cdef bytearray _data
    cdef str _event
    cdef str _id
    cdef Py_ssize_t _size

    cpdef _begin(self)
    @cython.locals(lines=list, rest=bytes, events=list)
    cpdef list receive(self, bytes data)
    cpdef receive_eof(self)
    cpdef _error(self)
    cpdef bytes _strip_bom(self, bytes data)
    @cython.locals(lines=list, ends=Py_ssize_t)
    cpdef list _split(self, bytes data)
    @cython.locals(events=list, parts=list, line=bytes, size=Py_ssize_t, limit=Py_ssize_t, length=Py_ssize_t)
    cpdef list _read(self, list lines)
    @cython.locals(field=bytes, octets=bytes, value=str)
    cpdef bint _process(self, bytes line, list parts) except -1
    cpdef _hold(self, bytes data)
