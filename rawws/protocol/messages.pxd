cimport cython

from . cimport numbers as opcodes
from . cimport octets as masking
from .flags cimport flag
from .frames cimport FrameReader

cdef Py_ssize_t PLACED

@cython.final
cdef class MessageReader:
    cdef object deflate
    cdef readonly Py_ssize_t max_size
    cdef readonly Py_ssize_t max_frame_size
    cdef readonly unsigned int opcode
    cdef readonly flag text_only
    cdef readonly flag short
    cdef public flag streaming
    cdef flag compressed
    cdef readonly flag inflating
    cdef flag last
    cdef bytearray held
    cdef object target
    cdef Py_ssize_t filled
    cdef Py_ssize_t checked
    cdef Py_ssize_t size
    cdef Py_ssize_t wire_size

    cpdef limit(self, Py_ssize_t max_size, Py_ssize_t max_frame_size, bint text_only)
    @cython.locals(first="unsigned int", length=Py_ssize_t, limit=Py_ssize_t)
    cpdef begin_frame(self, FrameReader frames)
    @cython.locals(first="unsigned int", final=bint)
    cpdef receive(self, FrameReader frames)
    cpdef receive_placed(self, FrameReader frames)
    cpdef receive_part(self, bytes data, bint final)
    cpdef receive_rest(self)
    cpdef drop(self)
    cpdef bytes inflate(self, bytes data, bint final)
    @cython.locals(rest=bytearray, count=Py_ssize_t, over=bint)
    cpdef check_text(self, bint final)
    cpdef give_part(self, bint final)
