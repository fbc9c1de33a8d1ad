cdef class Watched:
    cdef readonly int fd
    cdef object context
    cdef int mask

    cpdef ready(self, int events)
