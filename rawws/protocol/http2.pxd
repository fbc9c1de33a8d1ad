cimport cython

from . cimport http2_numbers as codes
from .hpack cimport HpackDecoder
from .http2_blocks cimport HeaderBlock
from .http2_events cimport DataReceived
from .http2_frames cimport Http2FrameReader
from .http2_sending cimport Http2Sender
from .http2_streams cimport Http2Stream

@cython.final
cdef class Http2Endpoint(Http2Sender):
    cdef readonly bint connect_protocol
    cdef readonly Http2FrameReader frames
    cdef readonly HpackDecoder decoder
    cdef object events
    cdef readonly HeaderBlock block
    cdef Http2Stream data_stream
    cdef bytes preface_left
    cdef readonly int settings_left
    cdef Py_ssize_t given

    cpdef receive(self, bytes data)
    cpdef receive_buffer(self, bytearray buffer, Py_ssize_t end)
    cpdef keep_buffer(self)
    cpdef elapse(self, double seconds)
    @cython.locals(frames=Http2FrameReader, stream=Http2Stream, over=bint)
    cpdef next_event(self)
    @cython.locals(frames=Http2FrameReader, count=Py_ssize_t, octets=bytes)
    cpdef bint read_preface(self) except -1
    @cython.locals(frames=Http2FrameReader, kind=int, inside=Py_ssize_t)
    cpdef begin_frame(self)
    @cython.locals(frames=Http2FrameReader, kind=int, payload=bytes)
    cpdef receive_frame(self)
    @cython.locals(frames=Http2FrameReader, length=Py_ssize_t, stream=Http2Stream)
    cpdef begin_data(self)
    @cython.locals(announced=Py_ssize_t)
    cpdef bint check_length(self, Http2Stream stream, bint over) except -1
    cpdef receive_end(self, Http2Stream stream)
    cpdef receive_on_closed(self, Py_ssize_t stream_id)
    cpdef bint was_opened(self, Py_ssize_t stream_id) except -1
    cpdef end_block(self)
    @cython.locals(stream=Http2Stream, too_large=bint)
    cpdef receive_block(self, Py_ssize_t stream_id, list fields, bint over)
    cpdef parse(self, Http2Stream stream, list fields, bint over)
    cpdef Py_ssize_t announced(self, headers) except -2
    @cython.locals(stream=Http2Stream)
    cpdef accept(self, Py_ssize_t stream_id)
    @cython.locals(stream=Http2Stream)
    cpdef receive_reset(self, Py_ssize_t stream_id, Py_ssize_t error_code)
    @cython.locals(change=Py_ssize_t, stream=Http2Stream)
    cpdef receive_settings(self, bytes payload)
    @cython.locals(change=Py_ssize_t, stream=Http2Stream)
    cpdef apply_setting(self, Py_ssize_t code, Py_ssize_t value)
    @cython.locals(stream=Http2Stream, window=Py_ssize_t)
    cpdef receive_window_update(self, Py_ssize_t stream_id, Py_ssize_t increment)
    cpdef receive_ping(self, bytes payload)
    @cython.locals(stream=Http2Stream)
    cpdef receive_priority(self, Py_ssize_t stream_id, bytes payload)
    cpdef receive_goaway(self, bytes payload)
    cpdef check_opened(self, Py_ssize_t stream_id)
    cpdef stream_error(self, Http2Stream stream, error_code, reason)
    cpdef fail(self, error)
