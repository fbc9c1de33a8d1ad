cimport cython

from .http2_streams cimport Http2Stream

@cython.final
@cython.freelist(64)
cdef class DataReceived:
    cdef readonly Http2Stream stream
    cdef readonly object data
    cdef readonly bint end_stream
