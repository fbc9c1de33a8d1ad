# No bounds are checked behind these pointers: the callers own the lengths.
cimport cython

cpdef mask(bytearray buffer, Py_ssize_t start, Py_ssize_t stop, unsigned int key)

@cython.locals(
    octets="unsigned char *", key0="unsigned char", key1="unsigned char", key2="unsigned char", key3="unsigned char",
    last=Py_ssize_t
)
cpdef mask_octets(bytearray buffer, Py_ssize_t start, Py_ssize_t stop, unsigned int key)

@cython.locals(shift="int")
cpdef unsigned int rotate(unsigned int key, Py_ssize_t count)

cpdef bytes cut(bytearray buffer, Py_ssize_t start, Py_ssize_t stop)

@cython.locals(octets="unsigned char *")
cpdef bytes cut_octets(bytearray buffer, Py_ssize_t start, Py_ssize_t stop)

cpdef bytearray blank(Py_ssize_t length)

cpdef bytes blank_octets(Py_ssize_t length)

cpdef place(target, Py_ssize_t at, source, Py_ssize_t start, Py_ssize_t stop, unsigned int key)

@cython.locals(
    octets="unsigned char *", origin="const unsigned char *", key0="unsigned char", key1="unsigned char",
    key2="unsigned char", key3="unsigned char", last=Py_ssize_t
)
cpdef place_octets(target, Py_ssize_t at, source, Py_ssize_t start, Py_ssize_t stop, unsigned int key)
