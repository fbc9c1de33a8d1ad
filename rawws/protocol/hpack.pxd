cimport cython

from .huffman cimport decode_huffman, encode_huffman, huffman_size

cdef Py_ssize_t ENTRY_OVERHEAD
cdef Py_ssize_t STATIC_LENGTH
cdef tuple STATIC_TABLE
cdef dict STATIC_FIELDS
cdef dict STATIC_NAMES
cdef frozenset NEVER_INDEXED
cdef frozenset NOT_INDEXED
cdef Py_ssize_t SHORT_COOKIE
cdef int MAX_INTEGER_OCTETS
cdef Py_ssize_t BOMB

@cython.final
cdef class DynamicTable:
    cdef readonly object entries
    cdef readonly Py_ssize_t max_size
    cdef readonly Py_ssize_t size

    @cython.locals(name=str, value=str, size=Py_ssize_t)
    cpdef list add(self, tuple field)
    cpdef list resize(self, Py_ssize_t max_size)
    @cython.locals(evicted=list, field=tuple, name=str, value=str)
    cpdef list evict(self, Py_ssize_t room)

@cython.final
cdef class HpackDecoder:
    cdef readonly DynamicTable table
    cdef readonly Py_ssize_t max_list_size
    cdef readonly Py_ssize_t list_size
    cdef Py_ssize_t _limit
    cdef bint _shrink
    cdef bytes _block
    cdef Py_ssize_t _at

    cpdef set_limit(self, Py_ssize_t limit)
    @cython.locals(
        fields=list, size=Py_ssize_t, end=Py_ssize_t, began=bint, octet="unsigned char", field=tuple, name=str, value=str
    )
    cpdef list decode(self, bytes block)
    cpdef update_size(self, bint began)
    cpdef tuple entry(self, Py_ssize_t index)
    @cython.locals(index=Py_ssize_t)
    cpdef tuple read_literal(self, int prefix)
    @cython.locals(mask=Py_ssize_t, value=Py_ssize_t, place=int, octet="unsigned char")
    cpdef Py_ssize_t read_integer(self, int prefix) except -1
    @cython.locals(block=bytes, huffman=bint, length=Py_ssize_t, start=Py_ssize_t, end=Py_ssize_t, octets=bytes)
    cpdef str read_string(self)

@cython.final
cdef class HpackEncoder:
    cdef readonly DynamicTable table
    cdef Py_ssize_t _table_size
    cdef list _updates
    cdef dict _fields
    cdef dict _names
    cdef Py_ssize_t _inserted
    cdef Py_ssize_t _evicted

    @cython.locals(size=Py_ssize_t)
    cpdef set_limit(self, Py_ssize_t limit)
    @cython.locals(block=bytearray)
    cpdef bytes encode(self, fields)
    @cython.locals(name=str, value=str, index=Py_ssize_t)
    cpdef write_field(self, bytearray block, tuple field)
    @cython.locals(name=str, value=str, index=Py_ssize_t)
    cpdef write_literal(self, bytearray block, int pattern, int prefix, tuple field)
    cpdef forget(self, list evicted)

@cython.locals(mask=Py_ssize_t)
cpdef write_integer(bytearray block, int pattern, int prefix, Py_ssize_t value)
@cython.locals(octets=bytes, size=Py_ssize_t)
cpdef write_string(bytearray block, str text)
