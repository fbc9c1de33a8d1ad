cimport cython

from rawws.protocol.flags cimport flag

cdef object NOTHING

@cython.final
cdef class Waiter:
    cdef public flag _asyncio_future_blocking
    cdef flag cancelled
    cdef object callback
    cdef object context
    cdef object loop
    cdef HandlerCoroutine coroutine
    cdef object task

    cpdef wake(self)
    cpdef wake_soon(self)
    cdef forget(self)

@cython.final
cdef class HandlerCoroutine:
    cdef object _coroutine
    cdef object _yielded
    cdef object _error

    cpdef bint resume(self, Waiter waiter, task) except -1
    cpdef send(self, value)
    cdef _end(self)
