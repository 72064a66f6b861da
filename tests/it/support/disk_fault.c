/* A disk that fails on demand, put in front of the C library's calls by LD_PRELOAD.
 *
 * The file that DISK_FAULT names holds "<errno> <calls> <part of a path>" while the fault lasts; calls are "write", "sync" or
 * "all"; a part that ends in $ is the end of the path. A full disk takes half of what it is given before it takes nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int fault(int file, const char *call) {
    const char *control = getenv("DISK_FAULT");
    char calls[16], part[256], link[64], path[4096];
    int number;
    if (!control) return 0;
    FILE *told = fopen(control, "re");
    if (!told) return 0;
    int read = fscanf(told, "%d %15s %255s", &number, calls, part);
    fclose(told);
    if (read != 3 || (strcmp(calls, "all") && strcmp(calls, call))) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    size_t end = strlen(part);
    if (part[end - 1] == '$') {
        part[--end] = 0;
        return (size_t)length >= end && !strcmp(path + length - end, part) ? number : 0;
    }
    return strstr(path, part) ? number : 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MOST_OF_A_FULL_DISK 512

#define FAIL_OR(file, call, size, real)                                                            \
    int number = fault(file, call), saved = errno;                                                 \
    if (number == ENOSPC && size > MOST_OF_A_FULL_DISK) size /= 2;                                 \
    else if (number) { errno = number; return -1; }                                                \
    errno = saved;                                                                                 \
    return real;

ssize_t write(int file, const void *bytes, size_t size) {
    FAIL_OR(file, "write", size, REAL(write)(file, bytes, size))
}
ssize_t pwrite(int file, const void *bytes, size_t size, off_t at) {
    FAIL_OR(file, "write", size, REAL(pwrite)(file, bytes, size, at))
}
ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t at) {
    FAIL_OR(file, "write", size, REAL(pwrite64)(file, bytes, size, at))
}
int fsync(int file) {
    size_t none = 0;
    FAIL_OR(file, "sync", none, REAL(fsync)(file))
}
int fdatasync(int file) {
    size_t none = 0;
    FAIL_OR(file, "sync", none, REAL(fdatasync)(file))
}
