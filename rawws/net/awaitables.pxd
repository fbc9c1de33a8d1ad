cimport cython

@cython.final
cdef class Done:
    pass

@cython.final
cdef class Later:
    cdef object _start
    cdef object _iterator

@cython.final
cdef class Stream:
    cdef object _ws
    cdef object _decode
    cdef object _decoder
    cdef object _receiver
    cdef bint _started

@cython.final
cdef class PendingPing:
    cdef public bytes payload
    cdef public double sent_at
    cdef public double latency
    cdef public object future

cpdef later(start)
