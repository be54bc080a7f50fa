/* The messages of docs/seam.md in C: all that a driver needs of the simulated engine. POSIX, little and big endian.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#ifndef SEAM_H
#define SEAM_H

#include <stddef.h>
#include <stdint.h>

enum seam_event { SEAM_IRQ = 1, SEAM_FRAME = 2 };

/* A connection to `tiptoe serve`. A call that fails says why and ends the program: there is nothing to go on with. */
struct seam {
    int socket;
    uint64_t memory_bytes;
    uint32_t ip, peer_ip;
    uint64_t mac, peer_mac;
};

/* Connect to its socket, and learn the addresses of the engine, which the driver writes to its registers, and of its peer. */
void seam_open(struct seam *s, const char *path);
void seam_close(struct seam *s);

uint32_t seam_read(struct seam *s, uint32_t reg);              /* time passes meanwhile */
void seam_write(struct seam *s, uint32_t reg, uint32_t value); /* carried out in order, as time passes */
void seam_load(struct seam *s, uint64_t address, void *data, size_t length);
void seam_store(struct seam *s, uint64_t address, const void *data, size_t length);

/* Let time pass until the interrupt is there, or so much; the time in microseconds, and bits of enum seam_event. */
uint64_t seam_wait(struct seam *s, uint64_t timeout_us, unsigned *events);

#endif
