cimport cython

@cython.final
cdef class Budget:
    cdef readonly object what
    cdef readonly int burst
    cdef readonly double rate
    cdef readonly double left

    cpdef spend(self)
    cpdef earn(self, double count)
