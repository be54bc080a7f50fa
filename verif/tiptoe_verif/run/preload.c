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

#define _DEFAULT_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef RTLD_NEXT  // of _GNU_SOURCE, which would declare the functions below with other types
#define RTLD_NEXT ((void*)-1L)
#endif
int accept4(int, struct sockaddr*, socklen_t*, int);
int dup3(int, int, int);

// --- the protocol: as in protocol.py ------------------------------------------------------------------------------

enum { SOCKET = 1, BIND, LISTEN, CONNECT, ACCEPTING, GETSOCKNAME, GETPEERNAME, GETSOCKOPT, SETSOCKOPT };
enum { DONE, FALL_BACK, REPLACE };
enum { KIND_V4 = 4, KIND_V6_ANY = 60, KIND_V6_MAPPED = 64, KIND_V6_OTHER = 66 };

struct request {
    uint8_t token[16];
    uint32_t op, kind;
    uint64_t serial;
    int32_t a, b;
    uint32_t ip, port;  // host order
    uint8_t data[256];
};
struct reply {
    int32_t error;
    uint32_t action, family, ip, port, length;
    uint8_t data[2048];
};
struct accepted {
    uint64_t serial;
    uint32_t family, ip, port, unused;
};
struct option {  // of a socket that falls back; its value follows, padded to 4 bytes
    int32_t level, name, length;
};
#define REQUEST_HEAD offsetof(struct request, data)
#define REPLY_HEAD offsetof(struct reply, data)

static struct sockaddr_un control;
static socklen_t control_length;  // 0: not configured, everything goes to the C library
static uint8_t token[16];

// --- the C library's own functions --------------------------------------------------------------------------------

static int (*real_socket)(int, int, int);
static int (*real_bind)(int, const struct sockaddr*, socklen_t);
static int (*real_listen)(int, int);
static int (*real_accept4)(int, struct sockaddr*, socklen_t*, int);
static int (*real_accept)(int, struct sockaddr*, socklen_t*);
static int (*real_connect)(int, const struct sockaddr*, socklen_t);
static int (*real_getsockname)(int, struct sockaddr*, socklen_t*);
static int (*real_getpeername)(int, struct sockaddr*, socklen_t*);
static int (*real_getsockopt)(int, int, int, void*, socklen_t*);
static int (*real_setsockopt)(int, int, int, const void*, socklen_t);

static int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

__attribute__((constructor)) static void start(void) {
    static atomic_flag started = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&started)) return;
#define FIND(name) *(void**)&real_##name = dlsym(RTLD_NEXT, #name)
    FIND(socket), FIND(bind), FIND(listen), FIND(accept4), FIND(accept), FIND(connect), FIND(getsockname);
    FIND(getpeername), FIND(getsockopt), FIND(setsockopt);
    const char* name = getenv("TIPTOE_CONTROL");  // NAME:TOKEN
    const char* colon = name ? strchr(name, ':') : NULL;
    if (!colon || (size_t)(colon - name) > sizeof control.sun_path - 32 || strlen(colon + 1) != 32) return;
    for (int i = 0; i < 16; i++) token[i] = (uint8_t)(digit(colon[1 + 2 * i]) << 4 | digit(colon[2 + 2 * i]));
    control.sun_family = AF_UNIX;
    memcpy(control.sun_path + 1, name, (size_t)(colon - name));
    control_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)(colon - name));
}

// Constructors of other libraries may come before ours.
#define READY() do { if (!real_socket) start(); } while (0)

// --- requests -----------------------------------------------------------------------------------------------------

// The serial number of a descriptor's socket; 0: not one of ours.
static uint64_t serial_of(int fd) {
    struct sockaddr_un name;
    socklen_t length = sizeof name;
    int saved = errno;
    uint64_t serial = 0;
    if (control_length && real_getpeername(fd, (struct sockaddr*)&name, &length) == 0 && name.sun_family == AF_UNIX &&
        length > control_length + 1 && length < sizeof name &&
        memcmp(name.sun_path, control.sun_path, control_length - offsetof(struct sockaddr_un, sun_path)) == 0) {
        const char* text = (const char*)&name + control_length;  // "/SERIAL" in hex
        for (const char* p = text + 1; *text == '/' && p < (const char*)&name + length; p++)
            serial = serial << 4 | (unsigned)digit(*p);
    }
    errno = saved;
    return serial;
}

static void pass(struct msghdr* message, void* room, size_t size, int fd) {
    message->msg_control = room;
    message->msg_controllen = size;
    struct cmsghdr* head = CMSG_FIRSTHDR(message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
}

static int passed(struct msghdr* message) {
    for (struct cmsghdr* head = CMSG_FIRSTHDR(message); head; head = CMSG_NXTHDR(message, head))
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
            int fd;
            memcpy(&fd, CMSG_DATA(head), sizeof fd);
            return fd;
        }
    return -1;
}

union room {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

// Send a request (with a descriptor, unless -1) and take the reply (with a descriptor, if one comes). 0, or -1 and errno.
// `patience`: the reply may be long in coming, so signals interrupt as they do any system call (EINTR, or a restart), and
// the time limit, if not NULL, holds (EAGAIN).
static int ask(struct request* request, size_t length, int send_fd, const struct timeval* patience, int interruptible,
               struct reply* reply, int* got_fd) {
    union room room;
    memcpy(request->token, token, sizeof token);
    int channel = real_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (channel < 0) return -1;
    while (real_connect(channel, (struct sockaddr*)&control, control_length) < 0)
        if (errno != EINTR) goto gone;
    struct iovec out = {request, REQUEST_HEAD + length};
    struct msghdr message = {.msg_iov = &out, .msg_iovlen = 1};
    if (send_fd >= 0) pass(&message, room.bytes, sizeof room.bytes, send_fd);
    while (sendmsg(channel, &message, MSG_NOSIGNAL) < 0)
        if (errno != EINTR) goto gone;
    if (patience && (patience->tv_sec || patience->tv_usec))
        real_setsockopt(channel, SOL_SOCKET, SO_RCVTIMEO, patience, sizeof *patience);
    struct iovec in = {reply, sizeof *reply};
    message = (struct msghdr){.msg_iov = &in, .msg_iovlen = 1, .msg_control = room.bytes,
                              .msg_controllen = sizeof room.bytes};
    ssize_t got;
    while ((got = recvmsg(channel, &message, MSG_CMSG_CLOEXEC)) < 0) {
        if (errno == EINTR && !interruptible) continue;
        int error = errno;
        close(channel);
        errno = error;
        return -1;
    }
    if (got < (ssize_t)REPLY_HEAD) goto gone;
    close(channel);
    int fd = passed(&message);
    if (got_fd) *got_fd = fd;
    else if (fd >= 0) close(fd);
    if (reply->error == 0 || reply->action != DONE) return 0;
    errno = reply->error;
    return -1;
gone:
    close(channel);
    errno = ENETDOWN;  // the broker has ended
    return -1;
}

static int simple(struct request* request, size_t length, struct reply* reply) {
    return ask(request, length, -1, NULL, 0, reply, NULL);
}

// --- addresses ----------------------------------------------------------------------------------------------------

static int take_address(const struct sockaddr* address, socklen_t length, struct request* request) {
    if (length >= sizeof(struct sockaddr_in) && address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        request->kind = KIND_V4, request->ip = ntohl(v4.sin_addr.s_addr), request->port = ntohs(v4.sin_port);
    } else if (length >= 24 && address->sa_family == AF_INET6) {  // 24: without sin6_scope_id
        struct sockaddr_in6 v6 = {0};
        memcpy(&v6, address, length < sizeof v6 ? length : sizeof v6);
        uint32_t word;
        memcpy(&word, v6.sin6_addr.s6_addr + 12, 4);
        request->kind = IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr) ? KIND_V6_ANY
                        : IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)  ? KIND_V6_MAPPED : KIND_V6_OTHER;
        request->ip = ntohl(word), request->port = ntohs(v6.sin6_port);
    } else {
        errno = length < sizeof(struct sockaddr_in) ? EINVAL : EAFNOSUPPORT;
        return -1;
    }
    return 0;
}

static void give_address(uint32_t family, uint32_t ip, uint32_t port, struct sockaddr* address, socklen_t* length) {
    union {
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } name;
    memset(&name, 0, sizeof name);
    uint32_t word = htonl(ip);
    socklen_t size = sizeof name.v4;
    if (family == AF_INET6) {
        size = sizeof name.v6;
        name.v6.sin6_family = AF_INET6;
        name.v6.sin6_port = htons((uint16_t)port);
        if (ip) {
            memset(name.v6.sin6_addr.s6_addr + 10, 0xff, 2);
            memcpy(name.v6.sin6_addr.s6_addr + 12, &word, 4);
        }
    } else {
        name.v4.sin_family = AF_INET;
        name.v4.sin_port = htons((uint16_t)port);
        name.v4.sin_addr.s_addr = word;
    }
    if (!address || !length) return;
    memcpy(address, &name, *length < size ? *length : size);
    *length = size;
}

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
        give_address(reply->family, reply->ip, reply->port, (struct sockaddr*)&name, &size);
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
    give_address(record.family, record.ip, record.port, address, length);
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
    give_address(reply.family, reply.ip, reply.port, address, length);
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
