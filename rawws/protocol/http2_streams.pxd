cimport cython

from . cimport http2_numbers as states

@cython.final
cdef class Http2Stream:
    cdef readonly Py_ssize_t id
    cdef readonly int state
    cdef public object owner
    cdef public Py_ssize_t send_window
    cdef public Py_ssize_t receive_window
    cdef public Py_ssize_t target
    cdef public Py_ssize_t given
    cdef public Py_ssize_t content_length
    cdef public Py_ssize_t received
    cdef public bint headers_received
    cdef public bint answered
    cdef public Py_ssize_t answered_at
    cdef public bint head_only
    cdef public bint known
    cdef public bint tunnel

    cpdef step(self, step)
    cpdef bint may_receive(self) except -1
    cpdef bint may_send(self) except -1
