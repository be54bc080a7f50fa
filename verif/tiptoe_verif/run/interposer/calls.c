// Loaded into a program by `tiptoe run` (LD_PRELOAD): its TCP sockets become sockets of the offload driver.
//
// A TCP socket of the program is one end of a pair of UNIX stream sockets; the other end is with the broker, which joins
// it to an offloaded connection. Data, readiness, dup, fork, exec and close are the kernel's business, so only calls
// that name addresses or options are interposed. The kernel also knows which descriptor is which: the broker's end is
// bound to an abstract name that ends in a serial number, and getpeername() tells it. There is no table here that
// dup2, close or exec could make wrong.
//
// Every request is a connection of its own to the broker: nothing to share between threads, to lose over fork, or to
// be closed by a program that closes all descriptors. It also makes a call from a signal handler harmless.

#include "interposer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

int accept4(int, struct sockaddr*, socklen_t*, int);
int dup3(int, int, int);

// --- descriptors --------------------------------------------------------------------------------------------------

// Put another socket in the place of a descriptor; flags stay as they were.
static int substitute(int fd, int other) {
    int status = fcntl(fd, F_GETFL), flags = fcntl(fd, F_GETFD);
    if (other < 0 || status < 0 || flags < 0) return -1;
    fcntl(other, F_SETFL, status & (O_NONBLOCK | O_ASYNC));
    int result = dup3(other, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0);
    int saved = errno;
    close(other);
    errno = saved;
    return result < 0 ? -1 : 0;
}

// The address is none of the engine's: a socket of the kernel, with the options set so far, makes the call, and takes the
// descriptor if the call did not fail.
static int fall_back(int fd, const struct reply* reply, int (*call)(int, const struct sockaddr*, socklen_t),
                     const struct sockaddr* address, socklen_t length) {
    int other = real_socket((int)reply->family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (other < 0) return -1;
    for (size_t at = 0; at + sizeof(struct option) <= reply->length;) {
        struct option option;
        memcpy(&option, reply->data + at, sizeof option);
        at += sizeof option;
        real_setsockopt(other, option.level, option.name, reply->data + at, (socklen_t)option.length);
        at += ((size_t)option.length + 3) & ~(size_t)3;
    }
    static const int limits[] = {SO_RCVTIMEO, SO_SNDTIMEO};
    for (int i = 0; i < 2; i++) {
        struct timeval limit;
        socklen_t size = sizeof limit;
        if (real_getsockopt(fd, SOL_SOCKET, limits[i], &limit, &size) == 0)
            real_setsockopt(other, SOL_SOCKET, limits[i], &limit, size);
    }
    fcntl(other, F_SETFL, fcntl(fd, F_GETFL) & O_NONBLOCK);
    int result = 0;
    if (reply->port) {  // it was bound
        struct sockaddr_storage name;
        socklen_t size = sizeof name;
        give_address(reply->family, reply->address, reply->port, (struct sockaddr*)&name, &size);
        result = real_bind(other, (struct sockaddr*)&name, size);
    }
    if (result == 0) result = call(other, address, length);
    int saved = errno;
    if (result == 0 || saved == EINPROGRESS || saved == EINTR) {
        if (substitute(fd, other) < 0) return -1;
    } else {
        close(other);
    }
    errno = saved;
    return result;
}

// --- what is interposed -------------------------------------------------------------------------------------------

int socket(int family, int type, int protocol) {
    READY();
    int flags = type & (SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (!control_length || (family != AF_INET && family != AF_INET6) || (type & ~flags) != SOCK_STREAM ||
        (protocol != 0 && protocol != IPPROTO_TCP))
        return real_socket(family, type, protocol);
    struct request request = {.op = SOCKET, .a = !!(flags & SOCK_NONBLOCK), .b = family};
    struct reply reply;
    int fd = -1;
    if (ask(&request, 0, -1, NULL, 0, &reply, &fd) < 0) return -1;
    if (fd < 0) {
        errno = EMFILE;
        return -1;
    }
    // The request had the lowest free number; the program may count on getting it.
    int cloexec = flags & SOCK_CLOEXEC;
    int lowest = fcntl(fd, cloexec ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
    if (lowest >= 0 && lowest < fd) {
        close(fd);
        return lowest;
    }
    if (lowest >= 0) close(lowest);
    if (!cloexec) fcntl(fd, F_SETFD, 0);
    return fd;
}

int bind(int fd, const struct sockaddr* address, socklen_t length) {
    READY();
    uint64_t serial = serial_of(fd);
    if (!serial) return real_bind(fd, address, length);
    struct request request = {.op = BIND, .serial = serial};
    struct reply reply;
    if (take_address(address, length, &request) < 0 || simple(&request, 0, &reply) < 0) return -1;
    if (reply.action != FALL_BACK) return 0;
    return fall_back(fd, &reply, real_bind, address, length);
}

// Serial numbers of listening sockets. They are never used twice, so what is in here stays true.
static _Atomic uint64_t listening[64];

static void remember_listening(uint64_t serial) { atomic_store(&listening[serial % 64], serial); }

int listen(int fd, int backlog) {
    READY();
    uint64_t serial = serial_of(fd);
    if (!serial) return real_listen(fd, backlog);
    struct request request = {.op = LISTEN, .serial = serial, .a = backlog};
    struct reply reply;
    if (simple(&request, 0, &reply) < 0) return -1;
    remember_listening(serial);
    return 0;
}

// A connection is a record with a descriptor on the listening socket's own stream: blocking, time limits, readiness and
// processes that share the listening socket are the kernel's business.
static int take_connection(int fd, uint64_t serial, struct sockaddr* address, socklen_t* length, int flags) {
    if (atomic_load(&listening[serial % 64]) != serial) {
        struct request request = {.op = ACCEPTING, .serial = serial};
        struct reply reply;
        if (simple(&request, 0, &reply) < 0) return -1;
        remember_listening(serial);
    }
    // A record whose descriptor finds no place would be lost: see first if there is one.
    int place = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (place < 0) {
        if (errno == EINVAL) errno = EMFILE;
        return -1;
    }
    close(place);
    struct accepted record;
    union room room;
    struct iovec in = {&record, sizeof record};
    struct msghdr message = {.msg_iov = &in, .msg_iovlen = 1, .msg_control = room.bytes,
                             .msg_controllen = sizeof room.bytes};
    ssize_t got = recvmsg(fd, &message, flags & SOCK_CLOEXEC ? MSG_CMSG_CLOEXEC : 0);
    if (got < 0) {
        if (errno == ECONNRESET) errno = EINVAL;
        return -1;
    }
    int child = passed(&message);
    if (got != sizeof record || child < 0) {
        errno = got == sizeof record ? EMFILE : EINVAL;  // EINVAL: listens no more
        return -1;
    }
    if (flags & SOCK_NONBLOCK) fcntl(child, F_SETFL, O_NONBLOCK);
    give_address(record.family, record.address, record.port, address, length);
    return child;
}

int accept4(int fd, struct sockaddr* address, socklen_t* length, int flags) {
    READY();
    uint64_t serial = serial_of(fd);
    if (!serial) return real_accept4(fd, address, length, flags);
    if (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) {
        errno = EINVAL;
        return -1;
    }
    return take_connection(fd, serial, address, length, flags);
}

int accept(int fd, struct sockaddr* address, socklen_t* length) {
    READY();
    uint64_t serial = serial_of(fd);
    return serial ? take_connection(fd, serial, address, length, 0) : real_accept(fd, address, length);
}

int connect(int fd, const struct sockaddr* address, socklen_t length) {
    READY();
    for (int attempt = 0; attempt < 3; attempt++) {
        uint64_t serial = serial_of(fd);
        if (!serial) break;
        int wait = !(fcntl(fd, F_GETFL) & O_NONBLOCK);
        struct request request = {.op = CONNECT, .serial = serial, .a = wait};
        struct reply reply;
        struct timeval limit = {0, 0};
        socklen_t size = sizeof limit;
        if (take_address(address, length, &request) < 0) return -1;
        if (wait) real_getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &size);
        int other = -1;
        if (ask(&request, 0, fd, &limit, wait, &reply, &other) < 0) {
            if (errno == EAGAIN) errno = EINPROGRESS;  // the time limit: it goes on without us
            return -1;
        }
        if (reply.action == DONE) return 0;
        if (reply.action == FALL_BACK) return fall_back(fd, &reply, real_connect, address, length);
        if (substitute(fd, other) < 0) return -1;  // REPLACE: a new socket after a failed attempt
    }
    return real_connect(fd, address, length);
}

static int name_of(uint32_t op, uint64_t serial, struct sockaddr* address, socklen_t* length) {
    struct request request = {.op = op, .serial = serial};
    struct reply reply;
    if (simple(&request, 0, &reply) < 0) return -1;
    give_address(reply.family, reply.address, reply.port, address, length);
    return 0;
}

int getsockname(int fd, struct sockaddr* address, socklen_t* length) {
    READY();
    uint64_t serial = serial_of(fd);
    return serial ? name_of(GETSOCKNAME, serial, address, length) : real_getsockname(fd, address, length);
}

int getpeername(int fd, struct sockaddr* address, socklen_t* length) {
    READY();
    uint64_t serial = serial_of(fd);
    return serial ? name_of(GETPEERNAME, serial, address, length) : real_getpeername(fd, address, length);
}

// Options that act on the program's end of the pair and mean the same there.
static int is_native(int level, int name) {
    return level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO || name == SO_RCVLOWAT || name == SO_TYPE);
}

int getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
    READY();
    uint64_t serial = is_native(level, name) ? 0 : serial_of(fd);
    if (!serial) return real_getsockopt(fd, level, name, value, length);
    struct request request = {.op = GETSOCKOPT, .serial = serial, .a = level, .b = name};
    struct reply reply;
    if (level == SOL_SOCKET && name == SO_ERROR) {
        // The kernel knows whether an error waits; which one it was in TCP's terms is the broker's knowledge.
        int pending = 0;
        socklen_t size = sizeof pending;
        real_getsockopt(fd, level, name, &pending, &size);
        if (!pending || simple(&request, 0, &reply) < 0) {
            reply.length = sizeof pending;
            memcpy(reply.data, &pending, sizeof pending);
        }
    } else if (simple(&request, 0, &reply) < 0) {
        return -1;
    }
    if ((int)*length < 0) {
        errno = EINVAL;
        return -1;
    }
    if (*length > reply.length) *length = reply.length;
    memcpy(value, reply.data, *length);
    return 0;
}

int setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
    READY();
    uint64_t serial = is_native(level, name) ? 0 : serial_of(fd);
    if (!serial) return real_setsockopt(fd, level, name, value, length);
    struct request request = {.op = SETSOCKOPT, .serial = serial, .a = level, .b = name};
    struct reply reply;
    if (length > sizeof request.data) {
        errno = EINVAL;
        return -1;
    }
    if (length) memcpy(request.data, value, length);
    return simple(&request, length, &reply);
}
