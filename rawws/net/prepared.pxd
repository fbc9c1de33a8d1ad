cimport cython

@cython.final
cdef class Encoded:
    cdef readonly object message
    cdef readonly bytes payload
    cdef readonly bytes plain
    cdef unsigned int first
    cdef dict frames

    cpdef compressed(self, deflate)
