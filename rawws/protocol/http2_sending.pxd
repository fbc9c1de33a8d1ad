cimport cython

from . cimport http2_numbers as codes
from . cimport http2_numbers as states
from .hpack cimport HpackEncoder
from .http2_frames cimport Http2FrameWriter
from .http2_limits cimport Budget
from .http2_streams cimport Http2Stream

cdef Py_ssize_t DEFAULT_WINDOW
cdef Py_ssize_t REMEMBERED
cdef Py_ssize_t SMALL

cdef class Http2Sender:
    cdef readonly bint server
    cdef readonly object limits
    cdef Http2FrameWriter writer
    cdef readonly Py_ssize_t writes
    cdef readonly HpackEncoder encoder
    cdef readonly dict streams
    cdef readonly dict closed
    cdef readonly object error
    cdef readonly Py_ssize_t highest_id
    cdef readonly Py_ssize_t next_id
    cdef readonly Py_ssize_t goaway_sent
    cdef readonly Py_ssize_t goaway_received
    cdef readonly Py_ssize_t initial_send_window
    cdef readonly Py_ssize_t initial_receive_window
    cdef readonly Py_ssize_t max_send_frame
    cdef readonly Py_ssize_t peer_max_streams
    cdef readonly bint peer_connect_protocol
    cdef readonly Py_ssize_t send_window
    cdef readonly Py_ssize_t connection_window
    cdef readonly Budget idle_frames
    cdef readonly Budget resets

    cpdef begin(self, bint connect_protocol)
    cpdef bint may_request(self) except -1
    cpdef send_trailers(self, Http2Stream stream, headers)
    cpdef send_fields(self, Http2Stream stream, list fields, bint end_stream)
    cpdef Py_ssize_t sendable(self, Http2Stream stream) except -1
    @cython.locals(length=Py_ssize_t, largest=Py_ssize_t, at=Py_ssize_t, is_cut=bint)
    cpdef send_data(self, Http2Stream stream, bytes data, bint end_stream=*)
    cpdef check_answered(self, Http2Stream stream)
    cpdef send_end(self, Http2Stream stream)
    cpdef reset(self, Http2Stream stream, error_code=*)
    cpdef acknowledge(self, Http2Stream stream, Py_ssize_t count)
    @cython.locals(more=Py_ssize_t)
    cpdef widen(self, Http2Stream stream, Py_ssize_t window)
    cpdef ping(self, bytes payload)
    cpdef write_number(self, int kind, Py_ssize_t stream_id, number)
    cpdef list data_to_send(self)
    cpdef Py_ssize_t pending(self) except -1
    cpdef forget_closed(self, Http2Stream stream, int how)
    cpdef remember(self, Py_ssize_t stream_id, int how)
    cpdef go_away(self, last_stream_id=*, error_code=*)
    cpdef write_goaway(self, Py_ssize_t last_stream_id, error_code, bytes debug_data)
