from . cimport pythread as threading

cdef class LoopThread:
    cdef public object loop
    cdef public unsigned long thread

    cpdef bint is_here(self) except -1
    cpdef check(self)
