cdef class Watched:
    cdef readonly int fd
    cdef int mask
    cdef object context

    cpdef ready(self, int events)
