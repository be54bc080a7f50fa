// Requests to the broker: a connection each, with the secret from the environment.
#include "interposer.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

// The serial number of a descriptor's socket; 0: not one of ours.
uint64_t serial_of(int fd) {
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

int passed(struct msghdr* message) {
    for (struct cmsghdr* head = CMSG_FIRSTHDR(message); head; head = CMSG_NXTHDR(message, head))
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
            int fd;
            memcpy(&fd, CMSG_DATA(head), sizeof fd);
            return fd;
        }
    return -1;
}

// Send a request (with a descriptor, unless -1) and take the reply (with a descriptor, if one comes). 0, or -1 and errno.
// `patience`: the reply may be long in coming, so signals interrupt as they do any system call (EINTR, or a restart), and
// the time limit, if not NULL, holds (EAGAIN).
int ask(struct request* request, size_t length, int send_fd, const struct timeval* patience, int interruptible,
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

int simple(struct request* request, size_t length, struct reply* reply) {
    return ask(request, length, -1, NULL, 0, reply, NULL);
}
