# What C has in the place of polls.py: the same functions, without the interpreter between. reactor.pxd cimports this
# file under the name `polls`, so `polls.wait` in reactor.py is this function in the compiled twin. The interpreter's
# lock is held: none of these calls blocks, and to give it away and take it again costs more than most of them.
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit
from cpython.exc cimport PyErr_SetFromErrno

from .watched cimport Watched

cdef extern from *:
    """
    #ifdef __linux__
    #include <arpa/inet.h>
    #include <errno.h>
    #include <stddef.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <sys/un.h>
    #include <unistd.h>

    static Py_ssize_t rawws_event_size(void) { return sizeof(struct epoll_event); }

    static int rawws_epoll_wait(int poll, char *batch, int most) {
        int count = epoll_wait(poll, (struct epoll_event *)batch, most, 0);
        return count < 0 && errno == EINTR ? 0 : count;
    }

    static int rawws_fd_at(char *batch, Py_ssize_t at) { return ((struct epoll_event *)batch)[at].data.fd; }

    static int rawws_events_at(char *batch, Py_ssize_t at) { return (int)((struct epoll_event *)batch)[at].events; }

    static void rawws_shutdown(int fd, int how) { (void)shutdown(fd, how); }

    /* The address as Python's `socket` has it; that of IPv4 as one number, which takes a fifth of the memory. */
    static PyObject *rawws_accept(int listening) {
        union {
            struct sockaddr any;
            struct sockaddr_in v4;
            struct sockaddr_in6 v6;
            struct sockaddr_un local;
        } from;
        socklen_t size = sizeof from;
        char text[INET6_ADDRSTRLEN];
        unsigned long long number;
        PyObject *result = NULL;
        int fd = accept4(listening, &from.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
                Py_RETURN_NONE;
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        if (size >= sizeof from.v4 && from.any.sa_family == AF_INET) {
            number = (unsigned long long)ntohl(from.v4.sin_addr.s_addr) << 16 | ntohs(from.v4.sin_port);
            result = Py_BuildValue("iK", fd, number);
        } else if (size >= sizeof from.v6 && from.any.sa_family == AF_INET6) {
            inet_ntop(AF_INET6, &from.v6.sin6_addr, text, sizeof text);
            result = Py_BuildValue("i(siII)", fd, text, (int)ntohs(from.v6.sin6_port),
                                   (unsigned int)ntohl(from.v6.sin6_flowinfo), (unsigned int)from.v6.sin6_scope_id);
        } else if (size > offsetof(struct sockaddr_un, sun_path) && from.any.sa_family == AF_UNIX) {
            Py_ssize_t length = size - offsetof(struct sockaddr_un, sun_path);
            if (from.local.sun_path[0] == 0)
                result = Py_BuildValue("iy#", fd, from.local.sun_path, length);
            else
                result = Py_BuildValue("iN", fd, PyUnicode_DecodeFSDefaultAndSize(
                    from.local.sun_path, strnlen(from.local.sun_path, length)));
        } else {
            result = Py_BuildValue("is", fd, "");
        }
        if (result == NULL)
            close(fd);
        return result;
    }
    #else
    /* Never called: `engine="epoll"` is refused where there is no epoll. */
    static Py_ssize_t rawws_event_size(void) { return 0; }
    static int rawws_epoll_wait(int poll, char *batch, int most) { return 0; }
    static int rawws_fd_at(char *batch, Py_ssize_t at) { return -1; }
    static int rawws_events_at(char *batch, Py_ssize_t at) { return 0; }
    static void rawws_shutdown(int fd, int how) { }
    static PyObject *rawws_accept(int listening) { Py_RETURN_NONE; }
    #endif
    """
    Py_ssize_t rawws_event_size()
    int rawws_epoll_wait(int poll, char *batch, int most)
    int rawws_fd_at(char *batch, Py_ssize_t at)
    int rawws_events_at(char *batch, Py_ssize_t at)
    void rawws_shutdown(int fd, int how)
    object rawws_accept(int listening)


cdef inline bytearray new_batch():
    # As many as BATCH in polls.py.
    return bytearray(128 * rawws_event_size())


cdef inline Py_ssize_t wait(object poll, int fd, bytearray batch) except -1:
    cdef int count = rawws_epoll_wait(fd, PyByteArray_AS_STRING(batch), 128)
    if count < 0:
        PyErr_SetFromErrno(OSError)
    return count


cdef inline int serve(bytearray batch, Py_ssize_t position, list table) except -1:
    cdef char *events = PyByteArray_AS_STRING(batch)
    cdef int fd = rawws_fd_at(events, position)
    cdef Watched watched = table[fd] if fd < len(table) else None
    if watched is not None:
        PyContext_Enter(watched.context)
        try:
            watched.ready(rawws_events_at(events, position))
        finally:
            PyContext_Exit(watched.context)
    return 0


cdef inline object accept_one(object listening, int fd):
    return rawws_accept(fd)


cdef inline int shut_down(int fd, int how) except -1:
    rawws_shutdown(fd, how)
    return 0
