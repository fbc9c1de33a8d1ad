# What C has in the place of Python's `os`: the same calls on a socket, without the interpreter between. socket.pxd and
# reactor.pxd cimport this file under the name `os`, so `os.write` in socket.py is this function in the compiled twin.
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.memoryview cimport PyMemoryView_GET_BUFFER

cdef extern from *:
    """
    #ifdef _WIN32
    /* Never called: there is no descriptor to write to. */
    struct iovec { void *iov_base; size_t iov_len; };
    #define rawws_send(fd, octets, size) ((Py_ssize_t)-1)
    #define rawws_recv(fd, octets, size) ((Py_ssize_t)-1)
    #define writev(fd, pieces, count) ((Py_ssize_t)-1)
    #else
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0 /* Python ignores SIGPIPE */
    #endif
    #define rawws_send(fd, octets, size) send(fd, octets, size, MSG_NOSIGNAL)
    #define rawws_recv(fd, octets, size) recv(fd, octets, size, 0)
    #endif
    """
    struct iovec:
        void *iov_base
        size_t iov_len
    Py_ssize_t rawws_send(int fd, const void *octets, size_t size) nogil
    Py_ssize_t rawws_recv(int fd, void *octets, size_t size) nogil
    Py_ssize_t rawws_writev "writev"(int fd, const iovec *pieces, int count) nogil


cdef inline Py_ssize_t write(int fd, bytes octets) except -1:
    cdef Py_ssize_t sent = rawws_send(fd, PyBytes_AS_STRING(octets), PyBytes_GET_SIZE(octets))
    if sent < 0:
        PyErr_SetFromErrno(OSError)
    return sent


cdef inline Py_ssize_t writev(int fd, list chunks) except -1:
    # The caller passes 1024 at the most, as `os.writev` takes.
    cdef iovec pieces[1024]
    cdef int count = 0
    cdef Py_ssize_t sent
    for chunk in chunks:
        if PyBytes_CheckExact(chunk):
            pieces[count].iov_base = PyBytes_AS_STRING(chunk)
            pieces[count].iov_len = PyBytes_GET_SIZE(chunk)
        else:
            # A memoryview of one.
            pieces[count].iov_base = PyMemoryView_GET_BUFFER(chunk).buf
            pieces[count].iov_len = PyMemoryView_GET_BUFFER(chunk).len
        count += 1
        if count == 1024:
            break
    sent = rawws_writev(fd, pieces, count)
    if sent < 0:
        PyErr_SetFromErrno(OSError)
    return sent


cdef inline Py_ssize_t readv(int fd, list buffers) except -1:
    # One buffer is all that is ever asked for.
    cdef bytearray buffer = buffers[0]
    cdef Py_ssize_t count = rawws_recv(fd, PyByteArray_AS_STRING(buffer), PyByteArray_GET_SIZE(buffer))
    if count < 0:
        PyErr_SetFromErrno(OSError)
    return count
