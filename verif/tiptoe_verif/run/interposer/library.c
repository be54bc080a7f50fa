// The C library's own functions behind the interposed ones, and what the environment says of the broker.
#include "interposer.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifndef RTLD_NEXT  // of _GNU_SOURCE, which would declare the interposed functions with other types
#define RTLD_NEXT ((void*)-1L)
#endif

int (*real_socket)(int, int, int);
int (*real_bind)(int, const struct sockaddr*, socklen_t);
int (*real_listen)(int, int);
int (*real_accept4)(int, struct sockaddr*, socklen_t*, int);
int (*real_accept)(int, struct sockaddr*, socklen_t*);
int (*real_connect)(int, const struct sockaddr*, socklen_t);
int (*real_getsockname)(int, struct sockaddr*, socklen_t*);
int (*real_getpeername)(int, struct sockaddr*, socklen_t*);
int (*real_getsockopt)(int, int, int, void*, socklen_t*);
int (*real_setsockopt)(int, int, int, const void*, socklen_t);

struct sockaddr_un control;
socklen_t control_length;
uint8_t token[16];

int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

__attribute__((constructor)) void start(void) {
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
