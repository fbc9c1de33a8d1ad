cimport cython

from . cimport http2_numbers as codes
from . cimport octets as masking

cdef Py_ssize_t FRAME_HEADER
cdef Py_ssize_t LARGE
cdef Py_ssize_t CAPACITY
cdef Py_ssize_t KEPT
cdef dict FIXED_SIZES
cdef bytearray EMPTY

cpdef check_frame(int kind, int flags, Py_ssize_t stream_id, Py_ssize_t length, Py_ssize_t max_frame_size)

@cython.final
cdef class Http2FrameReader:
    cdef bytearray buffer
    cdef object view
    cdef public Py_ssize_t position
    cdef Py_ssize_t end
    cdef bint lent
    cdef readonly Py_ssize_t max_frame_size
    cdef readonly bint in_frame
    cdef readonly int kind
    cdef readonly int flags
    cdef readonly Py_ssize_t stream_id
    cdef readonly Py_ssize_t length
    cdef readonly Py_ssize_t remaining
    cdef readonly Py_ssize_t padding

    cpdef feed(self, bytearray buffer, Py_ssize_t end)
    cpdef keep(self)
    cpdef discard(self)
    @cython.locals(
        octets=bytearray, at=Py_ssize_t, available=Py_ssize_t, length=Py_ssize_t, kind=int, flags=int,
        stream_id=Py_ssize_t, padding=Py_ssize_t, remaining=Py_ssize_t
    )
    cpdef bint read_header(self) except -1
    cpdef bint has_payload(self) except -1
    @cython.locals(start=Py_ssize_t, stop=Py_ssize_t)
    cpdef bytes take(self)
    @cython.locals(start=Py_ssize_t, count=Py_ssize_t, skipped=Py_ssize_t)
    cpdef take_view(self)

@cython.final
cdef class Http2FrameWriter:
    cdef bytearray octets
    cdef Py_ssize_t length
    cdef list chunks
    cdef Py_ssize_t sealed

    cpdef Py_ssize_t size(self) except -1
    @cython.locals(length=Py_ssize_t, at=Py_ssize_t, room=Py_ssize_t, octets=bytearray)
    cpdef write(self, int kind, int flags, Py_ssize_t stream_id, bytes payload)
    cpdef append(self, bytes octets)
    @cython.locals(chunks=list)
    cpdef list take(self)
