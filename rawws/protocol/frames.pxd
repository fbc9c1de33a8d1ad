cimport cython

from . cimport numbers as opcodes
from . cimport octets as masking
from .flags cimport flag

cdef Py_ssize_t LARGE
cdef Py_ssize_t CAPACITY
cdef Py_ssize_t KEPT
cdef bytearray EMPTY

@cython.locals(opcode="unsigned int", control=bint, form="unsigned int")
cpdef check_header(
    unsigned int first, unsigned int second, Py_ssize_t length, bint masked, bint rsv1, bint fragmented
)

@cython.final
cdef class FrameReader:
    cdef bytearray buffer
    cdef readonly Py_ssize_t position
    cdef Py_ssize_t end
    cdef readonly unsigned int first
    cdef flag lent
    cdef flag masked
    cdef flag rsv1
    cdef readonly flag in_frame
    cdef readonly Py_ssize_t length
    cdef readonly Py_ssize_t remaining
    cdef unsigned int key

    cpdef feed(self, bytearray buffer, Py_ssize_t end)
    cpdef keep(self)
    @cython.locals(
        octets=bytearray, at=Py_ssize_t, available=Py_ssize_t, first="unsigned int", second="unsigned int",
        length=Py_ssize_t, i=Py_ssize_t
    )
    cpdef bint read_header(self, bint fragmented) except -1
    @cython.locals(octets=bytearray, start=Py_ssize_t, first="unsigned int", length=Py_ssize_t, key="unsigned int")
    cpdef take_short(self)
    cpdef bint has_payload(self) except -1
    cpdef discard(self)
    @cython.locals(count=Py_ssize_t)
    cpdef Py_ssize_t advance(self) except -1
    @cython.locals(start=Py_ssize_t, key="unsigned int")
    cpdef bytes take_bytes(self)
    @cython.locals(start=Py_ssize_t, stop=Py_ssize_t, key="unsigned int")
    cpdef Py_ssize_t take_into(self, target, Py_ssize_t at) except -1
    @cython.locals(start=Py_ssize_t, key="unsigned int")
    cpdef str take_text(self)

@cython.final
cdef class FrameWriter:
    cdef bytearray octets
    cdef Py_ssize_t length
    cdef list chunks
    cdef Py_ssize_t sealed

    cpdef Py_ssize_t size(self) except -1
    @cython.locals(
        length=Py_ssize_t, room=Py_ssize_t, at=Py_ssize_t, octets=bytearray, mask_bit="unsigned int", i=Py_ssize_t
    )
    cpdef write(self, unsigned int first, payload, bint masked, unsigned int key)
    cpdef append(self, bytes octets)
    @cython.locals(chunks=list)
    cpdef list take(self)
