// Addresses of the program, IPv4 or IPv6, as requests carry them, and back.
#include "interposer.h"

#include <errno.h>
#include <string.h>

int take_address(const struct sockaddr* address, socklen_t length, struct request* request) {
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

void give_address(uint32_t family, uint32_t ip, uint32_t port, struct sockaddr* address, socklen_t* length) {
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
