// Addresses of the program, IPv4 or IPv6, as requests carry them, and back.
#include "interposer.h"

#include <errno.h>
#include <string.h>

#define SHORT_SOCKADDR_IN6 24  // without sin6_scope_id: RFC 2133, and Linux

int take_address(const struct sockaddr* address, socklen_t length, struct request* request) {
    if (length >= sizeof(struct sockaddr_in) && address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        request->family = AF_INET, request->port = ntohs(v4.sin_port);
        memcpy(request->address, &v4.sin_addr, sizeof v4.sin_addr);
    } else if (length >= SHORT_SOCKADDR_IN6 && address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6 = {0};
        memcpy(&v6, address, length < sizeof v6 ? length : sizeof v6);
        request->family = AF_INET6, request->port = ntohs(v6.sin6_port);
        memcpy(request->address, &v6.sin6_addr, sizeof v6.sin6_addr);
    } else {
        errno = length < sizeof(struct sockaddr_in) || address->sa_family == AF_INET6 ? EINVAL : EAFNOSUPPORT;
        return -1;
    }
    return 0;
}

void give_address(uint32_t family, const uint8_t* bytes, uint32_t port, struct sockaddr* address, socklen_t* length) {
    union {
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } name;
    memset(&name, 0, sizeof name);
    socklen_t size = sizeof name.v4;
    if (family == AF_INET6) {
        size = sizeof name.v6;
        name.v6.sin6_family = AF_INET6;
        name.v6.sin6_port = htons((uint16_t)port);
        memcpy(&name.v6.sin6_addr, bytes, sizeof name.v6.sin6_addr);
    } else {
        name.v4.sin_family = AF_INET;
        name.v4.sin_port = htons((uint16_t)port);
        memcpy(&name.v4.sin_addr, bytes, sizeof name.v4.sin_addr);
    }
    if (!address || !length) return;
    memcpy(address, &name, *length < size ? *length : size);
    *length = size;
}
