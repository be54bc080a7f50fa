# The driver's and the applications' sources, from this folder; -I it and ../include. Compiled with $(TOE_CFLAGS) anywhere.
TOE_SOURCES = engine.c rings.c ids.c connection.c events.c listen.c frames.c arp.c
TOE_APPS = apps/echo.c apps/http.c apps/pattern.c apps/stream.c apps/text.c
TOE_CFLAGS = -std=c11 -ffreestanding -Wall -Wextra -Wconversion -Wshadow -Werror
