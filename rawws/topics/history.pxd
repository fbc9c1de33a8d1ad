cimport cython

from rawws.net.prepared cimport FormCache, PreparedMessage

cdef class Publication:
    cdef object __weakref__
    cdef readonly PreparedMessage encoded
    cdef readonly object topic
    cdef readonly object channel
    cdef readonly object key
    cdef readonly object epoch
    cdef readonly object extra
    cdef readonly Py_ssize_t offset
    cdef readonly object cursor
    cdef public double at
    cdef readonly Py_ssize_t size
    cdef public dict forms
    cdef public dict events
    cdef readonly FormCache cache

    cpdef adopt(self, topic, FormCache cache)
    @cython.locals(form=PreparedMessage)
    cpdef PreparedMessage form_of(self, render)
    cpdef event_of(self, render, at, name=*)
    cpdef forget_forms(self)

cdef class MatchedPublication(Publication):
    cpdef adopt(self, topic, FormCache cache)

cdef class Notice(Publication):
    cdef readonly object kind
    cdef readonly object present
