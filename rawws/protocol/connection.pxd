cimport cython

from . cimport numbers as opcodes
from . cimport numbers as phases
from . cimport octets as masking
from .flags cimport flag
from .frames cimport FrameReader, FrameWriter
from .messages cimport MessageReader

cdef Py_ssize_t KEY_BLOCK
cdef Py_ssize_t BEHIND
cdef frozenset AS_AGREED

@cython.final
cdef class Connection:
    cdef readonly FrameReader frames
    cdef readonly MessageReader messages
    cdef readonly object deflate
    cdef list writers
    cdef FrameWriter writer
    cdef readonly object backlog
    cdef Py_ssize_t behind
    cdef int _keys_used
    cdef readonly unsigned char phase
    cdef flag masks
    cdef public flag hold_pongs
    cdef readonly object close_sent
    cdef readonly object close_rcvd
    cdef readonly object rcvd_then_sent
    cdef readonly object violation
    cdef object pong_held
    cdef object _random
    cdef bytes _keys

    cpdef limit(self, max_size, max_frame_size, bint text_only)
    cpdef receive(self, bytes data)
    cpdef receive_buffer(self, bytearray buffer, Py_ssize_t end)
    cpdef keep_buffer(self)
    @cython.locals(frames=FrameReader, messages=MessageReader)
    cpdef next_event(self)
    cpdef receive_control(self, unsigned int opcode, bytes payload)
    cpdef receive_eof(self)
    @cython.locals(text=str, first="unsigned int")
    cpdef send(self, message, compress=*)
    cpdef send_fragment(self, unsigned int opcode, bytes payload, bint final)
    cpdef send_frames(self, bytes octets)
    cpdef send_job(self, unsigned int opcode, job)
    cpdef hold(self, unsigned int first, payload)
    @cython.locals(first="unsigned int", stepped=bint)
    cpdef bint deflate_piece(self) except -1
    cpdef put(self, unsigned int first, bytes payload)
    cpdef ping(self, bytes payload)
    cpdef pong(self, bytes payload)
    cpdef release_pong(self)
    cpdef bint may_send(self) except -1
    cpdef settle(self)
    cpdef close(self, code=*, reason=*)
    cpdef fail(self, code, reason)
    cpdef send_close(self, code, reason, bytes payload)
    @cython.locals(writer=FrameWriter)
    cpdef write(self, unsigned int first, payload)
    cpdef FrameWriter gather(self)
    @cython.locals(used=Py_ssize_t)
    cpdef unsigned int next_key(self) except? 0
    @cython.locals(writer=FrameWriter)
    cpdef list take_data(self)
    cpdef list data_to_send(self)
    cpdef Py_ssize_t pending(self) except -1
    cpdef step(self, step)
    cpdef closed(self)
