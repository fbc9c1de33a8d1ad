from .socket cimport Shared


cdef class Settings:
    cdef readonly object loop
    cdef readonly Shared shared
    cdef public object logger
    cdef public set connections
    cdef public object counters
    cdef public object admission
    cdef public object keepalive
    cdef public object on_message
    cdef public object on_close
    cdef public object on_drain
    cdef public double open_timeout
    cdef public double close_timeout
    cdef public double ping_interval
    cdef public double ping_timeout
    cdef public Py_ssize_t hard_limit
    cdef public double max_lifetime
    cdef public double message_rate
    cdef public double byte_rate

    cpdef measure(self, double round_trip)
