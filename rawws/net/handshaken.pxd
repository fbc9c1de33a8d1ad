from .socket cimport AsyncSocket

cdef class HandshakenSocket(AsyncSocket):
    cdef public bytes request_head
    cdef object _request
    cdef public object response
    cdef public object subprotocol
    cdef public object username
    cdef public object path_params
    cdef object _state
    cdef object _id
    cdef public object identity
    cdef object _token
