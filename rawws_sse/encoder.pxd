cimport cython

from .event cimport Event

cpdef bytes encode(object event)

@cython.locals(text=str)
cpdef bytes encode_data(str head, object data)

@cython.locals(text=str)
cpdef str checked(str field, object value, bint nul)

cpdef str plain(str field, object value, str other)

cpdef checked_retry(object retry)
