cimport cython

@cython.final
cdef class Event:
    cdef object _data
    cdef object _event
    cdef object _id
    cdef object _retry
    cdef object _comment

    cpdef tuple fields(self)
