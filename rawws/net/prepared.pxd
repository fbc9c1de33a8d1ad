cimport cython

from rawws.protocol cimport numbers as opcodes

@cython.final
cdef class FormCache:
    cdef readonly Py_ssize_t limit
    cdef readonly object kept
    cdef readonly Py_ssize_t size

    cpdef keep(self, owner, Py_ssize_t size)
    cpdef trim(self)

@cython.final
cdef class PreparedMessage:
    cdef object __weakref__
    cdef readonly bytes plain
    cdef readonly Py_ssize_t size
    cdef readonly unsigned int first
    cdef dict frames
    cdef public FormCache cache

    cpdef compressed(self, deflate)
    cpdef forget_forms(self)
