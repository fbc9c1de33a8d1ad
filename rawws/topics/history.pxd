from rawws.net.prepared cimport PreparedMessage

cdef class Publication:
    cdef readonly PreparedMessage encoded
    cdef readonly object topic
    cdef readonly object message
    cdef readonly object key
    cdef readonly object epoch
    cdef readonly Py_ssize_t offset
    cdef readonly object cursor
    cdef public double at
    cdef readonly Py_ssize_t size
    cdef public dict forms
    cdef public dict events

cdef class Notice(Publication):
    cdef readonly object event
    cdef readonly object present
