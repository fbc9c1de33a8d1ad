cimport cython

@cython.final
cdef class Done:
    pass

@cython.final
cdef class Later:
    cdef object _start
    cdef object _iterator

@cython.final
cdef class Waiter:
    cdef public bint _asyncio_future_blocking
    cdef object callback
    cdef object context
    cdef object loop

    cpdef wake(self)
    cpdef wake_soon(self)

cpdef later(start)
