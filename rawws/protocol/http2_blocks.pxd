cimport cython

from . cimport http2_numbers as codes
from .http2_frames cimport Http2FrameWriter

cdef Py_ssize_t MAX_STREAM_ID

@cython.final
cdef class HeaderBlock:
    cdef object limits
    cdef bytes octets
    cdef readonly Py_ssize_t stream_id
    cdef readonly int continuations
    cdef readonly bint end_stream
    cdef readonly bint self_dependent

    cpdef begin(self, Py_ssize_t stream_id, int flags, bytes payload)
    cpdef extend(self, bytes payload)
    @cython.locals(size=Py_ssize_t, limit=Py_ssize_t)
    cpdef check(self)
    cpdef bytes take(self)

@cython.locals(last=Py_ssize_t, at=Py_ssize_t)
cpdef write_block(Http2FrameWriter writer, Py_ssize_t stream_id, bytes block, int flags, Py_ssize_t max_frame_size)
