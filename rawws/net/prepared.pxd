cimport cython

from rawws.protocol cimport numbers as opcodes

@cython.final
cdef class PreparedMessage:
    cdef readonly object message
    cdef readonly bytes payload
    cdef readonly bytes plain
    cdef unsigned int first
    cdef dict frames

    cpdef compressed(self, deflate)
