cdef class Turn:
    cdef Py_ssize_t _size
    cdef object _loop
    cdef bint _scheduled
    cdef object _waiting
    cdef readonly Py_ssize_t spent

    cpdef spend(self, Py_ssize_t size)
    cpdef bint is_over(self) except -1
    cpdef wait(self, go_on)
