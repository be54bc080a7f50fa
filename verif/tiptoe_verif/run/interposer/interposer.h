// What the parts of the interposer share. Hidden: the programs it is loaded into see the interposed calls only.
#pragma once

#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE
#endif
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

// --- the protocol: as in protocol.py ------------------------------------------------------------------------------

enum { SOCKET = 1, BIND, LISTEN, CONNECT, ACCEPTING, GETSOCKNAME, GETPEERNAME, GETSOCKOPT, SETSOCKOPT };
enum { DONE, FALL_BACK, REPLACE };

struct request {
    uint8_t token[16];
    uint32_t op, family;  // family: AF_INET, AF_INET6, or 0 without an address
    uint64_t serial;
    int32_t a, b;
    uint32_t port;  // host order
    uint8_t address[16];  // as on the wire, one of IPv4 in the first four
    uint8_t data[256];
};
struct reply {
    int32_t error;
    uint32_t action, family, port, length;
    uint8_t address[16];
    uint8_t data[2048];
};
struct accepted {
    uint64_t serial;
    uint32_t family, port;
    uint8_t address[16];
};
struct option {  // of a socket that falls back; its value follows, padded to 4 bytes
    int32_t level, name, length;
};
#define REQUEST_HEAD offsetof(struct request, data)
#define REPLY_HEAD offsetof(struct reply, data)

#pragma GCC visibility push(hidden)

// --- the C library's own functions: library.c ---------------------------------------------------------------------

extern int (*real_socket)(int, int, int);
extern int (*real_bind)(int, const struct sockaddr*, socklen_t);
extern int (*real_listen)(int, int);
extern int (*real_accept4)(int, struct sockaddr*, socklen_t*, int);
extern int (*real_accept)(int, struct sockaddr*, socklen_t*);
extern int (*real_connect)(int, const struct sockaddr*, socklen_t);
extern int (*real_getsockname)(int, struct sockaddr*, socklen_t*);
extern int (*real_getpeername)(int, struct sockaddr*, socklen_t*);
extern int (*real_getsockopt)(int, int, int, void*, socklen_t*);
extern int (*real_setsockopt)(int, int, int, const void*, socklen_t);

void start(void);  // finds them, and reads the environment

// Constructors of other libraries may come before ours.
#define READY() do { if (!real_socket) start(); } while (0)

// --- requests to the broker: request.c ----------------------------------------------------------------------------

extern struct sockaddr_un control;
extern socklen_t control_length;  // 0: not configured, everything goes to the C library
extern uint8_t token[16];

union room {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

int digit(char c);
uint64_t serial_of(int fd);
int passed(struct msghdr* message);
int ask(struct request* request, size_t length, int send_fd, const struct timeval* patience, int interruptible,
        struct reply* reply, int* got_fd);
int simple(struct request* request, size_t length, struct reply* reply);

// --- addresses: address.c -----------------------------------------------------------------------------------------

int take_address(const struct sockaddr* address, socklen_t length, struct request* request);
void give_address(uint32_t family, const uint8_t* bytes, uint32_t port, struct sockaddr* address, socklen_t* length);

#pragma GCC visibility pop
